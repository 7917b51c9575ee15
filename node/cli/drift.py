"""`willis drift`: whether scanners have changed, in words and as a picture."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from node.cli.app import ConfigOption, app, console, one_line_errors, say, settings
from node.errors import NodeError
from node.runtime.clock import utc_now


@app.command(epilog="Example: willis drift --plot drift.svg")
def drift(
    config: ConfigOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write an SVG of each scanner; with several, its number is added.")
    ] = None,
    accept: Annotated[
        int, typer.Option(min=0, help="What scanner of this number measures from now on is its baseline.")
    ] = 0,
) -> None:
    """Compare what each scanner's last cases measured with its baseline.  Exit status 1 when something has drifted.

    A scanner is a calling AE title with manufacturer, model and station.
    """
    from node.results.drift_picture import drift_picture
    from node.rules.drift import BLOCK, baseline_of, shifts
    from node.workflow.drift import by_scanner, in_words
    from storage.store import Store

    with one_line_errors():
        checked = settings(config)
        weeks = checked.drift.baseline_weeks or 4.0
        store = Store.open(checked.storage.url)
        scanners = sorted(by_scanner(store.drift.measured()).items())
        if accept:
            if accept > len(scanners):
                raise NodeError(f"--accept {accept}: there are {len(scanners)} scanners; `willis drift` numbers them")
            (site, scanner), _ = scanners[accept - 1]
            store.drift.accept(site, scanner, utc_now())
            say(f"{site}, {scanner}: its baseline begins now")
            return
        found = shifts(dict(scanners), weeks)
        table = Table("", "Site", "Scanner", "Cases", "Baseline", "Drifted")
        for number, (key, cases) in enumerate(scanners, 1):
            begun = baseline_of(cases, weeks)
            verdict = "\n".join(in_words(each) for each in found.get(key, []))
            if not verdict:
                verdict = "no" if begun and len(cases) - begun >= BLOCK else "not known yet"
            table.add_row(str(number), *key, str(len(cases)), str(begun or "not whole"), verdict)
            if plot is not None:
                path = plot if len(scanners) == 1 else plot.with_stem(f"{plot.stem}-{number}")
                path.write_text(drift_picture(", ".join(key), cases, weeks), "utf-8")
                say(f"{path}")
        console.print(table)
        raise typer.Exit(1 if found else 0)
