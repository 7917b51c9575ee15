"""A peer whose every query is in the audit trail."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from pydicom.dataset import Dataset

from node.net.requestor import Keep
from node.scu.source import Listed, Source, identifier, study_query

Asking = Callable[[Dataset], AbstractContextManager[None]]
"""Within it the peer is asked what the Identifier of a C-FIND asks for, be it by QIDO-RS; `audit.recording.asking`."""


class AuditedSource:
    """A `query_scu.Source` that asks another one.  What that gives, the `retrieval.Inlet` records."""

    def __init__(self, source: Source, asking: Asking) -> None:
        """`asking` records what `source` asks."""
        self._source, self._asking = source, asking

    def studies(self, *, accession_number: str = "", study_instance_uid: str = "") -> list[str]:
        """See Source."""
        with self._asking(study_query(accession_number, study_instance_uid)):
            return self._source.studies(accession_number=accession_number, study_instance_uid=study_instance_uid)

    def series(self, study_instance_uid: str) -> list[Listed]:
        """See Source."""
        with self._asking(identifier("SERIES", StudyInstanceUID=study_instance_uid)):
            return self._source.series(study_instance_uid)

    def instances(self, series: Listed) -> dict[str, str]:
        """See Source."""
        with self._asking(identifier("IMAGE", **series.uids)):
            return self._source.instances(series)

    def retrieve(self, series: Listed, wanted: Collection[str], keep: Keep, on_done: Callable[[int], None]) -> None:
        """See Source."""
        self._source.retrieve(series, wanted, keep, on_done)
