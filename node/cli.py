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

from node import log
from node.config import Config, load
from node.errors import ConfigError, NodeError
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
    config = load(_config_path(path))
    log.configure(config.log.format, config.log.level)
    return config


def _config_path(path: Path | None) -> Path | None:
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


@app.command(epilog="Example: willis serve --config /etc/willis/config.toml")
def serve(config: ConfigOption = None) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    from node.serve import serve as run

    with one_line_errors():
        path = _config_path(config)
        raise typer.Exit(run(configuration(path), ["--config", str(path)] if path else []))


@app.command(hidden=True)
def receive(config: ConfigOption = None) -> None:
    """Run the receiver alone, as `serve` does."""
    from node.processes import end_with_parent
    from node.receiver import receive as run

    with one_line_errors():
        end_with_parent()
        run(configuration(config))


@app.command(hidden=True)
def work(config: ConfigOption = None) -> None:
    """Run the analysis alone, as `serve` does."""
    from node.processes import end_with_parent
    from node.worker import Worker

    with one_line_errors():
        end_with_parent()
        Worker(configuration(config)).run()


@config_app.command("check", epilog="Example: willis config check --config config.toml")
def config_check(config: ConfigOption = None) -> None:
    """Check configuration, folder, database, certificates and model bundle; say what is wrong in one line."""
    with one_line_errors():
        checked = configuration(config)
        _check_parts(checked)
        console.print(
            f"{_config_path(config) or 'defaults'}: good; {checked.node.ae_title} on "
            f"{checked.node.host}:{checked.node.port}, peers: {', '.join(checked.peers) or 'none'}",
            highlight=False,
        )


def _check_parts(config: Config) -> None:
    from ai.bundle import DEFAULT_BUNDLE, load_bundle
    from ai.errors import BundleError
    from node.dicomweb import credentials
    from node.tls import server_context
    from storage.files import Files
    from storage.store import Store

    Files(config.storage.directory)
    Store.open(config.storage.url).close()
    if config.node.tls:
        server_context(config.node.tls)
    for peer in config.peers.values():
        credentials(peer)
    try:
        load_bundle(config.ai.bundle or DEFAULT_BUNDLE)
    except BundleError as error:
        raise ConfigError(f"[ai] bundle: {error}") from None


from node.commands import (  # noqa: E402  each adds its commands to `app`
    demo,  # noqa: F401
    explain,  # noqa: F401
    fetch,  # noqa: F401
    fsck,  # noqa: F401
    network,  # noqa: F401
    people,  # noqa: F401
    phantoms,  # noqa: F401
    training,  # noqa: F401
)
