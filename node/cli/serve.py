"""The node itself and the check of its configuration: serve, config check; receive and work as `serve` starts them."""

import typer

from node.cli.app import ConfigOption, app, config_path, configuration, console, one_line_errors
from node.config.sections import Config

config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")
app.add_typer(config_app, name="config")


@app.command(epilog="Example: willis serve --config /etc/willis/config.toml")
def serve(config: ConfigOption = None) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    from node.workflow.supervisor import serve as run

    with one_line_errors():
        path = config_path(config)
        raise typer.Exit(run(configuration(path), ["--config", str(path)] if path else []))


@app.command(hidden=True)
def receive(config: ConfigOption = None) -> None:
    """Run the receiver alone, as `serve` does."""
    from node.runtime.processes import end_with_parent
    from node.scp.receiver import receive as run

    with one_line_errors():
        end_with_parent()
        run(configuration(config))


@app.command(hidden=True)
def work(config: ConfigOption = None) -> None:
    """Run the analysis alone, as `serve` does."""
    from node.analysis.worker import Worker
    from node.runtime.processes import end_with_parent

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
            f"{config_path(config) or 'defaults'}: good; {checked.node.ae_title} on "
            f"{checked.node.host}:{checked.node.port}, peers: {', '.join(checked.peers) or 'none'}",
        )


def _check_parts(config: Config) -> None:
    from node.analysis.bundle import configured_bundle
    from node.net.tls import server_context
    from node.scu.dicomweb import credentials
    from storage.files.instances import Files
    from storage.store import Store

    Files(config.storage.directory)
    Store.open(config.storage.url).close()
    if config.node.tls:
        server_context(config.node.tls)
    for peer in config.peers.values():
        credentials(peer)
    configured_bundle(config)
