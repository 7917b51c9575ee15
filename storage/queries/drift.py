"""What analyses measured, without whose they were, and where it has drifted; nothing of it goes with retention."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select

from storage.database.running import BaselineRow, DriftRow, MeasuredRow
from storage.database.transactions import Transactions
from storage.queries.rows import alike
from storage.records import Measured
from storage.stages import Outcome


@dataclass(frozen=True)
class Drifted:
    """`what` of a scanner is not as it was; `message` says from what to what."""

    site: str
    scanner: str
    what: str
    message: str
    noticed_at: datetime


class Drift:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def count(self) -> int:
        """How many analyses were measured."""
        with self._transactions.reading() as session:
            return session.scalar(select(func.count()).select_from(MeasuredRow)) or 0

    def measured(self) -> list[Measured]:
        """All of them in the order of time, those before the beginning of their scanner's baseline left out."""
        with self._transactions.reading() as session:
            begun = {(row.site, row.scanner): row.begun_at for row in session.scalars(select(BaselineRow))}
            rows = session.scalars(select(MeasuredRow).order_by(MeasuredRow.at, MeasuredRow.id))
            found = [Measured(**alike(Measured, row) | {"outcome": Outcome(row.outcome)}) for row in rows]
        return [each for each in found if each.at >= begun.get((each.site, each.scanner), each.at)]

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
