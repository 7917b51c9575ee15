"""What a worker of the engine does with a task: it reads the files that the order names, and answers as the claimant would."""

import asyncio
import os
import pickle
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ai.predict
from ai.errors import DeviceLost
from ai.volume import decoders
from node.analysis.analysis import Means, work_out
from node.analysis.bundle import algorithm_of, configured_bundle, model_name
from node.analysis.cluster import (
    ANSWERED,
    BEGUN,
    FAILED,
    HTTP_ADDRESS,
    REFUSED,
    configure_library,
    ended,
    security_of,
    why_not_reached,
)
from node.analysis.device import configured_device
from node.analysis.drafts import Order, Settings
from node.config.files import files_of
from node.config.sections import Config
from node.errors import safe_message
from node.results.sr import read_tables
from node.runtime import log
from node.runtime.backoff import Backoff
from node.runtime.clock import utc_now
from node.runtime.processes import DEVICE_LOST, NO_MEMORY
from storage.errors import NotStored, ObjectsAway, StorageError, StorageFull
from storage.files.instances import Files
from storage.records import StoredFile

if TYPE_CHECKING:
    from distributed import Security

UPLOADED_WITHIN_SECONDS = 15.0
"""A file that was received a moment ago may still be on its way to the object store."""
_SWEEP_SECONDS = 3600.0
_AWAY = Backoff(first_seconds=1.0, longest_seconds=30.0)


@dataclass
class Served:
    """What this process has loaded, once, and what claimants call that (`model_name`)."""

    model: str
    means: Means
    begins: Callable[[], None] = lambda: None
    """Called when a task begins."""
    swept_at: float = 0.0


class CannotRead(Exception):
    """The files cannot be read on this host; the message names cause and remedy."""


_served: list[Served] = []


def run(config: Config, host: str, port: int) -> None:
    """A worker of the engine at the configured address, listening on `host`, until SIGTERM, or until its scheduler ends.

    `port` 0 is any that is free.

    Raises ConfigError when bundle, device or certificates cannot be used.
    """
    security, bundle = security_of(config.ai), configured_bundle(config)
    configured_device(config)
    means = Means(config, files_of(config), bundle, algorithm_of(bundle.manifest), utc_now)
    served = Served(model_name(bundle), means, _say_begun)
    ai.predict.warm(bundle, config.ai.device)
    read_tables()
    decoders(config.ai.threads)
    _served[:] = [served]
    configure_library()
    _wait_for_scheduler(config)
    _wait_for_objects(means.files)
    asyncio.run(_run(config, (host, port), security, served.model))


def _wait_for_scheduler(config: Config) -> None:
    """It can be reached; until then the log says why not."""
    failures = 0
    while why := why_not_reached(config.ai):
        failures += 1
        log.get().error("engine_away", reason=f"[ai] engine_address = {config.ai.engine_address!r}: {why}")
        time.sleep(_AWAY.after(failures))


def _wait_for_objects(files: Files) -> None:
    """The object store lets us in, where there is one; until then the log says why not, and no task comes here to fail."""
    failures = 0
    while why := _why_not_let_in(files):
        failures += 1
        seconds = _AWAY.after(failures)
        log.get().error("objects_away", error=why, next_attempt_seconds=seconds)
        time.sleep(seconds)


def _why_not_let_in(files: Files) -> str:
    try:
        if files.objects:
            files.objects.check()
    except ObjectsAway as error:
        return str(error)
    return ""


async def _run(config: Config, listening: tuple[str, int], security: "Security", model: str) -> None:
    from distributed import Worker

    with tempfile.TemporaryDirectory(prefix="willis-worker-") as folder:
        worker = Worker(
            config.ai.engine_address,
            host=listening[0],
            port=listening[1],
            nthreads=1,
            security=security,
            resources={model: 1},
            dashboard=False,
            dashboard_address=HTTP_ADDRESS,
            memory_limit=0,
            local_directory=folder,
        )
        async with worker:
            log.get().info("worker_started", pid=os.getpid(), host=listening[0], port=worker.port, model=model)
            await ended(worker, worker.close_gracefully)  # what it works on is given to another, and costs no attempt
    os._exit(0)  # an analysis that nobody waits for any longer is not waited for


def _say_begun() -> None:
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(BEGUN, str(worker.get_current_task()))


def answer(model: str, packed: bytes) -> tuple[str, bytes | str]:
    """ANSWERED and the packed answer; FAILED and the kind of the error; REFUSED and why not here.  Nothing is raised.

    What is packed is looked at only by the version that packed it.  The kernel's alarm ends a process whose analysis
    takes too long, and one without memory ends itself: see `node.analysis.worker`.
    """
    host = socket.gethostname()
    if not _served:
        return REFUSED, f"{host} runs a worker that `willis worker` did not start"
    served = _served[0]
    if model != served.model:
        return REFUSED, f"{host} has {served.model}, and was asked for {model}: install the same on both"
    served.begins()
    order, settings = pickle.loads(packed)  # noqa: S301  from whom the cluster lets in, who may run anything here
    signal.setitimer(signal.ITIMER_REAL, settings.time_limit_seconds)
    try:
        return ANSWERED, _answer(served, order, settings)
    except CannotRead as error:
        log.get().error("files_not_read", case=order.claim.series.id, error=str(error))
        return REFUSED, f"{host}: {error}"
    except (OSError, StorageError) as error:  # this host's, as far as one can tell: the claimant finds out
        log.get().error("files_not_read", case=order.claim.series.id, error=type(error).__name__)
        return REFUSED, f"{host}: {safe_message(error)}"
    except MemoryError:
        os._exit(NO_MEMORY)
    except DeviceLost as error:
        log.get().error("device_lost", case=order.claim.series.id, error=str(error))
        os._exit(DEVICE_LOST)
    except Exception as error:  # noqa: BLE001  the edge: a failed analysis costs an attempt and nothing else
        log.get().error("attempt_failed", case=order.claim.series.id, error=type(error).__name__)
        return FAILED, type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(served: Served, order: Order, settings: Settings) -> bytes:
    start, means = time.monotonic(), served.means
    if start - served.swept_at > _SWEEP_SECONDS:
        served.swept_at = start
        means.files.sweep_fetched()
    bring(means.files, [file for _, file in order.instances])
    algorithm = algorithm_of(means.bundle.manifest, settings.model)
    means = replace(means, config=settings.taken_by(means.config), algorithm=algorithm)
    answered = pickle.dumps(work_out(means, order))
    seconds = round(time.monotonic() - start, 2)
    log.get().info("answered", case=order.claim.series.id, seconds=seconds, bytes=len(answered))
    return answered


def bring(files: Files, wanted: Sequence[StoredFile], within_seconds: float = UPLOADED_WITHIN_SECONDS) -> None:
    """All of them can be read here.  Raises CannotRead; Damaged where an object is not what was uploaded."""
    if files.objects is None:
        if not all(files.path(file).exists() for file in wanted):
            raise CannotRead(
                f"[storage] directory = {str(files.root)!r} lacks images; let it be the node's folder, or set objects"
            )
        return None
    until = time.monotonic() + within_seconds
    while True:
        try:
            return files.bring(wanted)
        except NotStored as error:
            if time.monotonic() > until:
                raise CannotRead(str(error)) from None
            time.sleep(0.5)
        except (ObjectsAway, StorageFull) as error:
            raise CannotRead(safe_message(error)) from None
