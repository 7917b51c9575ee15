"""A second bundle answers what the first has reported, when nobody waits: what it says goes into a table of its own.

Nothing of it is delivered or shown among reports, and whatever happens to it, the report of the first stays as it is.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from ai.bundle import Bundle
from node.analysis.analysis import AnalysisContext, Stopwatch, conclusion_of, see
from node.analysis.bundle import configured_shadow, manifest_sha256
from node.analysis.read_ahead import Ahead
from node.config.sections import Config
from node.errors import ConfigError
from node.runtime import log
from storage.queries.shadow import Bundles, ShadowClaim
from storage.records import Claim


@dataclass(frozen=True)
class Shadow:
    """The second bundle, or why there is none though one is configured."""

    bundle: Bundle | None = None
    sha256: str = ""
    trouble: str = ""

    @property
    def version(self) -> str:
        """Of its model; "" without one."""
        return self.bundle.manifest.version if self.bundle else ""


def shadow_of(config: Config) -> Shadow:
    """That of [ai]; one that cannot be used is logged, and costs nothing else."""
    try:
        bundle = configured_shadow(config)
    except ConfigError as error:
        log.get().error("shadow_unusable", error=str(error))
        return Shadow(trouble=str(error))
    except Exception as error:  # noqa: BLE001  the edge: whatever its folder holds, the first bundle goes on reporting
        log.get().error("shadow_unusable", error=type(error).__name__)
        return Shadow(trouble=f"[ai] shadow cannot be loaded ({type(error).__name__}): export the bundle again")
    return Shadow() if bundle is None else Shadow(bundle, manifest_sha256(bundle.manifest))


def claim_next(context: AnalysisContext, shadow: Shadow, lease: timedelta) -> ShadowClaim | None:
    """The next reported series that it has to answer; None where somebody waits, or where nothing is due."""
    shadows = context.store.shadows
    if shadow.bundle is None or shadows.somebody_waits():
        return None
    return shadows.begin(Bundles(shadow.sha256, shadow.version, context.algorithm.version), context.clock(), lease)


def answer(context: AnalysisContext, shadow: Shadow, claim: ShadowClaim) -> bool:
    """What the second bundle says of the series is kept; raises as `analyse` does.  False where that has changed meanwhile."""
    assert shadow.bundle is not None
    algorithm = replace(context.algorithm, name=shadow.bundle.manifest.name, version=shadow.version)
    second = replace(context, bundle=shadow.bundle, algorithm=algorithm, read_ahead=Ahead)
    watch = Stopwatch()
    seen = see(second, Claim(claim.series, "", context.clock()), watch)
    conclusion = conclusion_of(second, claim.series, seen.outcome, watch.seconds)
    kept = context.store.shadows.end(claim, conclusion)
    log.get().info(
        "shadow_answered" if kept else "shadow_void",
        case=claim.series.id,
        outcome=conclusion.outcome,
        seconds=round(sum(watch.seconds.values()), 2),
    )
    return kept
