"""`willis migrate`: after an upgrade, before the node starts again."""

from typing import Annotated

import typer

from ai.wording import counted
from node.cli.app import ConfigOption, app, as_owner, one_line_errors, say, settings
from node.runtime.clock import utc_now


@app.command(epilog="Example: willis migrate --dry-run")
def migrate(
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Do not copy the database first.")] = False,
) -> None:
    """Bring the database to the tables of this version, after a copy of it.  The node must be stopped.

    Files are not touched.  An SQLite database is copied beside itself, a PostgreSQL database by pg_dump into [storage]
    directory.  Exit status 1 when a node runs, 2 when the database cannot be used, such as one of a later version.
    """
    from node.workflow import migration

    with one_line_errors():
        checked = settings(config) if dry_run else as_owner(settings(config))
        planned = migration.plan(checked, utc_now())
        if not planned.steps:
            say(f"the database has the tables of this version ({planned.found}): nothing to do")
            return
        copy = None if no_backup else planned.copy
        if dry_run:
            if copy:
                say(f"would copy the database to {copy}")
            for number, what in planned.steps.items():
                say(f"would make revision {number}: {what}")
            return
        migration.migrate(checked, planned, utc_now, with_copy=not no_backup)
        say(f"{counted(len(planned.steps), 'revision')} made; the tables are those of {max(planned.steps)}")
        if copy:
            say(f"as it was before: {copy}")
