"""`willis explain`: why the network marked what it marked, as a picture."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai.errors import NotAnalysable
from ai.volume import volume_from_files
from ai.wording import counted
from node.cli.app import ConfigOption, app, configuration, console, one_line_errors
from node.cli.worklist import CaseArgument, case_called
from node.config.files import files_of
from node.config.sections import Config
from node.errors import ConfigError, NodeError
from node.results.explanation_picture import picture
from storage.errors import Damaged
from storage.files.instances import Files
from storage.records import StoredFile
from storage.store import Store

if TYPE_CHECKING:
    from ai.bundle import Manifest
    from ai.explain import Explanation


@app.command(epilog="Example: willis explain 7 --out case-7.png")
def explain(
    case: CaseArgument,
    out: Annotated[Path | None, typer.Option(help="The picture; without it, case-N.png in this folder.")] = None,
    config: ConfigOption = None,
) -> None:
    """Analyse a case's images again and draw, for each finding, what the network saw in it.  Changes nothing."""
    with one_line_errors():
        checked = configuration(config)
        store = Store.open(checked.storage.url)
        row = case_called(store.worklist, case)
        number = row["case_id"]
        path = out or Path(f"case-{number}.png")
        if path.suffix.lower() != ".png" or not path.parent.is_dir():
            raise ConfigError(f"--out {path} must be a .png file in a folder that exists")
        with console.status(f"analysing case {number} again"):
            images = _images(store, files_of(checked), number)
            explanation, manifest, sha256 = _explained(checked, number, images)
        if not explanation.shown:
            raise NodeError(f"case {number}: there is not even a weak candidate to explain")
        model = store.models.name_of(manifest.version, sha256)
        heading = f"Case {number}   {manifest.name} {model}   {_count(explanation)}"
        picture(explanation, heading).save(path)
        console.print(f"case {number}: {_count(explanation)}, {path}", soft_wrap=True)
        if row["model"] not in ("", None, model):
            console.print(f"reported by model {row['model']}, explained by {model}")


def _images(store: Store, files: Files, case: int) -> list[Path]:
    """The files of the case's instances.  Raises NodeError when there are none or some are gone."""
    instances = [file for _, file in store.settling.instances(case)]
    with suppress(Damaged):  # counted below
        files.bring(instances)
    paths = [path for file in instances if (path := _path(files, file)) is not None]
    missing = len(instances) - len(paths)
    if missing or not paths:
        raise NodeError(
            f"case {case} lacks {missing} of its {counted(len(instances), 'image file')} in the storage folder; send the series again"
        )
    return paths


def _path(files: Files, file: StoredFile) -> Path | None:
    try:
        path = files.here(file)
    except Damaged:
        return None
    return path if path.exists() else None


def _explained(config: Config, case: int, paths: list[Path]) -> tuple["Explanation", "Manifest", str]:
    """What the configured model sees in these files, what it says of itself, and its bundle's digest.  Raises ConfigError and NodeError."""
    from ai.explain import explain as explained_by_ai
    from node.analysis.bundle import configured_bundle
    from node.analysis.device import configured_device

    bundle = configured_bundle(config)
    configured_device(config)
    try:
        explanation = explained_by_ai(
            volume_from_files(paths), bundle, config.ai.device, require_contrast=config.eligibility.require_contrast
        )
    except NotAnalysable as error:
        detail = f" ({error.detail})" if error.detail else ""
        raise NodeError(f"case {case} cannot be analysed: {error.reason.explained}{detail}") from None
    return explanation, bundle.manifest, bundle.sha256


def _count(explanation: "Explanation") -> str:
    found = len(explanation.findings.lesions)
    return counted(found, "finding") if found else "no finding; the best candidate below the threshold"
