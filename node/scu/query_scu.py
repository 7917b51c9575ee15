"""The Query/Retrieve SCU: what a peer holds, and how its instances come to us (PS3.4 C)."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from ai.wording import unpadded
from node.config.peer import Peer
from node.dicom import status as dimse_status
from node.dicom.conformance import IMAGE_CLASSES, TRANSFER_SYNTAXES
from node.errors import Busy, Refused, Unavailable
from node.net.requestor import Keep, Requestor
from node.scu import dimse
from node.scu.dimse import Entity
from node.scu.source import Listed, count_query, identifier, study_query

FIND, MOVE = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove
GET = StudyRootQueryRetrieveInformationModelGet
_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_TRANSIENT = (
    dimse_status.OUT_OF_RESOURCES, dimse_status.UNABLE_TO_COUNT_MATCHES, dimse_status.SUBOPERATIONS_FAILED,
    dimse_status.CANCELLED,
)  # fmt: skip
_LOW_PRIORITY = 2
UIDS_IN_A_REQUEST = 100


class DimseSource:
    """A peer that is asked by C-FIND and gives by C-MOVE or C-GET, as its `retrieve` says."""

    def __init__(self, entity: Entity, peer: Peer, limit_seconds: float) -> None:
        """What is still under way after `limit_seconds` is aborted."""
        self._entity, self._peer, self._deadline = entity, peer, time.monotonic() + limit_seconds

    def studies(self, *, accession_number: str = "", study_instance_uid: str = "") -> list[str]:
        """See Source."""
        query = study_query(accession_number, study_instance_uid)
        return [str(found.StudyInstanceUID) for found in self._find(query, "StudyInstanceUID")]

    def series(self, study_instance_uid: str) -> list[Listed]:
        """See Source."""
        query = identifier("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID="", Modality="")
        return [
            Listed(study_instance_uid, str(found.SeriesInstanceUID), str(found.get("Modality") or ""))
            for found in self._find(query, "SeriesInstanceUID")
        ]

    def instances(self, series: Listed) -> dict[str, str]:
        """See Source."""
        query = identifier("IMAGE", **series.uids, SOPInstanceUID="", SOPClassUID="")
        return {
            str(found.SOPInstanceUID): str(found.get("SOPClassUID") or "")
            for found in self._find(query, "SOPInstanceUID")
        }

    def _find(self, query: Dataset, key: str) -> Iterator[Dataset]:
        """The answers that have the unique key of their level."""
        with self._association(FIND) as (assoc, context):
            for answer, found in assoc.ask(_request(C_FIND(), FIND), context, query):
                _check("C-FIND", answer.Status, self._peer, self._entity)
                if found is not None and found.get(key):
                    yield found

    def retrieve(self, series: Listed, wanted: Collection[str], keep: Keep, on_done: Callable[[int], None]) -> None:
        """See Source."""
        queries = [identifier("IMAGE", **series.uids, SOPInstanceUID=part) for part in _parts(wanted)]
        for number, query in enumerate(queries or [identifier("SERIES", **series.uids)]):
            for done in self._sent_of(query, keep):
                on_done(number * UIDS_IN_A_REQUEST + done)

    def _sent_of(self, query: Dataset, keep: Keep) -> Iterator[int]:
        """How many the peer has sent so far."""
        request, model, service = _request(C_GET(), GET), GET, "C-GET"
        if self._peer.retrieve != "get":
            request, model, service = _request(C_MOVE(), MOVE), MOVE, "C-MOVE"
            request.MoveDestination = self._entity.ae_title
        with self._association(model, keep if model is GET else None) as (assoc, context):
            for answer, _ in assoc.ask(request, context, query):
                _check(service, answer.Status, self._peer, self._entity)
                yield answer.NumberOfCompletedSuboperations or 0

    @contextmanager
    def _association(self, model: Any, keep: Keep | None = None) -> Iterator[tuple[Requestor, PresentationContext]]:
        """An association and its context for `model`; with `keep` also for what a C-GET brings."""
        classes = tuple(map(str, IMAGE_CLASSES)) if keep else ()
        contexts = [*product([str(model)], _SYNTAXES), *product(classes, TRANSFER_SYNTAXES)]
        with dimse.associate(self._entity, self._peer, contexts, classes, keep) as assoc:
            assoc.deadline = self._deadline  # a peer need not answer before the last instance has gone
            if not (accepted := assoc.contexts_of(model)):
                raise Refused(f"{self._peer.ae_title} does not accept {model.name}")
            yield assoc, accepted[0]


def _request(request: Any, model: str) -> Any:
    """The primitive, about this information model."""
    request.AffectedSOPClassUID, request.Priority = model, _LOW_PRIORITY
    return request


def _parts(wanted: Collection[str]) -> Iterator[list[str]]:
    uids = sorted(wanted)
    return (uids[start : start + UIDS_IN_A_REQUEST] for start in range(0, len(uids), UIDS_IN_A_REQUEST))


def _check(service: str, status: int, peer: Peer, entity: Entity) -> None:
    """Raises what a failure means.  Where some instances failed, the database shows what came."""
    if dimse_status.is_pending(status) or status in (dimse_status.SUCCESS, dimse_status.SOME_SUBOPERATIONS_FAILED):
        return
    text = f"{peer.ae_title} answered {service} with 0x{status:04X}"
    if status == dimse_status.DESTINATION_UNKNOWN:
        raise Refused(
            f"{text}: it does not know the destination {entity.ae_title}; configure this AE title with our host and "
            "port there, or set retrieve = 'get' for this peer"
        )
    failed = status == dimse_status.SUBOPERATIONS_FAILED or dimse_status.is_unable_to_process(status)
    if service == "C-MOVE" and failed:
        raise Busy(f"{text}: it may not reach {entity.ae_title}; does `willis serve` run where it sends to?")
    raise Busy(text) if status in _TRANSIENT else Refused(text)


def _is_of(found: Dataset, series_instance_uid: str) -> bool:
    """Whether the answer is about this series, or does not say about which."""
    return unpadded(str(found.get("SeriesInstanceUID") or "")) in ("", series_instance_uid)


def ask_count(entity: Entity, peer: Peer, study_instance_uid: str, series_instance_uid: str) -> int | None:
    """How many instances the peer says the series has (C-FIND, PS3.4 C.3.4); None when it does not say.

    An answer on another series is passed over: there are peers that answer with all of the study.
    Raises Unavailable when there is no answer, or not all of it within the time for one.
    """
    query = count_query(study_instance_uid, series_instance_uid)
    with dimse.associate(entity, peer, [(FIND, syntax) for syntax in _SYNTAXES]) as assoc:
        assoc.deadline = time.monotonic() + entity.timeouts.dimse
        count: int | None = None
        try:
            for _, found in assoc.ask(_request(C_FIND(), FIND), assoc.contexts_of(FIND)[0], query):
                if count is None and found is not None and _is_of(found, series_instance_uid):
                    stated = found.get("NumberOfSeriesRelatedInstances")
                    count = None if stated is None else int(stated)
        except Unavailable:  # of one that has answered, and not text that this was all
            if count is None:
                raise
    return count
