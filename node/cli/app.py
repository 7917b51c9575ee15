"""The command line, `willis`: the composition root.

Exit status: 0 done; 1 something failed or was refused; 2 the command or the configuration cannot be used.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node.config.loading import load
from node.config.sections import Config
from node.errors import ConfigError, NodeError
from node.runtime import log
from storage.errors import StorageError

app = typer.Typer(
    name="willis",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Finds intracranial aneurysms in head CT angiography and reports them to the PACS. For research; not a medical "
    "device.\n\nExit status: 0 done, 1 something failed or was refused, 2 the command or configuration cannot be used.",
)
config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")
app.add_typer(config_app, name="config")

console = Console(width=None if sys.stdout.isatty() else 160)
complaints = Console(stderr=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="WILLIS_CONFIG", help="Configuration file; without it ./config.toml, if there."
    ),
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """An error that a person can mend becomes one line and an exit status, not a traceback."""
    try:
        yield
    except (ConfigError, StorageError) as error:
        complaints.print(f"willis: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except NodeError as error:
        complaints.print(f"willis: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def configuration(path: Path | None) -> Config:
    """The configuration that the options and the environment name; logging follows it.  Raises ConfigError."""
    config = load(config_path(path))
    log.configure(config.log.format, config.log.level)
    return config


def config_path(path: Path | None) -> Path | None:
    here = Path("config.toml")
    return path or (here if here.exists() else None)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"willis {version('willis')}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Finds intracranial aneurysms in head CT angiography and reports them to the PACS."""
