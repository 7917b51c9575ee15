"""PostgreSQL's programs on data folders of the tests' own; and a primary with a standby that follows it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.support.absent import absent

_QUICK = "-F -c listen_addresses='' -c max_connections=200"
"""A process that is killed loses nothing that it wrote: nothing need be flushed to the disk."""


class Programs:
    """Runs them as a user that they accept; skips where they are absent (in CI: fails)."""

    def __init__(self) -> None:
        """The folder is there, for data, sockets and what the programs say."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if not found:
            absent("no PostgreSQL server (/usr/lib/postgresql/*/bin): apt-get install postgresql")
        self._bin = found[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix=f"willis-pg-{os.getpid()}-", dir="/tmp"))
        self._as_postgres: list[str] = []
        if os.geteuid() == 0:  # initdb refuses root
            shutil.chown(self.folder, "postgres")
            self._as_postgres = ["runuser", "-u", "postgres", "--"]
        for left in Path("/tmp").glob("willis-pg-*-*"):  # by a test run that was killed
            if left.owner() == self.folder.owner() and not Path("/proc", left.name.split("-")[2]).exists():
                for data in left.iterdir():
                    self.stop(data)
                shutil.rmtree(left, ignore_errors=True)

    def run(self, program: str, data: Path, *arguments: str, check: bool = True) -> None:
        """The program ended with status 0."""
        with (self.folder / "output").open("ab") as output:  # not a pipe: the server would hold it open
            subprocess.run(
                [*self._as_postgres, str(self._bin / program), "-D", str(data), *arguments],
                check=check, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self.folder,
            )  # fmt: skip

    def make(self, data: Path) -> None:
        """An empty cluster is there, whose superuser is postgres."""
        self.run("initdb", data, "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--no-locale")

    def start(self, data: Path, settings: str = "", port: int = 5432) -> None:
        """Its server answers on a socket in the folder."""
        options = f"{_QUICK} -k {self.folder} -p {port} {settings}"
        log = str(data.with_name(f"{data.name}.log"))
        self.run("pg_ctl", data, "start", "-w", "-t", "300", "-l", log, "-o", options)

    def kill(self, data: Path) -> None:
        """Its host is gone, as far as a process can tell: all that it ran is killed at once.  It can be started again."""
        pid_file = data / "postmaster.pid"
        number, _, _, port, sockets, *_ = pid_file.read_text().splitlines()
        postmaster = int(number)
        os.kill(postmaster, signal.SIGSTOP)  # it starts nobody any longer
        pids = [*map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()), postmaster]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(_runs(pid) for pid in pids):
            time.sleep(0.01)
        # In a container nobody may bury the dead, and a server takes whoever has the id in these files for alive.
        for left in (pid_file, Path(sockets) / f".s.PGSQL.{port}.lock"):
            left.unlink()

    def stop(self, data: Path) -> None:
        """Its server does not run."""
        if (data / "postmaster.pid").exists():
            self.run("pg_ctl", data, "stop", "-m", "immediate", check=False)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Replicated:
    """A primary that answers a commit once its standby has it too."""

    def __init__(self, programs: Programs) -> None:
        """Both run, and the primary has an empty database `willis`."""
        self._programs = programs
        folder = programs.folder
        self.primary, self.standby = folder / "primary", folder / "standby"
        programs.make(self.primary)
        programs.start(self.primary, port=5432)
        self.run("CREATE DATABASE willis", 5432)
        programs.run("pg_basebackup", self.standby, "-h", str(folder), "-U", "postgres", "-R", "-c", "fast")
        programs.start(self.standby, port=5433)
        self.run("ALTER SYSTEM SET synchronous_standby_names = '*'", 5432)
        self.run("SELECT pg_reload_conf()", 5432)
        both = f"host={folder},{folder}&port=5432,5433"
        self.url = f"postgresql+psycopg://postgres@/willis?{both}&target_session_attrs=read-write"

    def run(self, statement: str, port: int) -> None:
        """It was executed there, outside any transaction."""
        address = {"host": str(self._programs.folder), "port": port, "user": "postgres", "dbname": "postgres"}
        with psycopg.connect(**address, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute(statement.encode())

    def cut_off(self) -> None:
        """The standby gets nothing any longer."""
        self.run("ALTER SYSTEM SET primary_conninfo = ''", 5433)
        self.run("SELECT pg_reload_conf()", 5433)

    def kill_primary(self) -> None:
        """Its host is gone."""
        self._programs.kill(self.primary)

    def promote(self) -> None:
        """The standby is the primary."""
        self._programs.run("pg_ctl", self.standby, "promote", "-w")


@contextmanager
def replicated() -> Iterator[Replicated]:
    """A pair that is gone afterwards."""
    programs = Programs()
    try:
        yield Replicated(programs)
    finally:
        for name in ("primary", "standby"):
            programs.stop(programs.folder / name)
        shutil.rmtree(programs.folder, ignore_errors=True)
