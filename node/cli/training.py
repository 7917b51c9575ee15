"""Training, evaluating and applying a model from the command line."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ai.wording import counted
from node.cli.app import app, complaints, console, one_line_errors, say
from node.errors import ConfigError, NodeError

MORE_TO_DO = 3
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_SEEDS = re.compile(r"(\d+):([1-9]\d*)\Z")

_BUNDLE = "Folder of a model bundle; without it, the shipped one."
Bundle = Annotated[Path | None, typer.Option("--bundle", help=_BUNDLE)]


def _checked_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is none of auto, cpu, cuda, cuda:N")
    return name


Device = Annotated[
    str, typer.Option(help="auto (a GPU when there is one), cpu, cuda or cuda:N.", callback=_checked_device)
]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """As in `node.cli.app`, with the errors of training and prediction too."""
    with one_line_errors():
        try:
            from ai.errors import BundleError, DeviceError
            from training.config import ConfigError as TrainingConfigError

            try:
                yield
            except (BundleError, DeviceError, TrainingConfigError) as error:
                raise ConfigError(str(error)) from None
        except ModuleNotFoundError as error:
            raise ConfigError(f"{error.name} is not installed: pip install 'willis[training]'") from None
        except (FloatingPointError, OSError) as error:
            raise NodeError(str(error)) from None


@app.command(
    epilog="Example: willis train training/configs/willis.toml --seconds 600\n\n"
    "Exit status: 0 trained to the last step, 1 failed, 2 the configuration cannot be used, 3 more to do: run it again."
)
def train(
    config: Annotated[Path, typer.Argument(help="The run, as TOML; see training/configs.")],
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after so long; the next call goes on from there.")
    ] = None,
) -> None:
    """Train a model; a run that was stopped continues from its checkpoint."""
    with _one_line_errors():
        from training.config import read_config
        from training.train import train as run

        done = run(read_config(config), float("inf") if seconds is None else seconds, say)
    if not done:
        say(f"more to do: run `willis train {config}` again")
        raise typer.Exit(MORE_TO_DO)


@app.command(
    epilog="Example: willis evaluate runs/bundle --held-out --out runs/report\n\n"
    "Exit status: 0 the report is written, 1 failed, 2 an option or the bundle cannot be used.  When killed, the same "
    "command goes on with the scans that are left."
)
def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and every scan's answer.")],
    bundle: Annotated[Path | None, typer.Argument(help=_BUNDLE)] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="On the fixed test set; this is the default.")] = False,
    seeds: Annotated[str, typer.Option(help="On other phantoms instead: FIRST:COUNT.")] = "",
    real_tree: Annotated[
        Path | None, typer.Option(help="On phantoms of a real head's arteries instead; the folder that holds those.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Only so many scans of the set.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where prepared regions are kept, or made when missing.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="From whole series, the head and its circle found first.")
    ] = False,
    matrix: Annotated[int, typer.Option(min=128, max=1024, help="Pixels on a side, with --full.")] = 512,
    baseline: Annotated[Path | None, typer.Option(help="The report.json of another method to compare with.")] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that paint phantoms.")] = 1,
) -> None:
    """Measure a bundle on phantoms and write a report.  All figures are phantom figures."""
    with _one_line_errors():
        from ai.bundle import load_bundle
        from ai.manifest import DEFAULT_BUNDLE
        from training import evaluate as scoring
        from training.paint import REGIONS
        from training.report import Subject, write_report

        if matrix != 512 and not full:
            raise ConfigError(f"--matrix {matrix} needs --full: prepared regions have no matrix")
        if full and cache is not None:
            raise ConfigError("--cache and --full exclude each other: whole series are not kept")
        scans = _scan_set(seeds, count, held_out, real_tree)
        if seeds and cache is None and not full:
            raise ConfigError("--seeds needs --cache, the folder where the prepared regions are, or --full")
        loaded = load_bundle(bundle or DEFAULT_BUNDLE)
        manifest = loaded.manifest
        mode = f"whole series of {matrix}² pixels" if full else "prepared regions"
        own = "real-tree" if real_tree else f"held-out-{manifest.preprocessing.spacing_mm:g}mm"
        folder = cache or Path("runs") / own
        if full:
            score = scoring.series_scorer(loaded, scans, device, matrix)
        elif real_tree is not None:
            score = scoring.box_scorer(loaded, scans, folder, device, workers)
            folder /= REGIONS
        else:
            score = scoring.region_scorer(loaded, scans, folder, device, workers)
        with _counted(f"evaluating on {mode}", len(scans.seeds)) as each:
            identity = scoring.identity_of(loaded, scans, mode)
            scored = scoring.score_all(out / scoring.SCORES, identity, scans.seeds, score, each)
        named = (f"{manifest.name} {manifest.version}", f"{scans.description}, {mode}")
        subject = Subject(*named, manifest.calibration, manifest.threshold)
        view = scoring.series_view(loaded, scans, matrix) if full else scoring.region_view(folder)
        with console.status("drawing the report"):
            found = write_report(out, subject, scored, view, baseline)
        _show(found, out)


@app.command(
    epilog="Example: willis submit series/ --out submission.csv\n\n"
    "Exit status: 0 a row for every series is written, 1 no series could be analysed, 2 an option or the bundle cannot "
    "be used."
)
def submit(
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM series, for example the challenge's series/.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("submission.csv"),
    bundle: Bundle = None,
    device: Device = "auto",
) -> None:
    """Write the 14 probabilities of every series in a folder, one row each, with the challenge's column titles.

    A series that cannot be analysed is named with its reason and gets how often each column is positive in the challenge's
    training data, because nothing better is known of it.
    """
    with _one_line_errors():
        from ai.bundle import load_bundle
        from ai.manifest import DEFAULT_BUNDLE
        from training.submit import FREQUENCIES, rows, series_in, write_submission

        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: name one that holds DICOM series")
        loaded = load_bundle(bundle or DEFAULT_BUNDLE)
        with console.status("reading headers"):
            series = series_in(folder)
        if not series:
            raise ConfigError(f"{folder} holds no DICOM files")
        with _counted("analysing", len(series)) as each:
            written = write_submission(out, rows(series, loaded, device, each))
        failed = [row for row in written if row.problem]
        for row in failed:
            instead = f"gets the training frequencies (present {FREQUENCIES[-1]:.3f})"
            say(f"{row.series_instance_uid}: not analysed, {instead}: {row.problem}")
        say(f"{counted(len(written), 'row')} in {out}, {len(failed)} of them not analysed")
        if len(failed) == len(written):
            raise NodeError("no series could be analysed; the lines above say why")


def _scan_set(seeds: str, count: int | None, held_out: bool, real_tree: Path | None = None) -> Any:
    """The scans that the options ask for.  Raises ConfigError."""
    from training.evaluate import ScanSet, held_out_set, real_tree_set

    if real_tree is not None:
        if held_out or seeds:
            raise ConfigError("--real-tree names other scans than --held-out and --seeds: give one of the three")
        return real_tree_set(str(real_tree), count)
    if not seeds:
        return held_out_set(count)
    if held_out or count is not None:
        raise ConfigError("--seeds names other scans than the held-out ones: leave out --held-out and --count")
    match = _SEEDS.match(seeds)
    if match is None:
        raise ConfigError(f"--seeds {seeds!r}: write FIRST:COUNT, for example 900000:80")
    first, many = int(match[1]), int(match[2])
    description = f"{many} phantoms like those of training, seeds {first} to {first + many - 1}"
    return ScanSet(description, tuple(range(first, first + many)))


@contextmanager
def _counted(description: str, total: int) -> Iterator[Any]:
    """A progress bar; yields what is called after each, and says at the end how many a minute there were."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began, done = time.monotonic(), 0
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=complaints) as progress:
        task = progress.add_task(description, total=total, rate="")

        def each(_: Any) -> None:
            nonlocal done
            done += 1
            progress.update(task, advance=1, rate=f"{_per_minute(done, began):.1f} a minute")

        yield each
        progress.update(task, completed=total)
    if done:
        say(f"{done} of {total} were computed now, {_per_minute(done, began):.1f} a minute")
    else:
        say(f"all {total} had been computed before")


def _per_minute(done: int, began: float) -> float:
    return 60.0 * done / max(time.monotonic() - began, 1e-6)


def _show(found: dict[str, Any], out: Path) -> None:
    """The goals and where the report is."""
    say(found["notice"])
    for goal in found["goals"]:
        wanted = f">= {goal['least']:g}" if goal["least"] is not None else f"<= {goal['most']:g}"
        say(f"{goal['goal']:52s} {goal['measured']:6.3f}  goal {wanted}, {goal['verdict']}")
    say(f"competition score {found['competition_score']:.3f}; the report is {out / 'report.html'}")
