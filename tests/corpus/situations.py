"""The table.  Every row is one situation; what is common to several is made in `tests.corpus.images`."""

from tests.corpus.situation import Situation
from tests.corpus.table import acquisitions, kinds, order, parts, studies, values

SITUATIONS: tuple[Situation, ...] = (
    *acquisitions.SITUATIONS,
    *order.SITUATIONS,
    *kinds.SITUATIONS,
    *parts.SITUATIONS,
    *studies.SITUATIONS,
    *values.SITUATIONS,
)
