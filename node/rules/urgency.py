"""Which case a radiologist should open next: one table and one product.  Pure.

The order is a working rule, not a measured risk.  Its weights follow the order of what raises the risk of rupture in
PHASES (Greving et al., Lancet Neurol 2014): the larger the aneurysm, and MCA above ICA, ACom, PCom, ACA and the posterior
circulation above both.
"""

from datetime import datetime, timedelta
from enum import IntEnum

from ai.locations import Location

SIZES_MM = ((3.0, 0.6), (5.0, 0.8), (7.0, 1.0), (10.0, 1.4), (20.0, 1.8))
"""Below so many mm, this weight; from the last on `LARGEST`."""
LARGEST = 2.2
UNKNOWN_SIZE = 1.0
SITES = {
    Location.LEFT_INFRACLINOID_ICA: 0.8,
    Location.RIGHT_INFRACLINOID_ICA: 0.8,
    Location.LEFT_SUPRACLINOID_ICA: 1.0,
    Location.RIGHT_SUPRACLINOID_ICA: 1.0,
    Location.LEFT_MCA: 1.2,
    Location.RIGHT_MCA: 1.2,
    Location.ACOM: 1.4,
    Location.LEFT_ACA: 1.4,
    Location.RIGHT_ACA: 1.4,
    Location.LEFT_PCOM: 1.4,
    Location.RIGHT_PCOM: 1.4,
    Location.BASILAR_TIP: 1.4,
    Location.OTHER_POSTERIOR: 1.4,
}
UNKNOWN_SITE = 1.0
_SITES_BY_NAME = {location.value: weight for location, weight in SITES.items()}
WAITING_DOUBLES_AFTER = timedelta(minutes=60)
LONGEST_WAIT = timedelta(hours=12)
"""What waits for longer counts as if it waited so long."""
NOT_ANALYSED_P = 0.5
"""Nobody has looked at it: it may be either."""


class Group(IntEnum):
    """What comes before what, whatever the product says: the `priority` of the view `worklist`."""

    POSITIVE = 1
    NOT_ANALYSED = 2
    IN_WORK = 3
    NEGATIVE = 4
    NOT_LOOKED_FOR = 5


def urgency(p_present: float | None, diameter_mm: float | None, location: str | None, waiting: timedelta) -> float:
    """P × size × site × waiting: how soon the case should be looked at, beside the others of its group.

    `waiting`: since the last slice came.  Waiting weighs 1 at first and grows by 1 for each `WAITING_DOUBLES_AFTER`.
    """
    p = NOT_ANALYSED_P if p_present is None else p_present
    return p * size_weight(diameter_mm) * site_weight(location) * waiting_weight(waiting)


def size_weight(diameter_mm: float | None) -> float:
    """The weight of an aneurysm's size."""
    if diameter_mm is None:
        return UNKNOWN_SIZE
    return next((weight for below, weight in SIZES_MM if diameter_mm < below), LARGEST)


def site_weight(location: str | None) -> float:
    """The weight of the vessel that bears it."""
    return _SITES_BY_NAME.get(location or "", UNKNOWN_SITE)


def waiting_weight(waiting: timedelta) -> float:
    """The weight of the time since the last slice; a clock that was set back counts as no time."""
    return 1.0 + min(max(waiting, timedelta()), LONGEST_WAIT) / WAITING_DOUBLES_AFTER


def rank(
    group: int,
    p_present: float | None,
    diameter_mm: float | None,
    location: str | None,
    last_instance_at: datetime,
    now: datetime,
) -> tuple[int, float]:
    """What cases are sorted by, the most urgent first: its group, then the product."""
    return group, -urgency(p_present, diameter_mm, location, now - last_instance_at)
