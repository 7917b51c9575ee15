"""`willis reload`: the running node takes model and certificates anew."""

import os
import signal
import socket
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.app import ConfigOption, app, complain, one_line_errors, say, settings
from node.errors import NodeError

if TYPE_CHECKING:
    from node.config.sections import Config
    from storage.running import Process

_LATELY = timedelta(minutes=1)
"""So long ago at most a process has said that it runs; it says so every few seconds."""


@app.command(epilog="Example: willis reload --config /etc/willis/config.toml")
def reload(
    config: ConfigOption = None,
    wait_seconds: Annotated[
        float,
        typer.Option(
            min=0, max=7200, help="How long to wait for the node's processes; an analysis goes on to its end."
        ),
    ] = 60.0,
) -> None:
    """Have the running node of this host take model and certificates anew, without breaking an association or analysis.

    It reads [ai] bundle, shadow, flip and precision, and the files of [node.tls].  What else has changed is named and
    needs a restart.  What cannot be used is named, and what is in service stays: exit status 1.
    """
    with one_line_errors():
        checked = settings(config)
        asked_at = _ask(checked)
        until = time.monotonic() + wait_seconds
        answers, roles = _answers(checked, asked_at), _roles(checked)
        while not _all_have_answered(answers, roles) and time.monotonic() < until:
            time.sleep(0.2)
            answers = _answers(checked, asked_at)
        is_good = True
        for role in roles:
            answer = answers.get(role)
            if answer is None:
                complain(
                    f"willis {role} has not taken it yet: an analysis may go on; `willis status` says when", "yellow"
                )
                is_good = False
            elif answer["error"]:
                complain(f"willis {role}: {answer['error']}; what is in service stays")
                is_good = False
            elif answer["taken"]:
                say(f"willis {role}: {answer['taken']}")
            if role == "serve" and answer and answer["needs_restart"]:
                complain(f"needs a restart: {', '.join(answer['needs_restart'])}", "yellow")
            if role == "serve" and answer and answer["error"]:
                break
        if not is_good:
            raise typer.Exit(1)


def _roles(config: "Config") -> tuple[str, ...]:
    """Whose answers are waited for: pages that cannot be served are nothing that a reload mends."""
    has_pages = config.web.enabled and any(each.role == "web" for each in _processes(config))
    return ("serve", "receive", "work", *(("web",) if has_pages else ()))


def _processes(config: "Config") -> "list[Process]":
    """Those of this host's node that run: a number that was one's before the machine started may be another program's."""
    from node.runtime.clock import utc_now
    from node.runtime.processes import has_died
    from node.workflow.health import readable
    from storage.queries import health

    reading, here = readable(config.storage.url), socket.gethostname()[:64]
    folder = str(config.storage.directory.absolute())
    found = [] if reading is None else health.processes(reading)
    return [
        each
        for each in found
        if (each.host, each.folder) == (here, folder) and not has_died(f"{each.host}:{each.pid}")
        and "trouble" not in each.details and utc_now() - each.beat_at <= _LATELY
    ]  # fmt: skip


def _ask(config: "Config") -> datetime:
    """The node's process has its SIGHUP; returns since when its answers count.  Raises NodeError."""
    from node.runtime.clock import utc_now

    serving = [each for each in _processes(config) if each.role == "serve"]
    if not serving:
        raise NodeError(f"no node runs on {config.storage.directory} of this host: `willis serve` starts one")
    asked_at = utc_now()
    for each in serving:
        try:
            os.kill(each.pid, signal.SIGHUP)
        except PermissionError:
            raise NodeError(f"the node (pid {each.pid}) belongs to another user: `systemctl reload willis`") from None
    return asked_at


def _answers(config: "Config", asked_at: datetime) -> dict[str, dict[str, Any]]:
    """By role, what each process has said of this reload."""
    found = {each.role: each.details.get("reload") for each in _processes(config)}
    return {role: each for role, each in found.items() if each and datetime.fromisoformat(each["at"]) >= asked_at}


def _all_have_answered(answers: dict[str, dict[str, Any]], roles: tuple[str, ...]) -> bool:
    return bool(answers.get("serve", {}).get("error")) or all(role in answers for role in roles)
