"""`willis backup` and `willis restore`: what would be lost with the disk."""

from pathlib import Path
from typing import Annotated

import typer

from ai.wording import counted
from node.cli.app import ConfigOption, app, as_owner, console, one_line_errors, say, settings
from node.config.files import files_of
from node.runtime.clock import utc_now
from storage.backup import KEPT_DAYS, back_up
from storage.backup import restore as put_back


@app.command(epilog="Example: willis backup /mnt/backup/willis")
def backup(
    to: Annotated[Path, typer.Argument(help="A folder on another disk; what it has already is not copied again.")],
    config: ConfigOption = None,
) -> None:
    """Copy database and files beside a working node, so that they belong together.  Exit status 1 when a file is missing."""
    with one_line_errors():
        checked = settings(config)
        storage = checked.storage
        if storage.objects or (to.exists() and to.stat().st_uid):  # what is fetched lies in the storage folder
            as_owner(checked)
        find = files_of(checked).here if storage.objects else None
        done = back_up(storage.url, storage.directory, to, utc_now(), find)
        removed = f", {done.removed_meanwhile} removed by retention meanwhile" if done.removed_meanwhile else ""
        console.print(
            f"{counted(done.files, 'file')} and the database in {to}, {done.copied} new{removed}", soft_wrap=True
        )
        if done.removed:
            say(f"{counted(done.removed, 'file')} removed that no case has had for {KEPT_DAYS} days")
        if to.stat().st_dev == storage.directory.stat().st_dev:
            say(f"warning: {to} is on the disk of [storage] directory: whatever takes the one takes the other")
        for path in done.missing:
            say(f"missing: {path}; `willis fsck` says more")
        raise typer.Exit(1 if done.missing else 0)


@app.command(epilog="Example: willis restore /mnt/backup/willis")
def restore(
    backup: Annotated[Path, typer.Argument(help="A folder that `willis backup` made.")], config: ConfigOption = None
) -> None:
    """Put a backup back into a folder without a database; every file is compared with its SHA-256."""
    with one_line_errors():
        storage = as_owner(settings(config)).storage
        files = put_back(backup, storage.url, storage.directory)
        console.print(f"{counted(files, 'file')} and the database in {storage.directory}", soft_wrap=True)
