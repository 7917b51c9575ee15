"""Which processes of a node run: each says so every few seconds.  And which peers answered when they were last asked."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update

from storage.database.running import PeerAnswerRow, ProcessRow
from storage.database.transactions import Transactions
from storage.running import Process

_FORGOTTEN = timedelta(hours=1)
"""What a host was answered is worth nothing once it has not asked for so long."""


class Processes:
    """What the processes of a node say of themselves.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def beat(self, process: Process) -> None:
        """It runs, as of its `beat_at`."""
        values = {name: value for name, value in vars(process).items() if name != "name"}
        with self._transactions.writing() as session:
            known = session.execute(
                update(ProcessRow).where(ProcessRow.name == process.name).values(**values).returning(ProcessRow.name)
            )
            if known.first() is None:
                session.add(ProcessRow(name=process.name, **values))

    def end(self, name: str) -> None:
        """It ended as it should: nobody misses it."""
        with self._transactions.writing() as session:
            session.execute(delete(ProcessRow).where(ProcessRow.name == name))

    def drains(self, host: str, folder: str) -> bool:
        """Whether the node of this host with this folder is about to stop, and wants no new associations."""
        mine = (ProcessRow.role == "serve", ProcessRow.host == host, ProcessRow.folder == folder)
        with self._transactions.reading() as session:
            said = session.scalars(select(ProcessRow.details).where(*mine).order_by(ProcessRow.started_at.desc()))
            runs = next((details for details in said if "trouble" not in (details or {})), None)  # others never began
            return bool((runs or {}).get("drains"))

    def forget(self, role: str, folder: str, is_gone: Callable[[str, int], bool], before: datetime) -> int:
        """Those of a role at this folder that are gone, or silent since `before`, are no longer missed: how many.

        `is_gone` is asked of a host and a process id.
        """
        with self._transactions.writing() as session:
            rows = session.scalars(select(ProcessRow).where(ProcessRow.role == role, ProcessRow.folder == folder)).all()
            gone = [row for row in rows if row.beat_at < before or is_gone(row.host, row.pid)]
            for row in gone:
                session.delete(row)
            return len(gone)

    def peer_answered(self, peer: str, host: str, now: datetime, error: str = "") -> None:
        """The peer was asked `now` by this host and answered, or did not, with this error.

        What other hosts were answered that ask no longer is forgotten.
        """
        answered = {} if error else {"answered_at": now}
        values = {"asked_at": now, "error": error, **answered}
        old = (PeerAnswerRow.host != host, PeerAnswerRow.asked_at < now - _FORGOTTEN)
        with self._transactions.writing() as session:
            session.execute(delete(PeerAnswerRow).where(*old))
            asked = PeerAnswerRow.peer == peer, PeerAnswerRow.host == host
            known = session.execute(update(PeerAnswerRow).where(*asked).values(**values).returning(PeerAnswerRow.peer))
            if known.first() is None:
                session.add(PeerAnswerRow(peer=peer, host=host, **values))
