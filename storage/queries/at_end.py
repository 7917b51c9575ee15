"""How many series and deliveries stand at an end: a sum of changes, so that nobody counts millions.

Triggers add a row of +1 or -1 for each one that reaches or leaves an end (`storage.database.at_end`), in the transaction in
which it does: the sum is exact whatever writes, and no two transactions wait for each other at a row.
"""

from collections import Counter

from sqlalchemy import delete, func, insert, select

from storage.database.running import AtEndRow
from storage.database.transactions import Transactions

FEW = 500
"""So many rows are summed in no time."""
_AT_ONCE = 20_000


class AtEnd:
    """Each public method is one transaction.  The sums are read by `storage.queries.worklist`."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def fold(self) -> int:
        """The oldest rows, where there are many, are one of each stage that says the same; returns how many fewer there are."""
        with self._transactions.reading() as session:
            if (session.scalar(select(func.count()).select_from(AtEndRow)) or 0) <= FEW:
                return 0
        oldest = select(AtEndRow.id).order_by(AtEndRow.id).limit(_AT_ONCE).with_for_update(skip_locked=True)
        gone = delete(AtEndRow).where(AtEndRow.id.in_(oldest))
        sums, before = Counter[tuple[str, str]](), 0
        with self._transactions.writing() as session:
            for what, stage, number in session.execute(gone.returning(AtEndRow.what, AtEndRow.stage, AtEndRow.number)):
                sums[what, stage] += number
                before += 1
            folded = [{"what": what, "stage": stage, "number": sums[what, stage]} for what, stage in sums]
            if folded:
                session.execute(insert(AtEndRow), folded)
        return before - len(folded)
