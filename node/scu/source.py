"""A peer that gives instances when it is asked."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from node.net.requestor import Keep


@dataclass(frozen=True)
class Listed:
    """A series as a peer lists it."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str = ""

    @property
    def uids(self) -> dict[str, str]:
        """The keys of a query that is about it."""
        return {"StudyInstanceUID": self.study_instance_uid, "SeriesInstanceUID": self.series_instance_uid}


class Source(Protocol):
    """A peer that can be asked and that gives.  Every method raises Unavailable or Refused."""

    def studies(self, *, accession_number: str = "", study_instance_uid: str = "") -> list[str]:
        """The Study Instance UIDs that match."""

    def series(self, study_instance_uid: str) -> list[Listed]:
        """The series of the study."""

    def instances(self, series: Listed) -> dict[str, str]:
        """The SOP class of each instance of the series by its SOP Instance UID; "" where the peer does not say."""

    def retrieve(self, series: Listed, wanted: Collection[str], keep: Keep, on_done: Callable[[int], None]) -> None:
        """The peer has sent what it could of `wanted` (empty: of all); what we know is in the database.

        Where the instances come on this side's own association, each is given to `keep`.  `on_done` gets how many
        are done.
        """


def study_query(accession_number: str, study_instance_uid: str) -> Dataset:
    """The Identifier that asks for studies."""
    keys = {"AccessionNumber": accession_number} if accession_number else {}
    return identifier("STUDY", StudyInstanceUID=study_instance_uid, **keys)


def count_query(study_instance_uid: str, series_instance_uid: str) -> Dataset:
    """The Identifier that asks how many instances a series has (PS3.4 C.6.2)."""
    return identifier(
        "SERIES", **Listed(study_instance_uid, series_instance_uid).uids, NumberOfSeriesRelatedInstances=None
    )


def identifier(level: str, **keys: str | list[str] | None) -> Dataset:
    """The Identifier of a query at this level."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query
