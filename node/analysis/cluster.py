"""What the three parts of an engine share, which are claimants, a scheduler and workers; the scheduler itself.

Of what the scheduler imports nothing imports torch: it reads every task that it places.
"""

import asyncio
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from node.config.sections import Ai
from node.errors import ConfigError
from node.net.tls import engine_context, reason_of
from node.runtime import log

if TYPE_CHECKING:
    from distributed import Security

ANSWERED, FAILED, REFUSED = "answered", "failed", "refused"
"""What comes of a task: the packed answer; the kind of the error; why this worker cannot do it."""
TASK = "willis-"
"""What the names of our tasks begin with."""
BEGUN = "willis-begun"
"""The topic on which a worker says the name of the task that it begins, so that one knows of which it dies."""
REACHED_WITHIN_SECONDS = 5.0
_SILENT_SECONDS = 15
"""A connection that says nothing for so long is dead; the library wants eleven at least, and else fails at every one."""
_UNDONE = ("waiting", "queued", "no-worker", "processing")
_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application")
"""Those to which the library gives a level or a handler of their own."""
HTTP_ADDRESS = "127.0.0.1:0"
"""Of the pages that the library serves without being asked, on every interface if it is not told another."""


def look_at_scheduler(model: str, dask_scheduler: Any = None) -> tuple[list[list[str]], int]:
    """Called by the scheduler: what each of its workers offers, and how many of our tasks for this model are not done."""
    offered = [list(worker.resources) for worker in dask_scheduler.workers.values()]
    ours = [task for key, task in dask_scheduler.tasks.items() if str(key).startswith(TASK)]
    return offered, sum(task.state in _UNDONE and model in (task.resource_restrictions or ()) for task in ours)


def security_of(settings: Ai) -> "Security":
    """With TLS whoever has a certificate of the CA is let in, and nobody else.  Raises ConfigError."""
    try:
        from distributed import Security
    except ImportError:
        raise ConfigError(
            "[ai] engine needs the library distributed: pip install --constraint constraints.txt '.[engine]'"
        ) from None
    if settings.engine_tls is None or not settings.engine_address.startswith("tls://"):
        return Security()
    engine_context(settings.engine_tls)
    files = {"cert": str(settings.engine_tls.certificate), "key": str(settings.engine_tls.key)}
    roles = ("client", "worker", "scheduler")
    named = {f"tls_{role}_{kind}": path for role in roles for kind, path in files.items()}
    return Security(require_encryption=True, tls_ca_file=str(settings.engine_tls.ca), **named)


def why_not_reached(settings: Ai) -> str:
    """Why no connection with the scheduler comes about, and what to do; "" when one does.  Raises ConfigError."""
    host, port = settings.engine_host_and_port
    tls = settings.engine_tls if settings.engine_address.startswith("tls://") else None
    context = engine_context(tls) if tls else None
    try:
        with socket.create_connection((host, port), REACHED_WITHIN_SECONDS) as plain:
            if context is None:
                return ""
            with context.wrap_socket(plain) as secure:
                secure.settimeout(1.0)
                with suppress(TimeoutError):  # in TLS 1.3 one hears only now that one's certificate is refused
                    secure.recv(1)
    except ssl.SSLError as error:
        return f"{reason_of(error).replace('[node.tls]', '[ai.engine_tls]')}; both sides need certificates of one CA"
    except (OSError, UnicodeError) as error:
        return f"{reason_of(error)} (is that `willis scheduler`?)"
    return ""


def configure_library() -> None:
    """It gives up soon, hears nothing of the environment's profilers, and prints nothing: a task holds patients' names."""
    import dask

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    dask.config.set(
        {
            "distributed.comm.timeouts.connect": f"{REACHED_WITHIN_SECONDS}s",
            "distributed.comm.timeouts.tcp": f"{_SILENT_SECONDS}s",
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": False,
            "distributed.admin.system-monitor.gil.enabled": False,
        }
    )


class Loop:
    """An event loop in a thread, for one client after the other: one that could not connect would never end its own."""

    def __init__(self) -> None:
        self._ready, self._is_over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="engine's loop", daemon=True)
        self._asyncio: asyncio.AbstractEventLoop | None = None
        self.running: Any = None

    def start(self) -> None:
        """It runs, and `running` is what a client takes."""
        self._thread.start()
        self._ready.wait(REACHED_WITHIN_SECONDS)

    def stop(self) -> None:
        """It has ended, and what still ran in it was cancelled."""
        if self._asyncio is not None and self._thread.is_alive():
            self._asyncio.call_soon_threadsafe(self._is_over.set)
            self._thread.join(REACHED_WITHIN_SECONDS)

    async def _run(self) -> None:
        from tornado.ioloop import IOLoop

        self._asyncio, self.running = asyncio.get_running_loop(), IOLoop.current()
        self._ready.set()
        await self._is_over.wait()


def schedule(settings: Ai) -> None:
    """The scheduler of the engine at the configured address, until SIGTERM or Ctrl-C.  Raises ConfigError, OSError."""
    security = security_of(settings)
    configure_library()
    asyncio.run(_schedule(settings, security))


async def _schedule(settings: Ai, security: "Security") -> None:
    from distributed import Scheduler

    host, port = settings.engine_host_and_port
    scheduler = Scheduler(
        host=host,
        port=port,
        protocol=settings.engine_address.partition("://")[0],
        security=security,
        dashboard=False,
        dashboard_address=HTTP_ADDRESS,
        allowed_failures=0,  # what kills one worker is not given to the next: the claim's attempts decide
    )
    async with scheduler:
        log.get().info("scheduler_started", host=host, port=port)
        await ended(scheduler, scheduler.close)


async def ended(server: Any, close: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """The scheduler or worker has ended, by itself or, at SIGTERM or Ctrl-C, by `close`."""
    loop, closing = asyncio.get_running_loop(), list[asyncio.Task[Any]]()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: closing.append(loop.create_task(close())))
    await server.finished()
