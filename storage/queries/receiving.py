"""What is known of series that are still being received, and how they leave that stage."""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Update, func, literal_column, select, union, update
from sqlalchemy.orm import Session

from storage.database.schema import AssociationRow, InstanceRow, ObjectRow, RefusalRow, ReportRow, SeriesRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom
from storage.queries.rows import as_series
from storage.queries.turns import next_turn
from storage.queries.uploads import images_of, waits_elsewhere
from storage.records import AssociationEnd, Contribution, Ending, Header, Missing, Series, StoredFile
from storage.stages import Event, Outcome, Stage, advance

CLOCKS_DIFFER = timedelta(seconds=5)
"""Between two hosts; more than that and the clock was set back."""
_RECEIVING = SeriesRow.stage == Stage.RECEIVING.value
_OF_SEVERAL = SeriesRow.instance_count > literal_column("1")
"""As the index `ix_series_calling_ae` has it: who sends series of one instance has none there."""


class Settling:
    """The evidence for completion.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; files lie in this `folder` or an object store ("": all here)."""
        self._transactions = transactions
        self._can_be_read = [~waits_elsewhere(images_of(SeriesRow.id), folder)] if folder else []

    def receiving(self) -> list[Series]:
        """The series that are still being received, the longest quiet first; none that is empty (`forget_instance`).

        Nor one with an image that lies in another folder alone: there it is looked at.
        """
        with self._transactions.reading() as session:
            some = select(SeriesRow).where(_RECEIVING, SeriesRow.instance_count > 0, *self._can_be_read)
            return [as_series(row) for row in session.scalars(some.order_by(SeriesRow.last_instance_at))]

    def contributions(self, series_id: int) -> list[Contribution]:
        """The associations that brought the series' instances."""
        with self._transactions.reading() as session:
            rows = session.execute(
                select(AssociationRow.id, func.count(), AssociationRow.closed)
                .join(InstanceRow, InstanceRow.association_id == AssociationRow.id)
                .where(InstanceRow.series_id == series_id)
                .group_by(AssociationRow.id)
                .order_by(AssociationRow.id)
            )
            return [Contribution(id_, count, AssociationEnd(closed) if closed else None) for id_, count, closed in rows]

    def endings(self, series: Series, sop_classes: Collection[str]) -> list[Ending]:
        """How the associations ended that brought the series, or the last part of it again, in the order of their opening.

        Instances of other than these classes that were refused do not count.
        """
        with self._transactions.reading() as session:
            brought = select(InstanceRow.association_id).where(InstanceRow.series_id == series.id)
            again = select(SeriesRow.sent_again_by).where(
                SeriesRow.id == series.id, SeriesRow.sent_again_by.is_not(None)
            )
            # A union: of two IN with OR between them PostgreSQL reads all associations.
            mine = AssociationRow.id.in_(union(brought, again))
            rows = session.scalars(select(AssociationRow).where(mine).order_by(AssociationRow.id))
            return [_ending(session, series, row, sop_classes) for row in rows.all()]

    def instances(self, series_id: int) -> list[tuple[Header, StoredFile]]:
        """The series' instances in the order in which they came."""
        return [(header, file) for _, header, file in self.instances_since(series_id)]

    def instances_since(
        self, series_id: int, after: int = 0, most: int | None = None
    ) -> list[tuple[int, Header, StoredFile]]:
        """The next instances that came after the one with the number `after`, each with its number, at most so many.

        Where several receivers write to one database a number may become visible late: then it is not among them.
        """
        with self._transactions.reading() as session:
            since = select(InstanceRow).where(InstanceRow.series_id == series_id, InstanceRow.id > after)
            rows = session.scalars(since.order_by(InstanceRow.id).limit(most))
            return [(row.id, Header.from_json(row.header), row.file) for row in rows]

    def holds_a_result_of_ours(self, series_id: int) -> bool:
        """Whether a report of ours, or an object beside one, came back as an instance of the series."""
        mine = select(InstanceRow.id).where(InstanceRow.series_id == series_id).limit(1)
        with self._transactions.reading() as session:
            return any(
                session.scalar(mine.join(table, table.sop_instance_uid == InstanceRow.sop_instance_uid))
                for table in (ObjectRow, ReportRow)
            )

    def siblings(self, series: Series) -> list[Series]:
        """The other series of the same acquisition of the same study.

        A series that does not tell its acquisition has none, and an empty one is nobody's.
        """
        with self._transactions.reading() as session:
            mine = session.get_one(SeriesRow, series.id)
            if not mine.acquisition_key:
                return []
            rows = session.scalars(
                select(SeriesRow)
                .where(
                    SeriesRow.study_instance_uid == mine.study_instance_uid,
                    SeriesRow.acquisition_key == mine.acquisition_key,
                    SeriesRow.id != series.id,
                    SeriesRow.instance_count > 0,
                )
                .order_by(SeriesRow.id)
            ).all()
            return [as_series(row) for row in rows]

    def headers(self, series_id: int) -> list[Header]:
        """Those of its instances."""
        headers = select(InstanceRow.header).where(InstanceRow.series_id == series_id).order_by(InstanceRow.id)
        with self._transactions.reading() as session:
            return [Header.from_json(values) for values in session.scalars(headers)]

    def last_instance_in_study(self, study_instance_uid: str) -> datetime:
        """When the latest slice of any series of the study arrived."""
        with self._transactions.reading() as session:
            latest = select(func.max(SeriesRow.last_instance_at))
            return session.scalars(latest.where(SeriesRow.study_instance_uid == study_instance_uid)).one()

    def habits(self, calling_ae: str, last: int) -> list[tuple[int, int]]:
        """(revision, associations that contributed) of the last settled series of a peer, newest first."""
        with self._transactions.reading() as session:
            # Between, not equal: else PostgreSQL may go through the series of all peers, in the order of their ids.
            settled = (SeriesRow.calling_ae.between(calling_ae, calling_ae), ~_RECEIVING, _OF_SEVERAL)
            newest = (SeriesRow.calling_ae.desc(), SeriesRow.id.desc())
            recent = select(SeriesRow.id, SeriesRow.revision).where(*settled).order_by(*newest).limit(last)
            count = func.count(func.distinct(InstanceRow.association_id))
            return [
                (revision, session.scalar(select(count).where(InstanceRow.series_id == id_)) or 0)
                for id_, revision in session.execute(recent).all()
            ]

    def note_expected_count(self, series_id: int, expected: int | None, now: datetime) -> None:
        """The sender was asked how many instances the series has; None when it gave no answer."""
        asked = update(SeriesRow).where(SeriesRow.id == series_id).values(expected_count=expected, count_asked_at=now)
        self._transactions.change(asked)

    def note_kinds(self, series_id: int, missing: Missing | None, now: datetime) -> None:
        """The sender was asked of which kinds what is missing is; None when it gave no answer."""
        slices, others = (missing.slices, missing.others) if missing else (None, None)
        kinds = {"missing_slices": slices, "missing_others": others, "kinds_asked_at": now}
        self._transactions.change(update(SeriesRow).where(SeriesRow.id == series_id).values(**kinds))

    def held(self, series_instance_uid: str) -> frozenset[str]:
        """The SOP Instance UIDs that are known of a series."""
        of_series = select(InstanceRow.sop_instance_uid).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        with self._transactions.reading() as session:
            return frozenset(session.scalars(of_series.where(SeriesRow.series_instance_uid == series_instance_uid)))

    def begin_retrieval(self, series: Series, until: datetime) -> bool:
        """One more retrieval of what the series lacks was begun, and may run `until`.

        False, changing nothing, when another was begun, or the series left RECEIVING, since `series` was read.
        """
        begun = _of_receiving(series).where(SeriesRow.retrievals == series.retrievals)
        return self._transactions.change(begun.values(retrievals=series.retrievals + 1, retrieve_until=until)) == 1

    def end_retrieval(self, series: Series, retrievals: int, until: datetime) -> None:
        """It counts as so many, and the next one waits `until`.  Not where the series left RECEIVING meanwhile."""
        self._transactions.change(_of_receiving(series).values(retrievals=retrievals, retrieve_until=until))

    def resume_retrievals(self, now: datetime) -> int:
        """What a node that has ended was retrieving, or waited to, may be asked for again `now`; returns how many series."""
        waiting = update(SeriesRow).where(_RECEIVING, SeriesRow.retrieve_until > now)
        return self._transactions.change(waiting.values(retrieve_until=now))

    def stamp_anew(self, clock: Callable[[], datetime]) -> int:
        """What is being received and arrived in the future, because the clock was set back, arrived now: how many.

        The clock is read when the database has let us in: slices that came while we waited for its lock came before.
        """
        with self._transactions.writing_plainly() as connection:
            now = clock()
            in_the_future = update(SeriesRow).where(_RECEIVING, SeriesRow.last_instance_at > now + CLOCKS_DIFFER)
            return connection.execute(in_the_future.values(last_instance_at=now, retrieve_until=None)).rowcount

    def leave(
        self,
        series: Series,
        event: Event,
        evidence: str,
        now: datetime,
        outcome: Outcome | None = None,
        reason: str = "",
        detail: str = "",
    ) -> bool:
        """The series is READY for the worker (SETTLED), or has ended without analysis and without report (SET_ASIDE).

        READY with an outcome: the worker only reports it.  False, changing nothing, when a slice came since `series`
        was read.  Raises IllegalTransition for any other event.
        """
        stage = advance(Stage.RECEIVING, event)
        decided: dict[str, Any] = {"stage": stage.value, "evidence": evidence, "reason": reason, "detail": detail}
        if stage is Stage.READY:
            decided["turn"] = next_turn(series.calling_ae)
        left = (
            _of_receiving(series)
            .where(SeriesRow.instance_count == series.instance_count)
            .values(
                **decided,
                ready_at=now,
                outcome=outcome.value if outcome else None,
                ended_at=now if stage is Stage.SET_ASIDE else None,
                retrievals=0,
                retrieve_until=None,
            )
        )
        wakes = Whom.WORKERS if stage is Stage.READY else Whom.PAGES
        return self._transactions.change(left, "settling", wakes=wakes) == 1


def _of_receiving(series: Series) -> Update:
    """An UPDATE of the row while it is still in the revision of `series`, which has not ended."""
    return update(SeriesRow).where(SeriesRow.id == series.id, _RECEIVING, SeriesRow.revision == series.revision)


def _ending(session: Session, series: Series, row: AssociationRow, sop_classes: Collection[str]) -> Ending:
    last = session.scalars(
        select(InstanceRow.series_id)
        .where(InstanceRow.association_id == row.id)
        .order_by(InstanceRow.id.desc())
        .limit(1)
    ).first()
    mine = InstanceRow.association_id == row.id, InstanceRow.series_id == series.id
    was_last = last in (None, series.id)
    came = select(InstanceRow.id).where(InstanceRow.sop_instance_uid == RefusalRow.sop_instance_uid).exists()
    refused = (
        select(func.count(func.distinct(RefusalRow.sop_instance_uid)))
        .where(
            RefusalRow.association_id == row.id,
            RefusalRow.series_instance_uid.in_([series.series_instance_uid, *([""] if was_last else [])]),
            RefusalRow.sop_class_uid.in_(list(sop_classes)),
            ~came,
        )
    )  # fmt: skip
    return Ending(
        row.opened_at,
        row.closed_at,
        AssociationEnd(row.closed) if row.closed else None,
        session.scalar(select(func.count()).where(*mine)) or 0,
        was_last,
        session.scalar(refused) or 0,
        tuple(filter(None, row.refused_classes.split(","))),
    )
