"""Whether a node has kept its promises: what is wrong, in words, or nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import func, select

from node.results.identity import derive_uid
from storage.database.schema import DeliveryRow, InstanceRow, ReportRow, SeriesRow
from storage.files.instances import Files
from storage.stages import DeliveryStage, Stage
from storage.store import Store
from tests.support.builders import known_file

_ENDED = (Stage.REPORTED.value, Stage.SET_ASIDE.value, Stage.FAILED.value)


def violations(store: Store, files: Files, acknowledged: Mapping[str, bytes]) -> list[str]:
    """What must hold at every moment: every acknowledged dataset is there bit for bit, and the tables agree."""
    return [*_lost(store, files, acknowledged), *_disagreeing(store, files)]


def unreported(store: Store, pacs: Path, model: str, revision: int | None = 1) -> list[str]:
    """What must hold at the end: of each series exactly one report of each revision, in the PACS, with its derived UID.

    `revision`: that of every series; None where slices may have come late.
    """
    found, expected = [], set()
    with store.transactions.reading() as session:
        for series in session.scalars(select(SeriesRow)):
            if series.stage not in _ENDED:
                found.append(f"series {series.id} is still {series.stage}")
            if revision is not None and series.revision != revision:
                found.append(f"series {series.id} is of revision {series.revision}")
            case = (series.series_instance_uid, series.first_instance_at.isoformat())
            uids = [derive_uid("report", *case, n, model) for n in range(1, series.revision + 1)]
            reports = set(session.scalars(select(ReportRow.sop_instance_uid).where(ReportRow.series_id == series.id)))
            if not reports <= set(uids) or uids[-1] not in reports:
                found.append(f"series {series.id} has other reports than those that are derived from it")
            expected |= reports
        for delivery in session.scalars(select(DeliveryRow).where(DeliveryRow.stage != DeliveryStage.DELIVERED.value)):
            found.append(f"delivery {delivery.id} is {delivery.stage}")
    held = {path.stem for path in pacs.glob("*.dcm")}
    if held != expected:
        found.append(f"the PACS lacks {len(expected - held)} reports and has {len(held - expected)} too many")
    return found


def _lost(store: Store, files: Files, acknowledged: Mapping[str, bytes]) -> Iterator[str]:
    for uid, dataset in acknowledged.items():
        file = known_file(store, uid)
        if file is None:
            yield f"instance {uid} was acknowledged and is not known"
        elif not files.path(file).exists() or _dataset(files.path(file)) != dataset:
            yield f"instance {uid} was acknowledged and its file is not what came"


def _dataset(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _disagreeing(store: Store, files: Files) -> Iterator[str]:
    with store.transactions.reading() as session:
        grouped = select(InstanceRow.series_id, func.count()).group_by(InstanceRow.series_id)
        counts: dict[int, int] = dict(session.execute(grouped).all())
        for series in session.scalars(select(SeriesRow)):
            where = f"series {series.id}, {series.stage}"
            if series.instance_count != counts.get(series.id, 0):
                yield f"{where}: counts {series.instance_count} of {counts.get(series.id, 0)} instances"
            if (series.stage == Stage.ANALYSING.value) != (series.claim_token is not None):
                yield f"{where}: a claim without analysis, or the reverse"
            if (series.stage in _ENDED) != (series.ended_at is not None):
                yield f"{where}: an end without its time, or the reverse"
            if series.stage == Stage.REPORTED.value:
                report = session.get(ReportRow, series.report_id) if series.report_id else None
                if report is None or report.revision != series.revision:
                    yield f"{where}: without a report of its revision"
                elif not (files.root / report.path).exists():
                    yield f"{where}: its report is not on disk"
                elif not session.scalar(select(func.count()).where(DeliveryRow.report_id == report.id)):
                    yield f"{where}: its report is not in the outbox"
