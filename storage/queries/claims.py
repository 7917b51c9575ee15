"""The queue between receiver and worker: claims, their leases, and how they end."""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import func, null, select, update

from storage.before import Before
from storage.database.running import MeasuredRow, UploadRow
from storage.database.schema import PROBABILITY_COLUMNS, DeliveryRow, ObjectRow, ReportRow, SeriesRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.queries.receiving import CLOCKS_DIFFER
from storage.queries.review_documents import REVIEW
from storage.queries.rows import as_series, reopen
from storage.queries.tally import count_report
from storage.queries.turns import IN_TURN, IS_READY, lowest_turn, next_turn
from storage.queries.uploads import images_of, lies_elsewhere, new_values, waits_elsewhere
from storage.records import Claim, Conclusion, ReportObject, ResultObject, Series, StoredFile
from storage.stages import DeliveryStage, Event, Stage, advance, sources

STAT_SHARE = 0.75
"""Of so many claims stat sites come first; the others are whoever's turn it is."""

_ANY_READY = select(SeriesRow.id).where(IS_READY).limit(1)


@dataclass(frozen=True)
class _Way:
    """Of the series that are ready, which are looked at, and in what order."""

    which: Sequence[Any]
    order: Sequence[Any]


def _exhausted(max_attempts: int) -> _Way:
    return _Way([SeriesRow.attempts >= max_attempts], (SeriesRow.attempts, SeriesRow.turn))


class Queue:
    """Claims on series that are ready.  Each public method is one transaction; before that of a claim is a read."""

    def __init__(self, transactions: Transactions, folder: str = "", random: Random | None = None) -> None:
        """`transactions` are those of the store's database; files lie in this `folder` or an object store ("": all here)."""
        self._transactions, self._folder, self._random = transactions, folder, random or Random()
        self.lies_here_only = False
        """True: the object store is away, and only what needs nothing of it is claimed."""

    def claim(
        self, worker: str, now: datetime, lease: timedelta, max_attempts: int, stat: Sequence[str] = ()
    ) -> Claim | None:
        """The right to analyse the series whose turn it is, a canary last; None when none waits.  The attempt is counted.

        Three claims of four, drawn by lot, are of `stat` sites (`calling_ae`) where one waits that was never tried.  By lot:
        a count would begin anew with every process that a series kills.  Not one with an image that lies in another
        folder alone.
        """
        return self._claim(self._in_turn(max_attempts, stat), worker, now, lease, max_attempts)

    def claim_exhausted(self, worker: str, now: datetime, lease: timedelta, max_attempts: int) -> Claim | None:
        """The right to report a series that failed at its last attempt.  This attempt is counted too.

        The fewest attempts first: one whose report itself kills the process does not come before the others again.
        """
        return self._claim([_exhausted(max_attempts)], worker, now, lease, max_attempts)

    def claim_next(
        self, worker: str, now: datetime, lease: timedelta, max_attempts: int, stat: Sequence[str] = ()
    ) -> Claim | None:
        """As `claim_exhausted`; where there is none, as `claim`: after the same read, in the same transaction."""
        ways = [_exhausted(max_attempts), *self._in_turn(max_attempts, stat)]
        return self._claim(ways, worker, now, lease, max_attempts)

    def _in_turn(self, max_attempts: int, stat: Sequence[str]) -> list[_Way]:
        attempts = SeriesRow.attempts + 0  # no column: SQLite would sort all that wait, not read them in turn
        way = _Way([attempts < max_attempts], IN_TURN)
        if not stat or self._random.random() >= STAT_SHARE:
            return [way]
        is_stat = [attempts == 0, SeriesRow.calling_ae.in_(stat), SeriesRow.canary.is_not(True)]
        return [_Way(is_stat, IN_TURN[1:]), way]

    def _can_be_read(self) -> list[Any]:
        lacks = lies_elsewhere if self.lies_here_only else waits_elsewhere
        return [~lacks(images_of(SeriesRow.id), self._folder)] if self._folder else []

    def _claim(
        self, ways: Sequence[_Way], worker: str, now: datetime, lease: timedelta, max_attempts: int
    ) -> Claim | None:
        """A series found in the first of these ways that finds one; the others are not tried then.

        Where none is ready, that is read and no more: most looks are in vain, and of many workers.
        """
        with self._transactions.reading() as session:
            if session.scalar(_ANY_READY) is None:
                return None
        token, can_be_read = secrets.token_hex(16), self._can_be_read()
        found = [
            select(SeriesRow.id)
            .where(IS_READY, *way.which, *can_be_read)
            .order_by(*way.order)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
            for way in ways
        ]
        claimed = (
            update(SeriesRow)
            .where(SeriesRow.id == func.coalesce(*found, null()), IS_READY)
            .values(
                stage=advance(Stage.READY, Event.CLAIMED).value,
                attempts=SeriesRow.attempts + 1,
                claim_token=token,
                claimed_by=worker,
                claimed_at=now,
                lease_until=now + lease,
            )
            .returning(SeriesRow)
        )
        with self._transactions.writing("claim") as session:
            row = session.scalars(claimed).first()
            return Claim(as_series(row), token, now + lease, row.attempts > max_attempts) if row else None

    def other_waits(self, series_id: int | None) -> bool:
        """Whether a series of a patient waits for its analysis, besides this one, if any; not one that is not claimed here."""
        ready = (SeriesRow.stage == Stage.READY.value, ~SeriesRow.canary, SeriesRow.id != (series_id or 0))
        with self._transactions.reading() as session:
            return session.scalar(select(SeriesRow.id).where(*ready, *self._can_be_read()).limit(1)) is not None

    def has_left(self, series_id: int) -> bool:
        """Whether it neither arrives nor waits for its analysis any longer: somebody has claimed it, or more."""
        with self._transactions.reading() as session:
            stage = session.scalar(select(SeriesRow.stage).where(SeriesRow.id == series_id))
        return stage not in (Stage.RECEIVING.value, Stage.READY.value)

    def give_back(self, worker: str, refund: bool, why: str = "", token: str = "") -> int:
        """What `worker` holds is READY again; with `refund` the attempt does not count.  Returns how many.

        `why` is the detail of a series until it is concluded, for the administrator.  `token`: that claim alone.
        """
        held = SeriesRow.claimed_by == worker
        return self._give_back(held & (SeriesRow.claim_token == token) if token else held, refund, why)

    def expire(self, now: datetime, longest: timedelta = timedelta(days=36_500)) -> int:
        """What is held beyond its lease is READY again; the attempt counts.  Returns how many.

        A lease that has clearly longer to go than the `longest` was given before the clock was set back: it has ended
        too.  Not one that a worker took a moment after `now` was read, or by a clock that is a little ahead of ours.
        """
        too_long = SeriesRow.lease_until > now + longest + CLOCKS_DIFFER
        return self._give_back((SeriesRow.lease_until < now) | too_long, refund=False)

    def claimants(self, before: datetime | None = None) -> set[str]:
        """The workers that hold a claim; with `before`, one that was made before this time."""
        held = select(SeriesRow.claimed_by).where(SeriesRow.stage == Stage.ANALYSING.value).distinct()
        if before is not None:
            held = held.where(SeriesRow.claimed_at < before)
        with self._transactions.reading() as session:
            return {name for name in session.scalars(held) if name}

    def _give_back(self, which: Any, refund: bool, why: str = "") -> int:
        """An attempt that counts costs the series its turn: those that its site has waiting come first.

        One that does not count had its turn, whose number may mean another turn by now: numbers begin anew where nobody waits.
        """
        held = select(SeriesRow).where(which, SeriesRow.stage == Stage.ANALYSING.value).order_by(SeriesRow.id)
        with self._transactions.writing() as session:
            rows = session.scalars(held.with_for_update()).all()
            for row in rows:
                turn = func.coalesce(lowest_turn(), row.turn) if refund else next_turn(row.calling_ae)
                row.turn = session.scalars(select(turn)).one()  # asked before the row is one of those that wait
                row.stage = advance(Stage.ANALYSING, Event.GIVEN_BACK).value
                row.claim_token = row.claimed_by = row.lease_until = None
                row.detail = why if row.outcome is None else row.detail  # with an outcome it is the report's
                row.attempts -= int(refund)
            if rows:
                wake_hosts(session, Whom.WORKERS, all_look=len(rows) > 1)
            return len(rows)

    def predecessor(self, series_id: int) -> tuple[str, StoredFile] | None:
        """UID and file of the series' latest report."""
        with self._transactions.reading() as session:
            of_series = select(ReportRow).where(ReportRow.series_id == series_id)
            row = session.scalar(of_series.order_by(ReportRow.revision.desc()).limit(1))
            return (row.sop_instance_uid, row.file) if row else None

    def before(self, series_id: int) -> Before | None:
        """What was made of the series before, "report" being the report itself; None where nothing was.

        Of a report that was reviewed its own UID and that of the newest review, which replaces it where somebody gets reviews.
        """
        of_series = ReportRow.series_id == series_id
        reports = select(ReportRow.revision, ReportRow.sop_instance_uid, ReportRow.ae_title).where(of_series)
        beside = select(ReportRow.revision, ObjectRow.id, ObjectRow.kind, ObjectRow.sop_instance_uid)
        joined = beside.join(ObjectRow, ObjectRow.report_id == ReportRow.id).where(of_series)
        with self._transactions.reading() as session:
            made = session.execute(reports.order_by(ReportRow.revision)).all()
            rows = [(revision, 0, "report", uid) for revision, uid, _ in made]
            rows += [(revision, number, kind, uid) for revision, number, kind, uid in session.execute(joined)]
        uids: dict[str, tuple[str, ...]] = {}
        for _, _, kind, uid in sorted(rows):
            replaced = kind.replace(REVIEW, "report")
            uids[replaced] = (uid,) if kind == replaced else (*uids.get(replaced, ())[:1], uid)
        return Before(uids, made[-1].ae_title) if made else None

    def finish(
        self,
        claim: Claim,
        conclusion: Conclusion,
        report: ReportObject | None,
        destinations: Sequence[str],
        now: datetime,
        beside: Sequence[ResultObject] = (),
    ) -> bool:
        """The series has ended and its report is in the outbox.  False, changing nothing, when the claim is stale.

        `report` is None where the configuration wants none for this outcome; `destinations` get it, those of `beside`
        get the objects beside it, after it.
        """
        event = Event.EXHAUSTED if claim.exhausted else Event.REPORTED
        with self._transactions.writing("report") as session:
            mine = (SeriesRow.id == claim.series.id, SeriesRow.claim_token == claim.token)
            now_as_then = (SeriesRow.stage == Stage.ANALYSING.value, SeriesRow.revision == claim.series.revision)
            row = session.scalar(select(SeriesRow).where(*mine, *now_as_then).with_for_update())
            if row is None:
                return False
            wake_hosts(session, Whom.PAGES)
            row.stage = advance(Stage(row.stage), event)
            row.outcome, row.reason, row.detail = conclusion.outcome.value, conclusion.reason, conclusion.detail
            row.claim_token = row.claimed_by = row.lease_until = None
            row.ended_at = now
            row.p_present = conclusion.probabilities[-1] if conclusion.probabilities else None
            if report is not None:
                inserted = _report_row(claim.series, conclusion, report, now)
                session.add(inserted)
                session.flush()
                row.report_id = inserted.id
                if self._folder:
                    files = [report.file, *(each.file for each in beside)]
                    session.add_all(UploadRow(**new_values(file, row.id, self._folder, now)) for file in files)
                if row.canary:  # nobody's, whoever is configured to get what comes
                    return True
                count_report(session, row, inserted)
                if conclusion.measures and conclusion.probabilities and row.revision == 1:
                    session.add(_measured_row(row.calling_ae, conclusion, now))
                session.add_all(_delivery_row(inserted.id, destination, now) for destination in destinations)
                for each in beside:
                    session.flush()
                    row_beside = ObjectRow(
                        report_id=inserted.id, kind=each.kind, sop_instance_uid=each.sop_instance_uid, **vars(each.file)
                    )
                    session.add(row_beside)
                    session.flush()
                    session.add_all(_delivery_row(inserted.id, to, now, row_beside.id) for to in each.destinations)
            return True

    def retry(self, series_id: int) -> bool:
        """The series is READY again as a new revision, behind what its site has waiting.  False when it has not ended.

        Its old report stays.
        """
        with self._transactions.writing() as session:
            row = session.get_one(SeriesRow, series_id, with_for_update=True)
            if Stage(row.stage) not in sources(Event.RETRIED):
                return False
            turn = session.scalars(select(next_turn(row.calling_ae))).one()
            row.stage = advance(Stage(row.stage), Event.RETRIED)
            ready_at, evidence = row.ready_at, row.evidence
            reopen(row)
            row.ready_at, row.evidence, row.turn = ready_at, evidence, turn
            wake_hosts(session, Whom.WORKERS)
            return True


def _report_row(series: Series, conclusion: Conclusion, report: ReportObject, now: datetime) -> ReportRow:
    top = conclusion.lesions[0] if conclusion.lesions else None
    return ReportRow(
        series_id=series.id,
        revision=series.revision,
        sop_instance_uid=report.sop_instance_uid,
        **vars(report.file),
        outcome=conclusion.outcome.value,
        reason=conclusion.reason,
        detail=conclusion.detail,
        model=conclusion.model,
        predecessor_uid=report.predecessor_uid,
        ae_title=report.ae_title,
        lesions=[asdict(lesion) for lesion in conclusion.lesions],
        top_location=top and top.location,
        diameter_mm=top and top.diameter_mm,
        limits=conclusion.limits or None,
        notify=conclusion.notify,
        threshold=conclusion.threshold,
        created_at=now,
        **{f"{step}_seconds": seconds for step, seconds in conclusion.seconds.items()},
        **dict(zip(PROBABILITY_COLUMNS, conclusion.probabilities, strict=False)),
    )


def _measured_row(calling_ae: str, conclusion: Conclusion, now: datetime) -> MeasuredRow:
    """Without a reference to the series: it says nothing of whom it was, and stays when the case is removed."""
    return MeasuredRow(
        at=now,
        site=calling_ae,
        model=conclusion.model,
        outcome=conclusion.outcome.value,
        limited=bool(conclusion.limits),
        p_present=conclusion.probabilities[-1],
        **vars(conclusion.measures),
    )


def _delivery_row(report_id: int, destination: str, now: datetime, object_id: int | None = None) -> DeliveryRow:
    what = {"report_id": report_id, "object_id": object_id, "destination": destination}
    return DeliveryRow(**what, stage=DeliveryStage.PENDING.value, created_at=now, next_attempt_at=now)
