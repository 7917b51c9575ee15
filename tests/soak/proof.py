"""What a node has lost or doubled, compared with what senders, PACS and mail server know."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from sqlalchemy import select

from node.dicom.commitment import Result
from storage.database.running import NotificationRow
from storage.database.schema import CommitmentRequestRow, DeliveryRow, InstanceRow, ReportRow, SeriesRow
from storage.files.instances import Files
from storage.stages import DeliveryStage, Stage
from storage.store import Store
from tests.soak.load import Sent

ENDED = (Stage.REPORTED.value, Stage.SET_ASIDE.value, Stage.FAILED.value)
DONE = (DeliveryStage.DELIVERED.value, DeliveryStage.COMMITTED.value)


@dataclass
class Verdict:
    """What is wrong, in words; counts of what was looked at."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def waiting(store: Store) -> dict[str, int]:
    """How much is still under way: series without an end, deliveries and notifications that have not arrived."""
    with store.transactions.reading() as session:
        series = session.scalars(select(SeriesRow.stage)).all()
        deliveries = session.scalars(select(DeliveryRow.stage)).all()
        notifications = session.scalars(select(NotificationRow.stage)).all()
        unanswered = select(CommitmentRequestRow.id).where(CommitmentRequestRow.next_attempt_at.is_not(None))
        commitments = len(session.scalars(unanswered).all())
    return {
        "series": sum(stage not in ENDED for stage in series),
        "deliveries": sum(stage != DeliveryStage.COMMITTED.value for stage in deliveries),
        "notifications": sum(stage == "pending" for stage in notifications),
        "commitments": commitments,
    }


def verdict(
    store: Store, files: Files, sent: Sent, pacs: Path, mails: list[str], results: Mapping[str, Result]
) -> Verdict:
    """What holds at the end of a soak, when nothing is under way any longer.

    `pacs`: the folder of what it holds; `mails`: their texts; `results`: of commitments, by their Transaction UID.
    """
    found = of_cases(store, lambda path: files.root / path, sent, pacs)
    with store.transactions.reading() as session:
        positive = Counter(map(str, session.scalars(select(ReportRow.series_id).where(ReportRow.notify.is_(True)))))
    told = Counter(case for text in mails for case in re.findall(r"case (\d+), not acknowledged", text))
    found.doubled += [
        f"case {case}: {n} mails for {positive[case]} reports" for case, n in told.items() if n > positive[case]
    ]
    found.lost += [f"case {case}: nobody was told" for case in positive if not told[case]]
    found.lost += [f"commitment {uid} has no result" for uid in sent.commitments if uid not in results]
    found.lost += [f"commitment {uid}: {len(each.failed)} refused" for uid, each in results.items() if each.failed]
    found.counts |= {
        "notifications": sum(told.values()),
        "commitments with their result": len(sent.commitments & set(results)),
    }
    return found


def of_cases(store: Store, where: Callable[[str], Path], sent: Sent, pacs: Path) -> Verdict:
    """The same of instances, series, reports and deliveries alone.  `where` a file of this name lies, by whichever host."""
    found = Verdict()
    held = series_of_reports(pacs)
    with store.transactions.reading() as session:
        known = {row.sop_instance_uid: row for row in session.scalars(select(InstanceRow))}
        series = {row.series_instance_uid: row for row in session.scalars(select(SeriesRow))}
        reports = {row.id: row for row in session.scalars(select(ReportRow))}
        deliveries = list(session.scalars(select(DeliveryRow)))
        session.expunge_all()
    found.lost += _lost_instances(sent, {uid: where(row.path) for uid, row in known.items()})
    found.lost += _unended(sent, series, reports, held)
    found.lost += [
        f"delivery {each.id} is {each.stage}: {each.last_error}" for each in deliveries if each.stage not in DONE
    ]
    found.doubled += _doubled_reports(series, reports, held)
    found.counts = {
        "instances acknowledged": len(sent.acknowledged),
        "series begun": len(sent.series),
        "whole angiographies": sum(each.is_whole for each in sent.series.values()),
        "series ended": sum(row.stage in ENDED for row in series.values()),
        "later revisions": sum(row.revision - 1 for row in series.values()),
        "reports at the PACS": len(held),
    }
    return found


def series_of_reports(pacs: Path) -> dict[str, str]:
    """SOP Instance UID → the series that it is about, of each report that the PACS holds."""
    held = {}
    for path in pacs.glob("*.dcm"):
        ds = dcmread(path, force=True)
        evidence = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        held[path.stem] = str(evidence[0].SeriesInstanceUID)
    return held


def _lost_instances(sent: Sent, paths: Mapping[str, Path]) -> Iterator[str]:
    for uid, (_, digest) in sent.acknowledged.items():
        path = paths.get(uid)
        if path is None:
            yield f"instance {uid} was acknowledged and is not known"
        elif not path.exists():
            yield f"instance {uid} was acknowledged and has no file"
        elif hashlib.sha256(_dataset(path)).hexdigest() != digest:
            yield f"instance {uid} was acknowledged and its file is not what came"


def _dataset(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _unended(
    sent: Sent, series: Mapping[str, SeriesRow], reports: Mapping[int, ReportRow], held: Mapping[str, str]
) -> Iterator[str]:
    for uid, row in series.items():
        if row.stage not in ENDED:
            yield f"series {row.id} is {row.stage}"
        begun = sent.series.get(uid)
        if begun is None or not begun.is_whole:
            continue
        report = reports.get(row.report_id or 0)
        if row.instance_count != begun.count or row.outcome != begun.kind:
            yield f"series {row.id} is {row.outcome} ({row.reason}) of {row.instance_count}, not {begun.kind} of {begun.count}"
        elif report is None or report.revision != row.revision or report.sop_instance_uid not in held:
            yield f"series {row.id}: the report of revision {row.revision} is not in the PACS"
    for uid, begun in sent.series.items():
        if begun.is_whole and uid not in series:
            yield f"series {uid} was acknowledged whole and is not known"


def _doubled_reports(
    series: Mapping[str, SeriesRow], reports: Mapping[int, ReportRow], held: Mapping[str, str]
) -> Iterator[str]:
    of_series = Counter(held.values())
    for uid, row in series.items():
        if of_series[uid] > row.revision:
            yield f"series {row.id}: {of_series[uid]} reports at the PACS for {row.revision} revisions"
    of_revision = Counter((row.series_id, row.revision) for row in reports.values())
    yield from (
        f"series {case}: {n} reports of revision {revision}" for (case, revision), n in of_revision.items() if n > 1
    )
    known = {row.sop_instance_uid for row in reports.values()}
    yield from (f"the PACS holds {uid}, which the node does not know" for uid in held if uid not in known)
