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
from multiprocessing import get_context, parent_process
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import MappingProxyType
from typing import Any

from node.analysis.analysis import AnalysisContext, Stopwatch, conclusion_of, see
from node.analysis.bundle import configured_shadow
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
LOOK_SECONDS = 0.2
"""So often it is asked, while the second bundle answers, whether anybody waits."""


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
    """The next reported series that it has to answer; None where somebody waits, or where nothing is due."""
    shadows = context.store.shadows
    if not shadow.sha256 or shadows.somebody_waits():
        return None
    return shadows.begin(Bundles(shadow.sha256, shadow.version, context.algorithm.version), context.clock(), lease)


def answer_apart(
    context: AnalysisContext, shadow: Shadow, claim: ShadowClaim, gives_way: Callable[[], bool], seconds: float
) -> None:
    """The second bundle has answered, in a process of its own, or has failed; or the attempt was given back.

    `gives_way` is asked every `LOOK_SECONDS` whether that process is to end at once; after so many `seconds` it has to.
    """
    shadows = context.store.shadows
    arguments = (context.config, shadow.sha256, context.algorithm, claim)
    process = get_context("spawn").Process(target=answer, args=arguments, daemon=True)
    error, until = "", time.monotonic() + seconds
    try:
        process.start()
        while process.is_alive():
            process.join(LOOK_SECONDS)
            if gives_way():
                process.kill()
                process.join()
                shadows.give_back(claim, context.clock())
                return
            if time.monotonic() > until:
                error = "longer than time_limit_seconds"
                break
        else:
            error = f"exit status {process.exitcode}" if process.exitcode else ""
    except Exception as failure:  # noqa: BLE001  the edge: it costs this attempt and nothing else
        error = type(failure).__name__
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if error:
        log.get().error("shadow_failed", case=claim.series.id, attempt=claim.attempt, error=error)
        shadows.fail(claim, context.clock(), error)


def answer(config: Config, sha256: str, first: Algorithm, claim: ShadowClaim) -> None:
    """What the second bundle says of the series is kept; run in a process of its own, which ends with its parent.

    Ends the process with status 1 where that fails, when the log has why.
    """
    _end_with_parent()
    _go_first()
    log.configure(config.log.format, config.log.level)
    try:
        bundle = configured_shadow(config)
        if bundle is None or bundle.sha256 != sha256:
            raise ConfigError("[ai] shadow: the bundle was exchanged; `willis reload` takes the new one")
        files = files_of(config)
        store = Store.open(config.storage.url, files.folder)
        algorithm = replace(first, name=bundle.manifest.name, version=bundle.manifest.version)
        context, watch = AnalysisContext(config, files, bundle, algorithm, utc_now, store=store), Stopwatch()
        instances = store.settling.instances(claim.series.id)
        seen = see(context, Claim(claim.series, "", utc_now()), instances, watch)
        conclusion = conclusion_of(context, claim.series, seen.outcome, watch.seconds)
        kept = store.shadows.end(claim, conclusion)
    except ConfigError as error:
        log.get().error("shadow_unusable", error=str(error))
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001  the edge: its text may hold what no log may
        log.get().error("shadow_failed", case=claim.series.id, attempt=claim.attempt, error=type(error).__name__)
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
