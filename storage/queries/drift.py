"""What analyses measured, without whose they were, and where it has drifted; nothing of it goes with retention."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, or_, select

from storage.database.running import BaselineRow, DriftRow, MeasuredRow
from storage.database.transactions import Transactions
from storage.queries.rows import alike
from storage.records import Measured
from storage.stages import Outcome

_MEASURED = [each.name for each in fields(Measured)]
_COLUMNS = [getattr(MeasuredRow, name) for name in _MEASURED]
"""Not whole rows: a year of cases in a moment."""


@dataclass(frozen=True)
class Drifted:
    """`what` of a scanner is not as it was; `message` says from what to what."""

    site: str
    scanner: str
    what: str
    message: str
    noticed_at: datetime


@dataclass(frozen=True)
class ScannerCases:
    """A scanner's cases since its baseline began: how many, and of them within its first weeks; the first and the last."""

    site: str
    scanner: str
    count: int
    within: int
    first_at: datetime
    last_at: datetime


class Drift:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def scanners(self, weeks: float) -> list[ScannerCases]:
        """Each in the order of site and scanner, counted by the database: no case is read."""
        of_it = and_(BaselineRow.site == MeasuredRow.site, BaselineRow.scanner == MeasuredRow.scanner)
        counted = (
            select(
                MeasuredRow.site, MeasuredRow.scanner, func.count(), func.min(MeasuredRow.at), func.max(MeasuredRow.at)
            )
            .join(BaselineRow, of_it, isouter=True)
            .where(or_(BaselineRow.begun_at.is_(None), MeasuredRow.at >= BaselineRow.begun_at))
            .group_by(MeasuredRow.site, MeasuredRow.scanner)
        )
        found = []
        with self._transactions.reading() as session:
            for site, scanner, count, first_at, last_at in session.execute(counted).all():
                of_it = and_(MeasuredRow.site == site, MeasuredRow.scanner == scanner, MeasuredRow.at >= first_at)
                early = select(func.count()).where(of_it, MeasuredRow.at < first_at + timedelta(weeks=weeks))
                within = session.scalar(early) or 0
                found.append(ScannerCases(site, scanner, count, within, first_at, last_at))
        return sorted(found, key=lambda each: (each.site, each.scanner))  # no server's collation: they are numbered so

    def measured(self, site: str | None = None, scanner: str | None = None) -> list[Measured]:
        """All of them, or a scanner's, in the order of time, those before the beginning of its baseline left out."""
        asked = select(*_COLUMNS).order_by(MeasuredRow.at, MeasuredRow.id)
        if site is not None:
            asked = asked.where(MeasuredRow.site == site, MeasuredRow.scanner == scanner)
        with self._transactions.reading() as session:
            begun = {(row.site, row.scanner): row.begun_at for row in session.scalars(select(BaselineRow))}
            found = [_measured(row) for row in session.execute(asked)]
        return [each for each in found if each.at >= begun.get((each.site, each.scanner), each.at)]

    def first_and_last(self, of: ScannerCases, first: int, last: int) -> list[Measured]:
        """So many of the scanner's first cases and of its last, without those between, in the order of time."""
        mine = (
            MeasuredRow.site == of.site,
            MeasuredRow.scanner == of.scanner,
            MeasuredRow.at.between(of.first_at, of.last_at),
        )
        asked = select(*_COLUMNS).where(*mine)
        with self._transactions.reading() as session:
            baseline = session.execute(asked.order_by(MeasuredRow.at, MeasuredRow.id).limit(first)).all()
            newest = session.execute(asked.order_by(MeasuredRow.at.desc(), MeasuredRow.id.desc()).limit(last)).all()
        return [_measured(row) for row in (*baseline, *reversed(newest))]

    def add(self, measured: Sequence[Measured]) -> None:
        """They are kept too."""
        with self._transactions.writing() as session:
            session.add_all(MeasuredRow(**{**vars(each), "outcome": each.outcome.value}) for each in measured)

    def accept(self, site: str, scanner: str, now: datetime) -> None:
        """What comes from now on is the scanner's baseline, and nothing of it has drifted."""
        with self._transactions.writing() as session:
            for table in (BaselineRow, DriftRow):
                session.execute(delete(table).where(table.site == site, table.scanner == scanner))
            session.add(BaselineRow(site=site, scanner=scanner, begun_at=now))

    def drifted(self) -> list[Drifted]:
        """What has drifted, as far as was last noticed."""
        with self._transactions.reading() as session:
            return [Drifted(**alike(Drifted, row)) for row in session.scalars(select(DriftRow).order_by(DriftRow.id))]

    def notice(self, now_drifted: Sequence[Drifted]) -> None:
        """These have drifted now, and no others; what had before keeps its time."""
        known = {(each.site, each.scanner, each.what): each.noticed_at for each in self.drifted()}
        with self._transactions.writing() as session:
            session.execute(delete(DriftRow))
            for each in now_drifted:
                since = known.get((each.site, each.scanner, each.what), each.noticed_at)
                session.add(DriftRow(**vars(each) | {"noticed_at": since}))


def _measured(row: Sequence[Any]) -> Measured:
    values = dict(zip(_MEASURED, row, strict=True))
    return Measured(**values | {"outcome": Outcome(values["outcome"])})
