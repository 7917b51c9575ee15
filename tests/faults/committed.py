"""What a PostgreSQL database holds after each transaction of a recorded process.

PostgreSQL's own files are its own affair: what it has answered COMMIT to is durable.  When the process is cut off while it
waits for that answer, its transaction may have been committed or not.
"""

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import create_engine, insert, make_url, select

from storage.database.schema import Base
from tests.faults.power_loss import Step

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"
"""As the driver sends it: a simple query (PostgreSQL's documentation, "Message Formats")."""


class CommittedAtOnce(Exception):
    """The recording is of no use: make another."""


class CommitsSeen:
    """How many transactions a process had begun to commit, and how many of these were answered, step by step."""

    def __init__(self) -> None:
        self.begun = self.answered = 0
        self._waiting: set[int] = set()

    def see(self, step: Step) -> bool:
        """The step was taken; whether a transaction may be there since, or must be."""
        begins, call = step
        if begins and _is_commit(step):
            if self._waiting:
                raise CommittedAtOnce("of two that commit at once nobody knows which was first")
            self._waiting.add(call.fd)
            self.begun += 1
            return True
        if not begins and call.name == "recvfrom" and call.fd in self._waiting:
            self._waiting.clear()
            self.answered += 1
            return True
        return False


def without_commits(steps: Sequence[Step]) -> list[Step]:
    """The same process, had it not committed anything."""
    return [step for step in steps if not _is_commit(step)]


def _is_commit(step: Step) -> bool:
    _, call = step
    return call.name == "sendto" and call.texts[:1] == [COMMIT]


class Committed:
    """Stands between a process and its PostgreSQL; keeps the rows at each commit, before the process hears of it.

    `databases[n]`: a SQLite database with all rows after n commits.  `url`: where the process finds PostgreSQL.
    """

    def __init__(self, folder: Path, url: str, template: Path) -> None:
        """`template`: an empty, migrated SQLite database."""
        folder.mkdir()
        self._folder, self._template = folder, template.read_bytes()
        self._postgresql = create_engine(url)
        address = make_url(url)
        self._server = f"{address.query['host']}/.s.PGSQL.5432"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self.url = f"postgresql+psycopg://{address.username}@/{address.database}?host={folder}"
        self._one_at_a_time = threading.Lock()
        self.databases = [self._rows()]

    def __enter__(self) -> Self:
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._postgresql.dispose()

    def _rows(self) -> bytes:
        path = self._folder / "rows.db"
        path.write_bytes(self._template)
        sqlite = create_engine(f"sqlite:///{path}")
        with self._postgresql.connect() as kill_point, sqlite.begin() as there:
            for table in Base.metadata.tables.values():
                columns = [column for column in table.columns if column.computed is None]
                if rows := kill_point.execute(select(*columns)).mappings().all():
                    there.execute(insert(table), [dict(row) for row in rows])
        sqlite.dispose()
        return path.read_bytes()

    def _accept(self) -> None:
        while True:
            try:
                process, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            committing = threading.Event()
            threading.Thread(target=self._requests, args=(process, server, committing), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, process, committing), daemon=True).start()

    def _requests(self, process: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with process, suppress(OSError):
            while data := process.recv(1 << 20):
                if data == COMMIT:
                    committing.set()
                server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, process: socket.socket, committing: threading.Event) -> None:
        with server, suppress(OSError):  # of a process that was killed
            while data := server.recv(1 << 20):
                if committing.is_set():
                    committing.clear()
                    with self._one_at_a_time:
                        self.databases.append(self._rows())
                process.sendall(data)
