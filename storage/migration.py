"""An older database gets the tables of this version, once it has been copied; nothing happens to a newer one."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import URL, make_url

from storage.backup import NoBackup, copy_sqlite
from storage.database import revision
from storage.database.engine import engine_of, make_safe, named, open_database
from storage.database.inspection import inspect_database
from storage.database.transactions import Transactions
from storage.errors import DatabaseUnusable
from storage.files.folder_flushes import flush_folder
from storage.queries import health
from storage.running import Process


@dataclass(frozen=True)
class Plan:
    """What `migrate` would do.  `steps`: what each revision is for; none where the tables are those of this version.

    `copy`: where the database is copied to before; None where there is none yet.
    """

    found: str | None
    steps: Mapping[str, str]
    copy: Path | None


def plan(url: str, folder: Path, now: datetime | None) -> Plan:
    """What there is to do; changes nothing.  A copy of PostgreSQL goes into `folder`.  Raises DatabaseUnusable.

    `now` is in the name of the copy; None: its name is always the same, so that who tries again and again fills no disk.
    """
    found = inspect_database(url).revision
    if found is None:
        if (path := _sqlite_path(url)) and not path.exists():
            raise DatabaseUnusable(
                f"there is no database {path}: name the node's configuration with --config; `willis serve` makes a new one"
            )
        return Plan(None, revision.what_comes_after(None), None)
    if found != revision.newest() and (wrong := revision.why_not(found, may_migrate=True)):
        raise DatabaseUnusable(f"the database {make_safe(url)} {wrong}")
    database = _sqlite_path(url) or folder / "postgresql.dump"
    copy = database.with_name(f"{database.name}.{found}-{f'{now:%Y%m%dT%H%M%S}' if now else 'by-itself'}")
    return Plan(found, revision.what_comes_after(found), copy)


def migrate(url: str, planned: Plan, with_copy: bool = True) -> None:
    """The database has the tables of this version, and before that was copied, or nothing is changed.

    Raises NoBackup, DatabaseUnusable, OSError, and what SQLite raises.
    """
    if planned.steps and planned.copy and with_copy and not _is_of_now(planned.copy, url):
        _copy(url, planned.copy)
    open_database(url, may_migrate=True).dispose()


def processes_of(url: str) -> list[Process]:
    """The processes that said of themselves that they use the database, whatever version made it."""
    engine = engine_of(url)
    try:
        with named(url):
            with engine.connect() as connection:
                is_known = engine.dialect.has_table(connection, "process")
            return health.processes(Transactions(engine).reading_plainly) if is_known else []
    finally:
        engine.dispose()


def _copy(url: str, to: Path) -> None:
    if path := _sqlite_path(url):
        copy_sqlite(path, to)
        return
    program = shutil.which("pg_dump")
    if program is None:
        raise NoBackup(
            "there is no pg_dump here to copy the database with: install PostgreSQL's client programs, or make a backup by "
            "other means and run `willis migrate --no-backup`"
        )
    address = make_url(url)
    if "sslpassword" in address.query:
        raise NoBackup(
            "pg_dump can be told sslpassword only where everybody on this machine sees it: make a backup by other means and run "
            "`willis migrate --no-backup`"
        )
    password = address.password or address.query.get("password")
    query = address.difference_update_query(["password"]).query
    name = URL.create("postgresql", address.username, None, address.host, address.port, address.database, query)
    environment = os.environ | ({"PGPASSWORD": str(password)} if password else {})
    to.parent.mkdir(0o700, parents=True, exist_ok=True)
    new = to.with_name(f"{to.name}.new")
    command = [program, "--format=custom", f"--file={new}", f"--dbname={name.render_as_string()}"]
    ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    if ended.returncode:
        new.unlink(missing_ok=True)
        raise NoBackup(
            f"pg_dump ended with status {ended.returncode}, and nothing was changed: make a backup by other means and run "
            "`willis migrate --no-backup`"
        )
    flush_folder(new)
    new.replace(to)
    flush_folder(to.parent)


def _is_of_now(copy: Path, url: str) -> bool:
    """Whether an attempt before has made the copy, and nothing was written to the database since."""
    database = _sqlite_path(url)
    if database is None or not copy.exists():
        return False
    written = (database, database.with_name(f"{database.name}-wal"))
    return all(path.stat().st_mtime_ns < copy.stat().st_mtime_ns for path in written if path.exists())


def _sqlite_path(url: str) -> Path | None:
    address = make_url(url)
    return Path(address.database) if address.get_backend_name() == "sqlite" and address.database else None
