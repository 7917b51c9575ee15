"""The table.  Every row is one situation; what is common to several is made in `tests.corpus.images`."""

from dataclasses import replace

from tests.corpus.situation import Situation
from tests.corpus.table import acquisitions, kinds, order, parts, values

_NOT_YET = {
    "two interleaved passes in one series",
    "two phases at the same places in one series",
    "two phases of one Enhanced CT instance",
    "two tube voltages in one series",
    "two kernels in one series",
    "a plain head and its angiography in one series",
    "three acquisitions in one series, one with a gap",
    "two acquisitions in one series, both broken",
    "a perfusion of six time points in one series",
    "a perfusion of thick slices",
    "slices of the bolus tracking in the angiography's series",
    "thick and thin slices of one pass in one series",
    "MR slice first in the series",
    "MR slice last in the series",
    "every kind of stray among the slices",
    "one sagittal slice without a word about it",
    "5 mm slices every 1 mm",
    "padding in patient, kernel, voltage and Image Type of some slices",
    "more functional groups than frames",
    "fewer functional groups than frames",
}

SITUATIONS: tuple[Situation, ...] = tuple(
    replace(each, not_yet="to be made right") if each.name in _NOT_YET else each
    for each in (
        *acquisitions.SITUATIONS,
        *order.SITUATIONS,
        *kinds.SITUATIONS,
        *parts.SITUATIONS,
        *values.SITUATIONS,
    )
)
