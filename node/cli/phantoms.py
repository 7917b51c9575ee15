"""Synthetic CTA series from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from ai.locations import Location
from ai.wording import counted
from node.cli.app import app, console, one_line_errors
from node.errors import ConfigError
from node.runtime import log

NAMES = {location.name.lower().replace("_", "-"): location for location in Location}


@app.command(
    epilog="Example: willis phantom out/ --aneurysm left-mca --diameter-mm 7 --seed 3\n\n"
    f"The locations are {', '.join(NAMES)}."
)
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the DICOM series; made when it is not there.")],
    aneurysm: Annotated[str, typer.Option(help="Paint one at this location; without it, none.")] = "",
    diameter_mm: Annotated[float | None, typer.Option(min=1, max=30, help="Its diameter; without it, drawn.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scan.")] = 0,
    matrix: Annotated[int, typer.Option(min=128, max=1024, help="Pixels on a side.")] = 512,
    spacing_mm: Annotated[float | None, typer.Option(min=0.3, max=5, help="Between slices; without it, drawn.")] = None,
    contrast: Annotated[bool, typer.Option("--contrast/--no-contrast", help="With contrast-filled arteries.")] = True,
    cropped: Annotated[bool, typer.Option("--cropped", help="Miss a part of the circle of Willis.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG of projections and slices here too.")] = None,
) -> None:
    """Write a synthetic head CTA as a DICOM series, without a patient and for tests only."""
    from training import phantom as phantoms

    log.configure()
    with one_line_errors():
        where = _location(aneurysm)
        if diameter_mm is not None and where is None:
            raise ConfigError("--diameter-mm needs --aneurysm")
        if where is not None and not contrast:
            raise ConfigError("--no-contrast shows no artery, and so no --aneurysm: leave out one of the two")
        with console.status("painting the head"):
            scan = phantoms.make_scan(
                seed,
                location=where,
                diameter_mm=diameter_mm,
                positive=where is not None,
                matrix=matrix,
                spacing_mm=spacing_mm,
                contrast=contrast,
                cropped=cropped,
            )
            paths = phantoms.write_series(scan, out)
            if picture is not None:
                phantoms.picture(scan, picture)
        console.print(f"{counted(len(paths), 'slice')} in {out}")
        for lesion in scan.lesions:
            centre = ", ".join(f"{value:.1f}" for value in lesion.centre_lps_mm)
            console.print(f"{lesion.location}: {lesion.diameter_mm:.1f} mm at LPS ({centre}) mm")


def _location(name: str) -> Location | None:
    if name and name not in NAMES:
        raise ConfigError(f"--aneurysm {name!r} is no location; the locations are {', '.join(NAMES)}")
    return NAMES.get(name)
