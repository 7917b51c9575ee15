"""What every command of `willis` shares: the application, the console, the configuration, and errors in one line.

Exit status: 0 done; 1 something failed or was refused; 2 the command or the configuration cannot be used.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from node.errors import ConfigError, NodeError
from storage.errors import StorageError

if TYPE_CHECKING:
    from node.config.sections import Config

app = typer.Typer(
    name="willis",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Finds intracranial aneurysms in head CT angiography and reports them to the PACS. For research; not a medical "
    "device.\n\nExit status: 0 done, 1 something failed or was refused, 2 the command or configuration cannot be used.",
)

console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
complaints = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="WILLIS_CONFIG", help="Configuration file; without it ./config.toml, if there."
    ),
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """An error that an administrator can mend becomes one line and an exit status, not a traceback."""
    try:
        yield
    except (NodeError, StorageError) as error:
        complain(f"willis: {error}")
        raise typer.Exit(2 if isinstance(error, ConfigError | StorageError) else 1) from None


def complain(line: str) -> None:
    """The line is on standard error, as it is."""
    complaints.print(line, style="red", markup=False, soft_wrap=True)


def say(line: str) -> None:
    """The line is on standard output, as it is."""
    console.print(line, markup=False, soft_wrap=True)


def configuration(path: Path | None) -> "Config":
    """The configuration that the options and the environment name; logging follows it.  Raises ConfigError."""
    from node.runtime import log

    config = settings(path)
    log.configure(config.log.format, config.log.level)
    return config


def settings(path: Path | None) -> "Config":
    """The configuration alone, for what only reads and never logs.  Raises ConfigError."""
    from node.config.loading import load

    return load(config_path(path))


def config_path(path: Path | None) -> Path | None:
    """The file that the option names, else the one in this folder, else None."""
    default = Path("config.toml")
    return path or (default if default.exists() else None)
