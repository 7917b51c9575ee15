"""What an analysis is asked and what it answers, as values; and the objects of an answer, first as bytes, then durable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from pydicom import Dataset

from node.config.sections import Config, Eligibility, Reporting
from node.config.types import Region, ResultKind
from node.results.document import encode
from node.results.objects import Maker
from node.runtime import log
from storage.before import Before
from storage.errors import StorageFull
from storage.files.instances import Files
from storage.records import Claim, Conclusion, Header, ReportObject, ResultObject, StoredFile


@dataclass(frozen=True)
class Order:
    """What the database and the configuration say of a claimed series; whoever has its files can work it out.

    `claim`: without its token, so that nobody but the claimant can end it.  `before`: what was made of the series before, by
    kind ("report", or "report" and the region of one beside it).  `getting`: who gets which result, by region.
    """

    claim: Claim
    instances: Sequence[tuple[Header, StoredFile]]
    before: Before | None
    getting: Mapping[ResultKind, Mapping[Region, tuple[str, ...]]]
    zone: tzinfo
    """In which the report says when it was made: the claimant's, not that of who works it out."""
    ae_title: str
    """The claimant's too: whose results they are."""


@dataclass(frozen=True)
class Settings:
    """Those of the claimant that an answer depends on."""

    eligibility: Eligibility
    report: Reporting
    attempts: int
    time_limit_seconds: float
    model: str
    """What the claimant's database calls its version, "" for as the bundle does."""

    @classmethod
    def of(cls, config: Config, model: str = "") -> "Settings":
        """Those of this configuration."""
        ai = config.ai
        return cls(config.eligibility, config.report, ai.attempts, ai.time_limit_seconds, model)

    def taken_by(self, config: Config) -> Config:
        """Another host's configuration, with these."""
        of_ai = {key: getattr(self, key) for key in ("attempts", "time_limit_seconds")}
        sections = {"eligibility": self.eligibility, "report": self.report}
        return config.model_copy(update={**sections, "ai": config.ai.model_copy(update=of_ai)})


@dataclass(frozen=True)
class Draft:
    """An object that is not written yet, and who is to get it."""

    kind: str
    sop_instance_uid: str
    content: bytes
    destinations: tuple[str, ...]


@dataclass(frozen=True)
class Drafts:
    """The report of a conclusion, with that which it replaces, and what comes beside it."""

    report: Draft
    predecessor_uid: str | None
    ae_title: str
    beside: tuple[Draft, ...]


@dataclass(frozen=True)
class Answer:
    """What came of an order; `drafts` is None where there is no report."""

    conclusion: Conclusion
    drafts: Drafts | None


def drafts_of(maker: Maker, order: Order, own: Region) -> Drafts:
    """The objects; `own`: the region of the report that is always made."""
    getting = {kind: dict(by_region) for kind, by_region in order.getting.items()}
    report, reports, summaries = maker.report(own, own), getting.get("sr", {}), []
    for region, destinations in getting.get("sc", {}).items():
        if summary := _picture("summary", maker, region, own, region if region in reports else own, destinations):
            summaries.append(summary)
        else:  # who gets no summary gets the report, whatever it is configured to get
            reports[region] = tuple(dict.fromkeys((*reports.get(region, ()), *destinations)))
    beside = []
    for region, destinations in reports.items():
        if region != own:
            beside.append(_draft(f"report {region}", maker.report(region, own), destinations))
    masks = [
        _picture("segmentation", maker, region, own, region if region in reports else own, destinations)
        for region, destinations in getting.get("seg", {}).items()
    ]
    beside += [*summaries, *filter(None, masks)]
    replaced_uid = order.before.uids["report"][-1] if order.before else None
    return Drafts(_draft("report", report, reports.get(own, ())), replaced_uid, maker.named_by, tuple(beside))


def _picture(
    kind: str, maker: Maker, region: Region, own: Region, of: Region, destinations: tuple[str, ...]
) -> Draft | None:
    """The "summary" or "segmentation"; None where there is none or it cannot be made.  Raises StorageFull."""
    make = maker.summary if kind == "summary" else maker.segmentation
    try:
        ds = make(region, own, of)
        return _draft(kind, ds, destinations) if ds else None
    except StorageFull:
        raise
    except Exception as error:  # noqa: BLE001  the edge: a finding is reported even if it cannot be drawn
        log.get().error(f"{kind}_failed", case=maker.series.id, error=type(error).__name__)
        return None


def _draft(kind: str, ds: Dataset, destinations: tuple[str, ...]) -> Draft:
    return Draft(kind, str(ds.SOPInstanceUID), encode(ds), destinations)


Written = tuple[ReportObject | None, tuple[str, ...], tuple[ResultObject, ...]]
"""The report, who gets it, and what comes beside it."""


def written(files: Files, claim: Claim, drafts: Drafts | None) -> Written:
    """The objects, durable on disk; none where those of an exhausted claim cannot be written.  Raises StorageFull."""
    if drafts is None:
        return None, (), ()
    try:
        report = ReportObject(
            drafts.report.sop_instance_uid,
            files.write_report(drafts.report.sop_instance_uid, drafts.report.content),
            drafts.predecessor_uid,
            drafts.ae_title,
        )
        beside = tuple(
            ResultObject(
                each.kind,
                each.sop_instance_uid,
                files.write_report(each.sop_instance_uid, each.content),
                each.destinations,
            )
            for each in drafts.beside
        )
    except (StorageFull, MemoryError):
        raise
    except Exception as error:
        if not claim.exhausted:
            raise
        log.get().error("report_failed", case=claim.series.id, error=type(error).__name__)
        return None, (), ()
    return report, drafts.report.destinations, beside
