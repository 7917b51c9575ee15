"""The verb of the worker: one claimed series becomes a conclusion and, where one is wanted, a report in the outbox."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

import ai
from ai.errors import NotAnalysable, Reason
from ai.findings import Findings
from ai.volume import volume_from_datasets
from node import log
from node.config import Config
from node.report import Algorithm, NotAnalysed, Predecessor, Region, build_report, encode
from node.report_identity import derive_uid, missing_identity
from storage import intake
from storage.errors import Damaged, StorageFull
from storage.files import Files
from storage.records import Claim, Conclusion, LesionRecord, ReportObject, Series
from storage.stages import Outcome
from storage.store import Store

if TYPE_CHECKING:
    from ai.bundle import Bundle

_CONFLICTS = {intake.MIXED_PATIENTS: Reason.MIXED_PATIENTS, intake.MIXED_STUDIES: Reason.MIXED_STUDIES}
_REGIONS = {"2d": Region.CIRCLE_2D, "3d": Region.POINT_3D}


@dataclass
class Bench:
    """What an analysis works with.  `progress` is called between tiles and may raise to give the claim back."""

    config: Config
    store: Store
    files: Files
    bundle: "Bundle"
    algorithm: Algorithm
    clock: Callable[[], datetime]
    progress: Callable[[float], None] = lambda _share: None


@dataclass
class Stopwatch:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The time spent inside is added to `name`, however the step ends."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def analyse(bench: Bench, claim: Claim) -> bool:
    """The claimed series has ended, its report is in the outbox.  False when a late slice voided the claim.

    Raises Damaged when a file of the series is not as it was written, and whatever `progress` raises.  A claim that is
    exhausted ends whatever happens, if need be without a report: it would come back for ever.
    """
    watch = Stopwatch()
    with watch.step("volume"):
        datasets = _read(bench, claim)
    said = _examine(bench, claim, datasets, watch)
    with watch.step("report"):
        report = _report(bench, claim, datasets, said)
    conclusion = _conclusion(bench, claim.series, said, watch.seconds)
    destinations = bench.config.destinations(claim.series.calling_ae)
    kept = bench.store.queue.finish(claim, conclusion, report, destinations, bench.clock())
    log.get().info(
        "series_reported" if kept else "claim_void",
        case=claim.series.id,
        revision=claim.series.revision,
        outcome=conclusion.outcome,
        reason=conclusion.reason,
        seconds=round(sum(watch.seconds.values()), 2),
    )
    return kept


def _read(bench: Bench, claim: Claim) -> list[Dataset]:
    """The series' datasets; of an exhausted claim those that can be read.  Raises Damaged."""
    datasets: list[Dataset] = []
    for _, file in bench.store.settling.instances(claim.series.id):
        try:
            datasets.append(dcmread(bench.files.path(file)))
        except (OSError, ValueError, EOFError, InvalidDicomError):
            if not claim.exhausted:
                raise Damaged(f"{file.path} cannot be read") from None
    return datasets


def _examine(bench: Bench, claim: Claim, datasets: Sequence[Dataset], watch: Stopwatch) -> Findings | NotAnalysed:
    series, config = claim.series, bench.config
    try:
        _raise_what_is_known(claim, datasets)
        with watch.step("volume"):
            volume = volume_from_datasets(datasets, config.ai.threads)
        with watch.step("inference"):
            return ai.analyse(
                volume,
                bench.bundle,
                config.ai.device,
                require_contrast=config.eligibility.require_contrast,
                progress=bench.progress,
            )
    except NotAnalysable as error:
        log.get().info("not_analysable", case=series.id, reason=error.reason)
        return NotAnalysed(error.reason, error.detail)


def _raise_what_is_known(claim: Claim, datasets: Sequence[Dataset]) -> None:
    """Raise NotAnalysable for what the database or the headers already say."""
    series = claim.series
    if claim.exhausted:
        raise NotAnalysable(Reason.ATTEMPTS_EXHAUSTED, f"{series.attempts} attempts")
    if series.outcome is Outcome.NOT_ELIGIBLE:
        raise NotAnalysable(Reason.NOT_ELIGIBLE, " ".join(filter(None, (series.reason, series.detail))))
    for conflict in series.conflicts:
        if conflict in _CONFLICTS:
            raise NotAnalysable(_CONFLICTS[conflict])
    if series.expected_count is not None and series.expected_count > series.instance_count:
        raise NotAnalysable(Reason.INCOMPLETE, f"{series.instance_count} of {series.expected_count} slices")
    if missing := missing_identity(datasets):
        raise NotAnalysable(Reason.MISSING_IDENTITY, ", ".join(missing))


def _conclusion(bench: Bench, series: Series, said: Findings | NotAnalysed, seconds: dict[str, float]) -> Conclusion:
    if isinstance(said, NotAnalysed):
        if said.reason is Reason.NOT_ELIGIBLE:
            return Conclusion(Outcome.NOT_ELIGIBLE, series.reason, series.detail, seconds=seconds)
        return Conclusion(Outcome.NOT_ANALYSED, said.reason, said.detail, seconds=seconds)
    lesions = tuple(
        LesionRecord(lesion.location, lesion.probability, lesion.centre_lps_mm, lesion.diameter_mm)
        for lesion in said.lesions
    )
    outcome = Outcome.POSITIVE if said.positive else Outcome.NEGATIVE
    return Conclusion(outcome, "", "", bench.algorithm.version, said.probabilities, lesions, seconds)


def _report(
    bench: Bench, claim: Claim, datasets: Sequence[Dataset], said: Findings | NotAnalysed
) -> ReportObject | None:
    """As `_written`; None also where the report of an exhausted claim cannot be made.  Raises StorageFull."""
    try:
        return _written(bench, claim.series, datasets, said)
    except StorageFull:
        raise
    except Exception as error:
        if not claim.exhausted:
            raise
        log.get().error("report_failed", case=claim.series.id, error=type(error).__name__)
        return None


def _written(
    bench: Bench, series: Series, datasets: Sequence[Dataset], said: Findings | NotAnalysed
) -> ReportObject | None:
    """The report, durable on disk; None where none is wanted, or where the images do not say whose it would be."""
    settings = bench.config.report
    if (isinstance(said, NotAnalysed) and settings.not_analysed == "never") or missing_identity(datasets):
        return None
    report_uid = derive_uid("report", series.series_instance_uid, series.revision, bench.algorithm.version)
    series_uid = derive_uid("report series", series.series_instance_uid)
    before = bench.store.queue.predecessor(series.id)
    ds = build_report(
        datasets,
        said,
        report_uid=report_uid,
        series_uid=series_uid,
        series_number=settings.series_number,
        instance_number=series.revision,
        created=bench.clock(),
        algorithm=bench.algorithm,
        predecessors=[Predecessor(series.study_instance_uid, series_uid, before[0])] if before else [],
        region=_REGIONS[settings.region],
    )
    return ReportObject(report_uid, bench.files.write_report(report_uid, encode(ds)), before[0] if before else None)
