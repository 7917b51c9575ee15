"""The node itself and the check of its configuration: serve, config check; receive and work as `serve` starts them."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from ai.wording import counted
from node.cli.app import (
    ConfigOption,
    app,
    as_owner,
    complain,
    config_path,
    configuration,
    one_line_errors,
    say,
    settings,
    trouble_noted,
)
from node.errors import ConfigError
from node.runtime.memory import end_soon, keep_few_heaps

if TYPE_CHECKING:
    from node.config.sections import Config

config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")
app.add_typer(config_app, name="config")


@app.command(epilog="Example: willis serve --config /etc/willis/config.toml")
def serve(config: ConfigOption = None) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    keep_few_heaps()
    with one_line_errors():
        path = config_path(config)
        arguments = ["--config", str(path)] if path else []
        checked = as_owner(configuration(path))
        with trouble_noted(checked, "serve"):
            _require_what_is_soon_known(checked)
            from node.workflow.supervisor import serve as run

            status = run(checked, arguments, lambda: settings(path))
            end_soon()
        raise typer.Exit(status)


def _require_what_is_soon_known(config: "Config") -> None:
    """Ports, certificates, bundle and driver are there: its processes would find out after the seconds that their imports take.

    Raises ConfigError.
    """
    from ai.driver import require_driver
    from ai.errors import BundleError, DeviceError
    from ai.manifest import DEFAULT_BUNDLE, read_document
    from node.net.ports import require_ports
    from node.net.tls import server_context

    require_ports(config.node)
    if config.node.tls is not None:
        server_context(config.node.tls)
    try:
        read_document(config.ai.bundle or DEFAULT_BUNDLE)
    except BundleError as error:
        raise ConfigError(f"[ai] bundle: {error}") from None
    try:
        require_driver(config.ai.device)
    except DeviceError as error:
        raise ConfigError(f"[ai] {error}") from None


@app.command(hidden=True)
def receive(config: ConfigOption = None) -> None:
    """Run the receiver alone, as `serve` does."""
    from node.config.reloading import Reloading
    from node.runtime.processes import end_with_parent
    from node.scp.receiver import receive as run

    with one_line_errors():
        asked = threading.Event()
        end_with_parent(asked.set)
        checked = configuration(config)
        with trouble_noted(checked, "receive"):
            run(checked, Reloading(asked, lambda: settings(config)))
            end_soon()


@app.command(hidden=True)
def work(config: ConfigOption = None) -> None:
    """Run the analysis alone, as `serve` does."""
    from node.config.reloading import Reloading
    from node.runtime.processes import end_with_parent

    with one_line_errors():
        asked = threading.Event()
        end_with_parent(asked.set)
        checked = configuration(config)
        with trouble_noted(checked, "work"):
            from node.analysis.device import configured_device

            configured_device(checked)  # before the seconds that the rest takes to be imported
            from node.analysis.worker import Worker

            Worker(checked, reloading=Reloading(asked, lambda: settings(config))).run()
            end_soon()


@config_app.command("check", epilog="Example: willis config check --config config.toml --peers")
def config_check(
    config: ConfigOption = None,
    peers: Annotated[bool, typer.Option("--peers", help="Ask each peer, and who signs people in, too.")] = False,
) -> None:
    """Check the configuration and all that it names: folder, disk, database, ports, hosts, certificates, model, device.

    Changes nothing on disk or in the database.  Each problem is one line; exit status 2 when one keeps the node from
    working, else 0.
    """
    from node.cli.checks import problems

    with one_line_errors():
        checked = configuration(config)
        counts = {True: 0, False: 0}
        for problem in problems(checked, ask_peers=peers):
            counts[problem.is_fatal] += 1
            word, style = ("willis", "red") if problem.is_fatal else ("warning", "yellow")
            complain(f"{word}: {problem.message}", style)
        if counts[True]:
            raise typer.Exit(2)
        warned = f", {counted(counts[False], 'warning')}" if counts[False] else ""
        say(
            f"{config_path(config) or 'defaults'}: good{warned}; {checked.node.ae_title} on "
            f"{checked.node.host}:{checked.node.port}, peers: {', '.join(checked.peers) or 'none'}",
        )
