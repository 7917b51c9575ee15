"""The verb of the worker: one claimed series becomes a conclusion and, where one is wanted, a report in the outbox.

`order_of` asks the database, `work_out` reads the files and computes, `record` writes.  What is between them are values, so
that the second may be done by another process, on another host (`node.analysis.engine`).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

import ai
from ai.errors import NotAnalysable, Reason
from ai.findings import Findings
from ai.limits import MOST_FILE_BYTES, bytes_when_read, check_bytes, check_slices
from ai.volume import ReadSlice, Volume, volume_from_slices
from ai.wording import counted
from node.analysis.drafts import Answer, Drafts, Order, drafts_of, written
from node.analysis.examination import Look, examine
from node.analysis.read_ahead import Ahead
from node.config.sections import Config, Eligibility
from node.config.types import ResultKind
from node.results.document import Algorithm, NotAnalysed
from node.results.identity import missing_identity
from node.results.objects import Maker
from node.rules import eligibility
from node.rules.parts import is_doubtful, lacking
from node.runtime import log
from storage.errors import Damaged
from storage.files.instances import Files
from storage.killpoints import kill_point
from storage.queries import intake
from storage.records import (
    Claim,
    Conclusion,
    Header,
    LesionRecord,
    Measures,
    Series,
    StoredFile,
)
from storage.stages import Outcome
from storage.store import Store

if TYPE_CHECKING:
    from ai.bundle import Bundle

_SKIPPED_BYTES = 1 << 20
"""An element as long as this is not read where headers are; whoever asks for it reads it then."""
_Stored = Sequence[tuple[Header, StoredFile]]
_CONFLICTS = {intake.MIXED_PATIENTS: Reason.MIXED_PATIENTS, intake.MIXED_STUDIES: Reason.MIXED_STUDIES}


@dataclass
class Means:
    """What an analysis works with.  `progress` is called often during inference and may raise to give the claim back.

    `read_ahead` gives what was already read of a case, and answered of it.
    """

    config: Config
    files: Files
    bundle: "Bundle"
    algorithm: Algorithm
    clock: Callable[[], datetime]
    progress: Callable[[float], None] = lambda _share: None
    read_ahead: Callable[[int], Ahead] = Ahead


@dataclass
class AnalysisContext(Means):
    """The same, and the database that the claim is in."""

    store: Store = field(kw_only=True)


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


@dataclass(frozen=True)
class Seen:
    """What the analysis says, and the images that it says it of.  `unanalysed`: of what else it says nothing, in words."""

    outcome: Findings | NotAnalysed
    datasets: Sequence[Dataset]
    volume: Volume | None = None
    unanalysed: str = ""


def analyse(context: AnalysisContext, claim: Claim) -> bool:
    """The claimed series has ended, its report is in the outbox.  False when a late slice voided the claim.

    Raises Damaged when a file of the series is not as it was written, and whatever `progress` raises.  A claim that is
    exhausted ends whatever happens, if need be without a report: it would come back for ever.
    """
    return record(context, claim, work_out(context, order_of(context, claim)))


def order_of(context: AnalysisContext, claim: Claim) -> Order:
    """All that the database and the configuration say of the claimed series, but the proof that it is ours."""
    series = claim.series
    kinds_of_results: tuple[ResultKind, ...] = () if series.canary else ("sr", "sc", "seg")
    getting = {kind: context.config.getting(kind, series.calling_ae) for kind in kinds_of_results}
    return Order(
        replace(claim, token=""),
        tuple(context.store.settling.instances(series.id)),
        context.store.queue.before(series.id),
        getting,
        context.config.report.zone or context.clock().astimezone().tzinfo or UTC,
        context.config.node.ae_title,
    )


def work_out(means: Means, order: Order) -> Answer:
    """What came of the order, nothing of it written; raises as `analyse` does."""
    watch = Stopwatch()
    seen = see(means, order.claim, order.instances, watch)
    with watch.step("report"):
        drafts = _drafts(means, order, seen)
    conclusion = conclusion_of(means, order.claim.series, seen.outcome, watch.seconds)
    return Answer(replace(conclusion, measures=_measures(seen)), drafts)


def record(context: AnalysisContext, claim: Claim, answer: Answer) -> bool:
    """The claimed series has ended with this answer; as `analyse`.  Raises StorageFull."""
    watch = Stopwatch(dict(answer.conclusion.seconds))
    with watch.step("report"):
        report, destinations, beside = written(context.files, claim, answer.drafts)
    kill_point("after_report_file")
    conclusion = replace(answer.conclusion, seconds=watch.seconds)
    kept = context.store.queue.finish(claim, conclusion, report, destinations, context.clock(), beside)
    log.get().info(
        "series_reported" if kept else "claim_void",
        case=claim.series.id,
        revision=claim.series.revision,
        outcome=conclusion.outcome,
        reason=conclusion.reason,
        seconds=round(sum(watch.seconds.values()), 2),
    )
    return kept


def see(context: Means, claim: Claim, stored: _Stored, watch: Stopwatch) -> Seen:
    """What the bundle says of the series' instances, and of which images; raises as `analyse` does.  Changes nothing."""
    ahead = context.read_ahead(claim.series.id)
    with watch.step("volume"):
        instances, set_aside = _ct_slices(stored, context.config.eligibility)
        known = _known(claim) or _too_large(context, instances)
        with suppress(Damaged):  # whoever reads it finds out
            context.files.bring(file for _, file in instances)
        slices = _read(context, claim, instances, ahead, headers_only=known is not None)
    kill_point("in_analysis")
    look = partial(_look, context, watch, ahead)
    if known:
        seen = Seen(_not_analysed(claim, known), [each.ds for each in slices])
    else:
        seen = _examine(context, claim, [header for header, _ in instances], slices, look)
    return _doubted(claim.series, _with_note(seen, set_aside))


def _ct_slices(instances: _Stored, rules: Eligibility) -> tuple[_Stored, str]:
    """The instances that are CT slices, and in words what is set aside; all of them where none is a CT slice."""
    headers = [header for header, _ in instances]
    left = {header.sop_instance_uid for header in eligibility.ct_slices(headers, rules)}
    if not left:
        return instances, ""
    aside = [f"{count} of kind {why.value}" for why, count in eligibility.strays(headers, rules).items()]
    words = f"set aside in this series: {', '.join(aside)}" if aside else ""
    return [pair for pair in instances if pair[0].sop_instance_uid in left], words


def _with_note(seen: Seen, note: str) -> Seen:
    """`seen`, whose findings say this too."""
    if not note or not isinstance(seen.outcome, Findings):
        return seen
    return replace(seen, outcome=replace(seen.outcome, note="; ".join(filter(None, (seen.outcome.note, note)))))


def _read(context: Means, claim: Claim, instances: _Stored, ahead: Ahead, headers_only: bool) -> list[ReadSlice]:
    """The series' instances; of an exhausted claim those that can be read.  Raises Damaged.

    None at all where reporting it has itself killed the process as often as it was to be analysed.
    """
    slices: list[ReadSlice] = []
    if claim.exhausted and claim.series.attempts > 2 * context.config.ai.attempts:
        return slices
    for header, file in instances:
        try:
            if already := ahead.slices.get(file):
                slices.append(already)
            elif ds := _dataset(context.files.here(file), header, headers_only):
                slices.append(ReadSlice(ds))
        except (OSError, ValueError, EOFError, InvalidDicomError, Damaged):
            if not claim.exhausted:
                raise Damaged(f"{file.path} cannot be read") from None
    return slices


def _dataset(path: Path, header: Header, headers_only: bool) -> Dataset | None:
    """The file's dataset; None for a header that cannot be had without inflating more than may be held."""
    if header.transfer_syntax_uid != DeflatedExplicitVRLittleEndian:
        return dcmread(path, stop_before_pixels=headers_only, defer_size=_SKIPPED_BYTES if headers_only else None)
    if headers_only and bytes_when_read(path) > MOST_FILE_BYTES:
        return None
    ds = dcmread(path, stop_before_pixels=headers_only)
    ds.buffer = None  # all that was inflated, the pixels too: the dataset has what it needs of them
    return ds


def _examine(context: Means, claim: Claim, headers: Sequence[Header], slices: Sequence[ReadSlice], look: Look) -> Seen:
    datasets = [each.ds for each in slices]
    try:
        if missing := missing_identity(datasets):
            raise NotAnalysable(Reason.MISSING_IDENTITY, ", ".join(missing))
        examined = examine(headers, slices, context.config.eligibility, look, context.config.ai.threads)
    except NotAnalysable as error:
        return Seen(_not_analysed(claim, error), datasets)
    if examined.findings.note:
        log.get().warning("analysed_with_a_note", case=claim.series.id, reason=examined.findings.note)
    seen = Seen(examined.findings, examined.datasets, examined.volume, examined.unanalysed)
    return _with_note(seen, examined.note)


def _look(context: Means, watch: Stopwatch, ahead: Ahead, slices: Sequence[ReadSlice]) -> tuple[Findings, Volume]:
    """What is found in the slices of one acquisition, and their volume.  Raises NotAnalysable."""
    config = context.config
    with watch.step("volume"):
        volume = volume_from_slices(slices, config.ai.threads)
        for each in slices:
            each.let_go_of_pixels()
    with watch.step("inference"):
        return ai.analyse(
            volume,
            context.bundle,
            config.ai.device,
            require_contrast=config.eligibility.require_contrast,
            progress=context.progress,
            remembered=ahead.remembered,
        ), volume


def _not_analysed(claim: Claim, error: NotAnalysable) -> NotAnalysed:
    log.get().info("not_analysable", case=claim.series.id, reason=error.reason)
    return NotAnalysed(error.reason, error.detail)


def _known(claim: Claim) -> NotAnalysable | None:
    """Why the series is not analysed, where the database already says it: then its pixels need not be read."""
    series = claim.series
    if claim.exhausted:
        return NotAnalysable(Reason.ATTEMPTS_EXHAUSTED, counted(series.attempts - 1, "attempt"))
    if series.outcome is Outcome.NOT_ELIGIBLE:
        return NotAnalysable(Reason.NOT_ELIGIBLE, " ".join(filter(None, (series.reason, series.detail))))
    for conflict in series.conflicts:
        if conflict in _CONFLICTS:
            return NotAnalysable(_CONFLICTS[conflict])
    if series.outcome is Outcome.NOT_ANALYSED:
        return NotAnalysable(Reason(series.reason), series.detail)
    if lacking(series) > 0 and not is_doubtful(series):
        return NotAnalysable(Reason.INCOMPLETE, f"{series.instance_count} of {series.expected_count} slices")
    return None


def _doubted(series: Series, seen: Seen) -> Seen:
    """Where slices may be missing, or other objects, nothing is called negative; what was found is said with the doubt."""
    if not is_doubtful(series):
        return seen
    objects = f"{series.instance_count} of {series.expected_count} objects"
    doubt = f"{objects}; the sender does not say whether the missing are slices"
    if isinstance(seen.outcome, Findings) and not seen.outcome.positive:
        return Seen(NotAnalysed(Reason.INCOMPLETE, doubt), seen.datasets)
    return _with_note(seen, doubt)


def _too_large(context: Means, instances: _Stored) -> NotAnalysable | None:
    """Why the series cannot be held in memory, as far as the database and the files' sizes tell.

    What the headers claim is checked before pixels are decoded, by `ai.volume`.
    """
    try:
        check_slices(sum(max(1, header.number_of_frames) for header, _ in instances))
        check_bytes(_bytes_when_read(context.files, header, file) for header, file in instances)
    except NotAnalysable as error:
        return error
    return None


def _bytes_when_read(files: Files, header: Header, file: StoredFile) -> int:
    if header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        with suppress(OSError, Damaged):  # whoever reads it finds out
            return bytes_when_read(files.here(file))
    return file.size_bytes


def conclusion_of(
    context: Means, series: Series, outcome: Findings | NotAnalysed, seconds: dict[str, float]
) -> Conclusion:
    """The outcome as the database keeps it."""
    if isinstance(outcome, NotAnalysed):
        if outcome.reason is Reason.NOT_ELIGIBLE:
            return Conclusion(Outcome.NOT_ELIGIBLE, series.reason, series.detail, seconds=seconds)
        return Conclusion(Outcome.NOT_ANALYSED, outcome.reason, outcome.detail, seconds=seconds)
    lesions = tuple(
        LesionRecord(lesion.location, lesion.probability, lesion.centre_lps_mm, lesion.diameter_mm)
        for lesion in outcome.lesions
    )
    kind = Outcome.POSITIVE if outcome.positive else Outcome.NEGATIVE
    limits = outcome.limited.removeprefix("limited: ")
    version = context.algorithm.version
    judged = (outcome.probabilities, lesions, seconds, limits, outcome.notify, outcome.threshold)
    return Conclusion(kind, "", outcome.note, version, *judged)


def _measures(seen: Seen) -> Measures | None:
    """What is compared over the months, from the images that were analysed."""
    if not isinstance(seen.outcome, Findings) or not seen.datasets:
        return None
    ds, quality = seen.datasets[0], seen.outcome.quality
    scanner = " / ".join(_word(ds, name).strip() for name in ("Manufacturer", "ManufacturerModelName", "StationName"))
    kernel = _word(ds, "ConvolutionKernel")
    if quality is None:
        return Measures(scanner, kernel, dose_mgy=_dose_mgy(ds))
    arterial_hu = None if math.isnan(quality.arterial_hu) else quality.arterial_hu
    return Measures(scanner, kernel, arterial_hu, quality.noise_hu, quality.spread_mm, _dose_mgy(ds))


def _word(ds: Dataset, name: str) -> str:
    """At most 64 characters of an attribute, without those that PostgreSQL cannot hold."""
    return str(ds.get(name, "") or "").replace("\0", "")[:64]


def _dose_mgy(ds: Dataset) -> float | None:
    """CTDIvol; None where the images do not say it."""
    with suppress(TypeError, ValueError):
        value = float(ds.get("CTDIvol"))
        return value if math.isfinite(value) else None
    return None


def _drafts(means: Means, order: Order, seen: Seen) -> Drafts | None:
    """As `drafts_of`; None where none are wanted, cannot be made of an exhausted claim, or the images do not say whose."""
    settings, outcome, datasets = means.config.report, seen.outcome, seen.datasets
    if (isinstance(outcome, NotAnalysed) and settings.not_analysed == "never") or missing_identity(datasets):
        return None
    created, series = means.clock().astimezone(order.zone), order.claim.series
    maker = Maker(
        *(series, datasets, outcome, seen.volume, means.algorithm, created, settings.series_number),
        ae_title=order.ae_title,
        unanalysed=seen.unanalysed,
        before=order.before,
    )
    try:
        return drafts_of(maker, order, settings.region)
    except MemoryError:
        raise
    except Exception as error:
        if not order.claim.exhausted:
            raise
        log.get().error("report_failed", case=series.id, error=type(error).__name__)
        return None
