"""What every command of `willis` shares: the application, the console, the configuration, and errors in one line.

Exit status: 0 done; 1 something failed or was refused; 2 the command or the configuration cannot be used.
"""

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from node.errors import ConfigError, NodeError, safe_message
from storage.errors import DatabaseAway, StorageError
from storage.messages import of_database as database_message

if TYPE_CHECKING:
    from node.config.sections import Config

app = typer.Typer(
    name="willis",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # in "rich", [node] and every other section would be markup
    help="Finds intracranial aneurysms in head CT angiography and reports them to the PACS. For research; not a medical "
    "device.\n\nExit status: 0 done, 1 something failed or was refused, 2 the command or configuration cannot be used.",
)


class _Console(Console):
    """A console whose reader may leave: see `reader_may_leave`."""

    def on_broken_pipe(self) -> None:
        """It is an error as of any other output; rich would end the process with status 1."""
        self.quiet = True
        raise BrokenPipeError


console = _Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
"""Without markup: what is printed comes from configurations, peers and images, and `[peers.PACS]` is no colour."""
complaints = Console(stderr=True, markup=False, highlight=False)

DEFAULTS = (Path("config.toml"), Path("/etc/willis/config.toml"))
"""Where a configuration is looked for that nobody names."""
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="WILLIS_CONFIG",
        help="Configuration file; without it ./config.toml, else /etc/willis/config.toml.",
    ),
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """An error that an administrator can mend becomes one line and an exit status, not a traceback."""
    try:
        with reader_may_leave():
            yield
    except (NodeError, StorageError, OSError, UnicodeError) as error:
        complain(f"willis: {safe_message(error)}")
        is_unusable = isinstance(error, ConfigError | StorageError) and not isinstance(error, DatabaseAway)
        raise typer.Exit(2 if is_unusable else 1) from None
    except Exception as error:
        if database_message(error) is None:
            raise
        complain(f"willis: {safe_message(error)}")
        raise typer.Exit(1) from None


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may have enough of it, as `head` has: what follows goes nowhere, and that is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def trouble_noted(config: "Config", role: str) -> Iterator[None]:
    """Why a process of the node cannot run is in the database too, in the words of its log; `willis status` shows it."""
    try:
        yield
    except (NodeError, StorageError) as error:
        from node.runtime.heartbeat import note_trouble
        from storage.store import Store

        with suppress(Exception):  # what is wrong may be the database itself
            config.storage.directory.mkdir(0o700, parents=True, exist_ok=True)
            note_trouble(Store.open(config.storage.url).processes, role, config.storage.directory, str(error))
        raise


def complain(line: str, style: str = "red") -> None:
    """The line is on standard error, as it is."""
    complaints.print(line, style=style, soft_wrap=True)


def say(line: str) -> None:
    """The line is on standard output, as it is."""
    console.print(line, soft_wrap=True)


def one_of(**options: object) -> None:
    """At most one of the options is given.  Raises ConfigError, which names those that exclude each other."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other: give one of them")


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
    """The file that the option names, else the one in this folder, else the one of an installed node, else None."""
    return path or next((default for default in DEFAULTS if os.access(default, os.R_OK)), None)


def as_owner(config: "Config") -> "Config":
    """`config`, for a command that makes files in the storage folder.

    Raises ConfigError as root where the folder is another user's: the node, which runs as that user, could not use them.
    """
    if owner := not_root_s(config):
        raise ConfigError(
            f"[storage] directory = {str(config.storage.directory)!r} belongs to {owner}, who could not use what root makes "
            f"there: {as_user(owner)}"
        )
    return config


def as_user(owner: str) -> str:
    """What root types to run a command as that user; one that has no name is told by number, `#1000`."""
    if owner.startswith("#"):
        return f"`setpriv --reuid {owner[1:]} --clear-groups willis ...`"
    return f"`runuser -u {owner} -- willis ...`"


def not_root_s(config: "Config") -> str:
    """Whose the storage folder is, where we are root and it is not root's; else ""."""
    folder = config.storage.directory
    owner = folder.stat().st_uid if os.geteuid() == 0 and folder.exists() else 0
    try:
        return pwd.getpwuid(owner).pw_name if owner else ""
    except KeyError:
        return f"#{owner}"
