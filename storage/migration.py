"""An older database gets the tables of this version, once it has been copied; nothing happens to a newer one."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import DatabaseError

from storage.backup import NoBackup, copy_sqlite
from storage.database import revision
from storage.database.engine import engine_of, make_safe, open_database, unusable
from storage.database.inspection import inspect_database
from storage.database.transactions import Transactions
from storage.errors import DatabaseUnusable
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


def plan(url: str, folder: Path, now: datetime) -> Plan:
    """What there is to do; changes nothing.  A copy of PostgreSQL goes into `folder`.  Raises DatabaseUnusable."""
    found = inspect_database(url).revision
    if found is None:
        return Plan(None, revision.what_comes_after(None), None)
    if found != revision.newest() and (wrong := revision.why_not(found, may_migrate=True)):
        raise DatabaseUnusable(f"the database {make_safe(url)} {wrong}")
    database = _sqlite_path(url) or folder / "postgresql.dump"
    copy = database.with_name(f"{database.name}.{found}-{now:%Y%m%dT%H%M%S}")
    return Plan(found, revision.what_comes_after(found), copy)


def migrate(url: str, planned: Plan, with_copy: bool = True) -> None:
    """The database has the tables of this version, and before that was copied, or nothing is changed.

    Raises NoBackup, DatabaseUnusable, OSError, and what SQLite raises.
    """
    if planned.steps and planned.copy and with_copy:
        _copy(url, planned.copy)
    open_database(url, may_migrate=True).dispose()


def processes_of(url: str) -> list[Process]:
    """The processes that said of themselves that they use the database, whatever version made it."""
    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            is_known = engine.dialect.has_table(connection, "process")
        return health.processes(Transactions(engine).reading_plainly) if is_known else []
    except DatabaseError as error:
        raise unusable(error, url) from None
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
    name = address.set(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(address.password)} if address.password else {})
    to.parent.mkdir(parents=True, exist_ok=True)
    command = [program, "--format=custom", f"--file={to}", f"--dbname={name}"]
    ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    if ended.returncode:
        to.unlink(missing_ok=True)
        raise NoBackup(
            f"pg_dump ended with status {ended.returncode}, and nothing was changed: make a backup by other means and run "
            "`willis migrate --no-backup`"
        )


def _sqlite_path(url: str) -> Path | None:
    address = make_url(url)
    return Path(address.database) if address.get_backend_name() == "sqlite" and address.database else None
