"""`willis fsck`: are files and database as they should be?"""

import json
import sys
from collections import Counter
from typing import Annotated

import typer

from ai.wording import counted
from node.cli.app import ConfigOption, app, as_owner, configuration, console, one_line_errors, say
from node.config.files import files_of
from storage.fsck import Checked, Difference, Kind, check
from storage.store import Store

_REMEDIES = {
    Kind.MISSING: "the file is not there; send the instance again",
    Kind.NOT_STORED: "the object store has it not as it was uploaded; --repair uploads it again where it lies here",
    Kind.DAMAGED: "the file is not what was written; send the instance again",
    Kind.STRAY: "no case has this file; --repair moves it to strays",
    Kind.COUNT: "the case counts wrongly; --repair counts again",
    Kind.HALF_WRITTEN: "left by a receiver that died; its next start removes it",
}


@app.command(epilog="Example: willis fsck --repair")
def fsck(
    config: ConfigOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended: count again, move stray files to strays.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Compare files, database and sha256; report each difference.  Never deletes; may run beside a working node.

    Exit status 1 when a difference remains.
    """
    with one_line_errors():
        checked, found = configuration(config), Counter[str]()
        checked = as_owner(checked) if repair else checked
        files = files_of(checked)
        store = Store.open(checked.storage.url, files.folder)
        for result in check(store, files, repair):
            if isinstance(result, Difference):
                found["mended" if result.mended else "remaining"] += 1
            _print(result, as_json)
        if not as_json:
            remaining = counted(found["remaining"], "difference remains", "differences remain")
            console.print(f"{remaining}, {found['mended']} mended")
        raise typer.Exit(1 if found["remaining"] else 0)


def _print(result: Difference | Checked, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({name: value for name, value in vars(result).items() if value is not None}) + "\n")
    elif isinstance(result, Checked):
        console.print(f"{result.series} series and {counted(result.files, 'file')} compared")
    else:
        case = "" if result.case is None else f"case {result.case} "
        remedy = "mended" if result.mended else _REMEDIES[result.kind]
        say(f"{result.kind}: {case}{result.path} ({remedy})")
