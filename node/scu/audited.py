"""A peer whose every query is in the audit trail."""

from collections.abc import Callable, Collection

from node.audit.recording import Clock, asking
from node.audit.trail import Trail
from node.config.peer import Peer
from node.scu.source import Keep, Listed, Source, identifier


class AuditedSource:
    """A `query_scu.Source` that asks another one.  What that gives, the `retrieval.Inlet` records."""

    def __init__(self, source: Source, peer: Peer, trail: Trail, clock: Clock) -> None:
        """`source` asks the `peer`."""
        self._source, self._peer, self._trail, self._clock = source, peer, trail, clock

    def studies(self, *, accession_number: str = "", study_instance_uid: str = "") -> list[str]:
        """See Source."""
        keys = {"AccessionNumber": accession_number} if accession_number else {}
        with asking(
            self._trail, self._clock, self._peer, identifier("STUDY", StudyInstanceUID=study_instance_uid, **keys)
        ):
            return self._source.studies(accession_number=accession_number, study_instance_uid=study_instance_uid)

    def series(self, study_instance_uid: str) -> list[Listed]:
        """See Source."""
        with asking(self._trail, self._clock, self._peer, identifier("SERIES", StudyInstanceUID=study_instance_uid)):
            return self._source.series(study_instance_uid)

    def instances(self, series: Listed) -> frozenset[str]:
        """See Source."""
        query = identifier(
            "IMAGE", StudyInstanceUID=series.study_instance_uid, SeriesInstanceUID=series.series_instance_uid
        )
        with asking(self._trail, self._clock, self._peer, query):
            return self._source.instances(series)

    def retrieve(self, series: Listed, wanted: Collection[str], keep: Keep, on_done: Callable[[int], None]) -> None:
        """See Source."""
        self._source.retrieve(series, wanted, keep, on_done)
