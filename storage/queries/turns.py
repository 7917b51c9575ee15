"""Whose series is analysed next: those that are ready are claimed turn by turn, and each site has one series in a turn.

A site is what `calling_ae` names.  A series that becomes ready gets the turn after the last that its site waits in;
where its site has none waiting, the turn after the lowest in which anybody waits.  So nothing is added to the turn that
is being claimed or to one before it: every turn ends.  Who has nothing else waiting meets at most what is left of that
turn and the one after it: two series of each other site, whatever they have behind these.  What is given back without
having failed had its turn: it waits in the one that is being claimed, where it has waited longest.  No clock and no table of
sites is in it, and no row that claims of several workers share.
"""

from typing import Any

from sqlalchemy import ScalarSelect, func, literal_column, select
from sqlalchemy.orm import aliased

from storage.database.schema import SeriesRow

IS_READY = SeriesRow.stage == literal_column("'ready'")
"""As the partial indexes `ix_series_ready_…` have it: with a parameter neither database would use them."""
IN_TURN = (SeriesRow.canary, SeriesRow.turn, SeriesRow.ready_at)
"""The order of claims: a canary last, and within a turn who has waited longest."""


def lowest_turn() -> ScalarSelect[Any]:
    """In SQL, the lowest turn in which anybody waits: the one that is being claimed."""
    waiting = aliased(SeriesRow)
    is_ready = waiting.stage == literal_column("'ready'")
    return select(func.min(waiting.turn)).where(is_ready, ~waiting.canary).scalar_subquery()


def next_turn(calling_ae: str) -> ScalarSelect[Any]:
    """In SQL, the turn of a series of this site that becomes ready now."""
    waiting = aliased(SeriesRow)  # else the subqueries would be about the row that is changed
    is_ready = waiting.stage == literal_column("'ready'")
    of_site = select(func.max(waiting.turn)).where(is_ready, waiting.calling_ae == calling_ae).scalar_subquery()
    return select(func.coalesce(of_site, lowest_turn(), 0) + 1).scalar_subquery()
