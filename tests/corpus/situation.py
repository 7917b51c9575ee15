"""What a hospital may send, as data: where the situation is known from, how it is made, and how every series must end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset


@dataclass(frozen=True)
class Sending:
    """The instances of one association, in the order in which they are sent.

    `aborted`: the sender aborts after the last one instead of releasing.  `then_ends`: what was sent so far has ended
    before the next association begins.
    """

    instances: Sequence[Dataset]
    aborted: bool = False
    then_ends: bool = False


@dataclass(frozen=True)
class Situation:
    """`ends`: of each series in the order in which their first instances came, as outcome and reason.

    `says`: words that the worklist's detail of one of them must hold.
    """

    name: str
    source: str
    made: Callable[[], Sequence[Sending]]
    ends: tuple[str, ...]
    says: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The ends in one line."""
        return " | ".join(self.ends)


@dataclass(frozen=True)
class End:
    """How the series of a situation ended."""

    ends: tuple[str, ...]
    details: tuple[str, ...]
    seconds: float

    @property
    def measured(self) -> str:
        """The ends in one line."""
        return " | ".join(self.ends)

    def is_right(self, situation: Situation) -> bool:
        """As the situation must end."""
        details = "; ".join(self.details)
        return self.ends == situation.ends and all(words in details for words in situation.says)


def end_of(row: Mapping[str, Any]) -> str:
    """Outcome and reason of a row of the worklist, and whether the report is missing that it should have."""
    end = ": ".join(filter(None, (row["outcome"] or row["stage"], row["reason"])))
    is_silent = row["outcome"] in ("positive", "negative", "not_analysed") and row["report_uid"] is None
    return f"{end}, no report" if is_silent else end


_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "AcquisitionUID")


def study_root(number: int) -> str:
    """What all UIDs of the situation that was played as this one begin with."""
    return f"2.25.{990_000 + number}."


def of_its_own(instances: Sequence[Dataset], number: int) -> list[Dataset]:
    """The instances, changed: under UIDs and patients that only this situation has."""
    root = study_root(number)
    for ds in instances:
        for keyword in _UIDS:
            if (value := ds.get(keyword)) and not value.startswith(root):
                setattr(ds, keyword, root + value.removeprefix("2.25."))
        if "P-" in ds.get("PatientID", ""):
            ds.PatientID = ds.PatientID.replace("P-", f"{number}P")
    return list(instances)
