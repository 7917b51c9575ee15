"""A second bundle answers what the first has reported, when nobody waits: what it says goes into a table of its own.

Nothing of it is delivered or shown among reports, and whatever happens to it, the report of the first stays as it is.
It works in a process of its own, one for each answer, which is killed as soon as anybody waits: a bundle that hangs or
crashes holds up nobody.  Nor does one that eats the memory: that process is the first that the kernel ends.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import MappingProxyType
from typing import Any

from node.analysis.analysis import AnalysisContext, Stopwatch, conclusion_of, see
from node.analysis.bundle import configured_shadow
from node.analysis.interruptions import LOOK_SECONDS
from node.config.files import files_of
from node.config.sections import Config
from node.errors import ConfigError
from node.results.document import Algorithm
from node.runtime import log
from node.runtime.clock import utc_now
from storage.queries.models import Models
from storage.queries.shadow import Bundles, ShadowClaim
from storage.records import Claim
from storage.store import Store


def _read_only(values: Mapping[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)


ForkingPickler.register(MappingProxyType, lambda proxy: (_read_only, (dict(proxy),)))  # of which a Config has some
_GONE_WITHIN_SECONDS = 5.0
_UNUSABLE = 3
"""The exit status of a process whose bundle was exchanged or can be read no longer."""


@dataclass(frozen=True)
class Shadow:
    """The second bundle by the name of its version and its digest, or why there is none though one is configured."""

    version: str = ""
    sha256: str = ""
    trouble: str = ""


def shadow_of(config: Config, models: Models) -> Shadow:
    """That of [ai]; one that cannot be used is logged, and costs nothing else."""
    try:
        bundle = configured_shadow(config)
    except ConfigError as error:
        log.get().error("shadow_unusable", error=str(error))
        return Shadow(trouble=str(error))
    except Exception as error:  # noqa: BLE001  the edge: whatever its folder holds, the first bundle goes on reporting
        log.get().error("shadow_unusable", error=type(error).__name__)
        return Shadow(trouble=f"[ai] shadow cannot be loaded ({type(error).__name__}): export the bundle again")
    if bundle is None:
        return Shadow()
    return Shadow(models.name_of(bundle.manifest.version, bundle.sha256), bundle.sha256)


def claim_next(context: AnalysisContext, shadow: Shadow, lease: timedelta) -> ShadowClaim | None:
    """The next reported series that it has to answer; None where somebody waits, or where nothing is due.

    None, too, while the kernel keeps an earlier process of it, though that was killed.
    """
    shadows = context.store.shadows
    if not shadow.sha256 or active_children() or shadows.somebody_waits():
        return None
    return shadows.begin(Bundles(shadow.sha256, shadow.version, context.algorithm.version), context.clock(), lease)


def answer_apart(
    context: AnalysisContext, shadow: Shadow, claim: ShadowClaim, gives_way: Callable[[], bool], seconds: float
) -> Shadow:
    """The second bundle has answered, in a process of its own, or has failed; or the attempt was given back.

    `gives_way` is asked every `LOOK_SECONDS` whether that process is to end at once; after so many `seconds` it has to.
    Returns `shadow`; where its bundle can be used no longer, why: nothing is asked of it until the next reload.
    """
    shadows, spawn = context.store.shadows, get_context("spawn")
    said, says = spawn.Pipe(duplex=False)
    arguments = (context.config, shadow.sha256, context.algorithm, claim, says)
    process = spawn.Process(target=answer, args=arguments, daemon=True)
    gave_way, is_unusable, error, until = False, False, "", time.monotonic() + seconds
    with said, says:
        try:
            process.start()
            says.close()
            while process.is_alive() and not gave_way and not error:
                process.join(LOOK_SECONDS)
                gave_way = gives_way()
                error = "longer than time_limit_seconds" if time.monotonic() > until else ""
            if not process.is_alive() and process.exitcode:
                error = _heard(said) or f"exit status {process.exitcode}"
                is_unusable = process.exitcode == _UNUSABLE
        except Exception as failure:  # noqa: BLE001  the edge: it costs this attempt and nothing else
            error = type(failure).__name__
        finally:
            _end(process, context)
    if gave_way or is_unusable:
        shadows.give_back(claim, context.clock())
    elif error:
        log.get().error("shadow_failed", case=claim.series.id, attempt=claim.attempt, error=error)
        shadows.fail(claim, context.clock(), error)
    if is_unusable:
        log.get().error("shadow_unusable", error=error)
        return Shadow(trouble=error)
    return shadow


def _heard(said: Connection) -> str:
    with suppress(EOFError, OSError):
        return str(said.recv()) if said.poll() else ""
    return ""


def _end(process: BaseProcess, context: AnalysisContext) -> None:
    """It is gone, and what it has half written; or the log says that the kernel keeps it, as one that waits for a disk."""
    if process.pid is None:
        return
    process.kill()
    process.join(_GONE_WITHIN_SECONDS)
    if process.is_alive():
        log.get().error("shadow_stuck", pid=process.pid)
        return
    with suppress(OSError):  # a leftover costs room and nothing else
        context.files.sweep_of(process.pid)


def answer(config: Config, sha256: str, first: Algorithm, claim: ShadowClaim, says: Connection) -> None:
    """What the second bundle says of the series is kept; run in a process of its own, which ends with its parent.

    Where that fails, `says` has why, and the process ends with a status: `_UNUSABLE` where the bundle cannot be used.
    """
    _end_with_parent()
    _go_first()
    log.configure(config.log.format, config.log.level)
    status = _UNUSABLE
    try:
        bundle = configured_shadow(config)
        if bundle is None or bundle.sha256 != sha256:
            raise ConfigError("[ai] shadow: the bundle was exchanged; `willis reload` takes the new one")
        status = 1
        files = files_of(config)
        store = Store.open(config.storage.url, files.folder)
        algorithm = replace(first, name=bundle.manifest.name, version=bundle.manifest.version)
        context, watch = AnalysisContext(config, files, bundle, algorithm, utc_now, store=store), Stopwatch()
        instances = store.settling.instances(claim.series.id)
        seen = see(context, Claim(claim.series, "", utc_now()), instances, watch)
        conclusion = conclusion_of(context, claim.series, seen.outcome, watch.seconds)
        kept = store.shadows.end(claim, conclusion)
    except ConfigError as error:
        says.send(str(error))
        raise SystemExit(status) from None
    except Exception as error:  # noqa: BLE001  the edge: its text may hold what no log may
        says.send(type(error).__name__)
        raise SystemExit(1) from None
    log.get().info(
        "shadow_answered" if kept else "shadow_void",
        case=claim.series.id,
        outcome=conclusion.outcome,
        seconds=round(sum(watch.seconds.values()), 2),
    )


def _go_first() -> None:
    """Where the host has no memory left, the kernel ends this process before any other."""
    with suppress(OSError):  # a system without /proc
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _end_with_parent() -> None:
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
