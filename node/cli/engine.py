"""The distributed engine, where one is wanted: worker, scheduler."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from node.cli.app import ConfigOption, app, config_path, one_line_errors
from node.config.loading import load
from node.config.sections import Config
from node.config.sign_in import is_loopback
from node.errors import ConfigError, safe_message
from node.net.ports import bound
from node.runtime import log
from node.runtime.processes import CONFIG_ERROR, NO_SPINNING, Child, asked_to_stop, end_with_parent

EngineOption = Annotated[
    str | None,
    typer.Option("--engine", help="The scheduler's address, tls://HOST:PORT, in place of [ai] engine_address."),
]
STOP_SECONDS = 5.0
"""A worker may take so long to leave the engine."""


@app.command(epilog="Example: willis worker --engine tls://10.1.2.3:8786 --host 10.1.2.4 --port 8787")
def worker(
    engine: EngineOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on: the scheduler connects to it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 0,
    config: ConfigOption = None,
    as_child: Annotated[
        bool, typer.Option("--as-child", hidden=True, help="End with the process that started it.")
    ] = False,
) -> None:
    """Analyse what the engine's scheduler places here, until SIGTERM or Ctrl-C.  It needs no database."""
    with one_line_errors():
        checked = _configuration(config, engine)
        if not checked.ai.engine_address.startswith("tls://") and not is_loopback(host):
            raise ConfigError(
                f"--host {host}: without TLS whoever reaches it could run programs here; give a tls:// address and "
                "[ai.engine_tls]"
            )
        if as_child:
            from node.analysis.engine_worker import run

            end_with_parent()
            run(checked, host, port)
        else:
            _require_free(host, port)
            path = config_path(config)
            arguments = ["--config", str(path)] if path else []
            arguments += ["--engine", checked.ai.engine_address, "--host", host, "--port", str(port), "--as-child"]
            raise typer.Exit(_keep_running(Child("worker", arguments, _environment(checked))))


@app.command(epilog="Example: willis scheduler --engine tls://10.1.2.3:8786")
def scheduler(engine: EngineOption = None, config: ConfigOption = None) -> None:
    """Run the engine's scheduler, which places analyses on workers, until SIGTERM or Ctrl-C.

    It may be killed at any time: what it had placed is placed again, or analysed by the node.
    """
    from node.analysis.cluster import schedule

    with one_line_errors():
        schedule(_configuration(config, engine).ai)


def _require_free(host: str, port: int) -> None:
    """A worker can listen there.  Raises ConfigError."""
    try:
        bound(host, port).close()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host} --port {port}: {safe_message(error)}") from None


def _configuration(path: Path | None, engine: str | None) -> Config:
    """The configuration with this engine; logging follows it.  Raises ConfigError."""
    named = {"WILLIS_AI__ENGINE_ADDRESS": engine} if engine else {}
    config = load(config_path(path), {**os.environ, **named, "WILLIS_AI__ENGINE": "dask"})
    log.configure(config.log.format, config.log.level)
    return config


def _environment(config: Config) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(config.ai.threads)} if config.ai.threads else {}
    return {**NO_SPINNING, **os.environ, **threads}


def _keep_running(child: Child) -> int:
    """The process runs, and is started again when it ends, until we are to end; the exit status."""
    is_to_stop = asked_to_stop(signal.SIGTERM, signal.SIGINT)
    while not is_to_stop():
        if child.process is None:
            if time.monotonic() >= child.start_at:
                child.start()
        elif (code := child.process.poll()) is not None:
            log.get().error("process_ended", process=child.role, exit_code=code)
            if not child.ended(code):
                return CONFIG_ERROR
        time.sleep(0.1)
    if child.process is not None:
        child.process.terminate()
        until = time.monotonic() + STOP_SECONDS
        while child.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        child.process.kill()
        child.process.wait()
    return 0
