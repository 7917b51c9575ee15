"""Is what came of a series only a part of it, or an association only a part of what its caller had?  Pure rules.

A part is never silent: what looks like too short a series for us, and whose sender broke off, or was refused something,
is "not analysed" with the counts; and the log and `willis status` name the association.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ai.wording import counted
from node.dicom.conformance import CT_CLASSES, STORAGE_CLASSES
from node.dicom.header import is_uid
from storage.records import AssociationEnd, Ending, Missing, Series

_STANDARD_ROOT = "1.2.840.10008."
MOST_CLASSES_MEANT = 30
"""Whoever proposes more SOP classes proposes all that it knows: that one is refused says nothing of what it has."""
LONGEST_ASSOCIATION = timedelta(hours=1)
"""So long a series that is too short waits for the end of an association that brought some of it."""


@dataclass(frozen=True)
class Part:
    """What came of a series is not all of it; `detail` says why, in words and numbers of ours."""

    detail: str


def classes_not_accepted(proposed: Collection[str], refused: Collection[str]) -> tuple[str, ...]:
    """The refused storage SOP classes of a caller that proposes what it has, and not all that it knows."""
    if len(proposed) > MOST_CLASSES_MEANT:
        return ()
    are_uids = (uid for uid in refused if is_uid(uid))  # PostgreSQL holds no NUL
    return tuple(sorted(uid for uid in are_uids if uid in STORAGE_CLASSES or not uid.startswith(_STANDARD_ROOT)))


def shortfall(how: AssociationEnd, kept: int, refused: int, last_status: int, classes: Sequence[str]) -> str:
    """Why not all may have come that the caller had; "" when nothing shows that.

    `last_status` answered its last C-STORE; of its storage SOP classes, `classes` were not accepted.
    """
    numbers = f"{counted(kept, 'instance')} kept, {refused} refused"
    whys = []
    if how is not AssociationEnd.RELEASED:
        whys.append("the association was aborted")
    elif last_status:
        whys.append(f"the caller ended right after an instance was refused with 0x{last_status:04X}")
    elif refused:
        whys.append("the caller went on after what was refused")
    if classes:
        more = f" and {len(classes) - 1} more" if len(classes) > 1 else ""
        whys.append(f"SOP class {classes[0]}{more} was offered and is not accepted")
    return f"{'; '.join(whys)} ({numbers}): more may not have come" if whys else ""


def part_of(endings: Sequence[Ending], now: datetime, is_short: bool) -> Part | None:
    """Why the series, whose associations ended so, is a part; None when nothing shows that it is.

    A slice that was refused and has not come since always does.  The rest counts of a series that `is_short`, so that
    nothing else would be said of it: an association that broke off, or on which its sender offered what is not accepted
    and ended, until one that was opened later brings some of it again and is released.
    """
    came = sum(each.instances for each in endings)
    slices = counted(came, "slice")
    if refused := sum(each.refused for each in endings):
        return Part(f"{slices} came, {refused} {'was' if refused == 1 else 'were'} refused")
    for each in endings if is_short else ():
        if _is_made_good(each, endings) or _is_under_way(each, now):
            continue
        if each.closed is not AssociationEnd.RELEASED:
            how = f"was {each.closed}" if each.closed else "did not end"
            return Part(f"{slices} came, then the association {how}")
        if each.refused_classes and each.was_last:
            return Part(f"{slices} came, then the sender ended, whose other objects are not all accepted")
    return None


def is_under_way(endings: Sequence[Ending], now: datetime) -> bool:
    """Whether an association that brought some of the series may still bring more of it."""
    return any(_is_under_way(each, now) for each in endings)


def _is_under_way(ending: Ending, now: datetime) -> bool:
    return ending.closed is None and now - ending.opened_at < LONGEST_ASSOCIATION


def _is_made_good(ending: Ending, endings: Sequence[Ending]) -> bool:
    return any(
        ending.closed_at is not None
        and other.opened_at >= ending.closed_at
        and other.closed is AssociationEnd.RELEASED
        and not (other.refused_classes and other.was_last)
        for other in endings
    )


def missing(listed: Mapping[str, str], held: Collection[str]) -> Missing:
    """What is missing of the instances that a sender lists, each with its SOP class, "" where it does not say."""
    classes = [sop_class for uid, sop_class in listed.items() if uid not in held]
    return Missing(
        sum(sop_class in CT_CLASSES for sop_class in classes),
        sum(bool(sop_class) and sop_class not in CT_CLASSES for sop_class in classes),
    )


def lacking(series: Series) -> int:
    """How many instances the series lacks by its sender's count, which counts objects of any kind (PS3.4 C.3.4).

    Those that the sender says are no slices are not lacked.  Negative: more came than it knew of.
    """
    if series.expected_count is None:
        return 0
    kinds = _kinds(series)
    return series.expected_count - series.instance_count - (kinds.others if kinds else 0)


def was_asked_kinds(series: Series) -> bool:
    """Whether the sender was asked of which kind what is missing is, since the last instance came."""
    return series.kinds_asked_at is not None and series.kinds_asked_at > series.last_instance_at


def is_doubtful(series: Series) -> bool:
    """Whether all that the series lacks is of a kind that its sender does not say: slices, or other objects."""
    kinds = _kinds(series)
    return lacking(series) > 0 and kinds is not None and not kinds.slices


def _kinds(series: Series) -> Missing | None:
    """What the sender has said of what is missing since the last instance came."""
    return series.missing if was_asked_kinds(series) else None
