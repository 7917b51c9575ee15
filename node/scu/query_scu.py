"""The Query/Retrieve SCU: what a peer holds, and how its instances come to us (PS3.4 C)."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.config.peer import Peer
from node.dicom.conformance import (
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
)
from node.errors import Busy, Refused, Unavailable
from node.scu import dimse
from node.scu.dimse import Entity, associate, end
from node.scu.source import Keep, Listed, identifier

FIND, MOVE, GET = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
)
_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
DESTINATION_UNKNOWN, SUBOPERATIONS_FAILED = 0xA801, 0xA702
_TRANSIENT = (0xA700, 0xA701, SUBOPERATIONS_FAILED, 0xFE00)
UIDS_IN_A_REQUEST = 100


class DimseSource:
    """A peer that is asked by C-FIND and gives by C-MOVE or C-GET, as its `retrieve` says."""

    def __init__(self, ae: Entity, peer: Peer, limit_seconds: float) -> None:
        """What is still under way after `limit_seconds` is aborted."""
        self._ae, self._peer, self._deadline = ae, peer, time.monotonic() + limit_seconds

    def studies(self, *, accession_number: str = "", study_instance_uid: str = "") -> list[str]:
        """See Source."""
        query = identifier("STUDY", StudyInstanceUID=study_instance_uid)
        if accession_number:
            query.AccessionNumber = accession_number
        return [str(found.StudyInstanceUID) for found in self._find(query, "StudyInstanceUID")]

    def series(self, study_instance_uid: str) -> list[Listed]:
        """See Source."""
        query = identifier("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID="", Modality="")
        return [
            Listed(study_instance_uid, str(found.SeriesInstanceUID), str(found.get("Modality") or ""))
            for found in self._find(query, "SeriesInstanceUID")
        ]

    def instances(self, series: Listed) -> frozenset[str]:
        """See Source."""
        query = identifier(
            "IMAGE",
            StudyInstanceUID=series.study_instance_uid,
            SeriesInstanceUID=series.series_instance_uid,
            SOPInstanceUID="",
        )
        return frozenset(str(found.SOPInstanceUID) for found in self._find(query, "SOPInstanceUID"))

    def _find(self, query: Dataset, key: str) -> Iterator[Dataset]:
        """The answers that have the unique key of their level."""
        with self._association(FIND) as assoc:
            for status, found in _answers(assoc.send_c_find(query, FIND)):
                _check("C-FIND", status, self._peer, self._ae)
                if found is not None and found.get(key):
                    yield found

    def retrieve(self, series: Listed, wanted: Collection[str], keep: Keep, on_done: Callable[[int], None]) -> None:
        """See Source."""
        uids = {"StudyInstanceUID": series.study_instance_uid, "SeriesInstanceUID": series.series_instance_uid}
        queries = [identifier("IMAGE", **uids, SOPInstanceUID=part) for part in _parts(wanted)]
        for number, query in enumerate(queries or [identifier("SERIES", **uids)]):
            for done in self._get(query, keep) if self._peer.retrieve == "get" else self._move(query):
                on_done(number * UIDS_IN_A_REQUEST + done)

    def _move(self, query: Dataset) -> Iterator[int]:
        """How many the peer has sent so far."""
        with self._association(MOVE) as assoc:
            for status in _statuses(assoc.send_c_move(query, self._ae.ae_title, MOVE)):
                _check("C-MOVE", status, self._peer, self._ae)
                yield int(status.get("NumberOfCompletedSuboperations") or 0)

    def _get(self, query: Dataset, keep: Keep) -> Iterator[int]:
        """How many the peer has sent so far."""

        def on_store(event: Any) -> int:
            request = event.request
            return keep(
                str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID),
                str(event.context.transfer_syntax), request.DataSet.getbuffer(),
            )  # fmt: skip

        with self._association(GET, on_store) as assoc:
            for status in _statuses(assoc.send_c_get(query, GET)):
                _check("C-GET", status, self._peer, self._ae)
                yield int(status.get("NumberOfCompletedSuboperations") or 0)

    @contextmanager
    def _association(self, model: str, on_store: Callable[[Any], int] | None = None) -> Iterator[Association]:
        """An association for `model`; with `on_store` also for what a C-GET brings.  Aborted after the limit."""
        contexts = [(str(model), syntax) for syntax in _SYNTAXES]
        classes = STORAGE_CLASSES if on_store else ()
        contexts += product(map(str, classes), TRANSFER_SYNTAXES)
        handlers = [(evt.EVT_C_STORE, on_store)] if on_store else []
        assoc = dimse.associate(self._ae, self._peer, contexts, handlers, classes)
        left_seconds = max(0.0, self._deadline - time.monotonic())
        assoc.dimse_timeout = left_seconds  # a peer need not answer before the last instance has gone
        alarm = threading.Timer(left_seconds, assoc.abort)
        alarm.daemon = True
        alarm.start()
        try:
            yield assoc
        except ValueError:
            raise Refused(f"{self._peer.ae_title} does not accept {model.name}") from None  # type: ignore[attr-defined]
        except RuntimeError:
            raise Unavailable("the association ended") from None
        finally:
            alarm.cancel()
            dimse.end(assoc)


def _parts(wanted: Collection[str]) -> Iterator[list[str]]:
    uids = sorted(wanted)
    return (uids[start : start + UIDS_IN_A_REQUEST] for start in range(0, len(uids), UIDS_IN_A_REQUEST))


def _answers(responses: Iterator[tuple[Dataset, Dataset | None]]) -> Iterator[tuple[Dataset, Dataset | None]]:
    """Each status and identifier.  Raises Unavailable when the last answer does not come."""
    for status, answer in responses:
        if "Status" not in status:
            raise Unavailable("no answer: the association ended or timed out")
        yield status, answer


def _statuses(responses: Iterator[tuple[Dataset, Dataset | None]]) -> Iterator[Dataset]:
    return (status for status, _ in _answers(responses))


def _check(service: str, answer: Dataset, peer: Peer, ae: Entity) -> None:
    """Raises what a failure means.  Where some instances failed (0xB000), the database shows what came."""
    status = int(answer.Status)
    if status in (0x0000, 0xFF00, 0xFF01, 0xB000):
        return
    said = f"{peer.ae_title} answered {service} with 0x{status:04X}"
    if status == DESTINATION_UNKNOWN:
        raise Refused(
            f"{said}: it does not know the destination {ae.ae_title}; configure this AE title with our host and port "
            "there, or set retrieve = 'get' for this peer"
        )
    if service == "C-MOVE" and (status == SUBOPERATIONS_FAILED or 0xC000 <= status <= 0xCFFF):
        raise Busy(f"{said}: it may not reach {ae.ae_title}; does `willis serve` run where it sends to?")
    raise Busy(said) if status in _TRANSIENT else Refused(said)


def count_query(study_instance_uid: str, series_instance_uid: str) -> Dataset:
    """The identifier that asks how many instances a series has (PS3.4 C.6.2)."""
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    query.NumberOfSeriesRelatedInstances = None
    return query


def ask_count(ae: Entity, peer: Peer, study_instance_uid: str, series_instance_uid: str) -> int | None:
    """How many instances the peer says the series has (C-FIND, PS3.4 C.3.4); None when it does not say.

    Raises Unavailable when there is no answer.
    """
    query = count_query(study_instance_uid, series_instance_uid)
    model = StudyRootQueryRetrieveInformationModelFind
    assoc = associate(ae, peer, [(model, "1.2.840.10008.1.2.1"), (model, "1.2.840.10008.1.2")])
    try:
        for status, answer in assoc.send_c_find(query, model):
            if "Status" not in status:
                raise Unavailable("no answer: the association ended or timed out")
            if answer is not None and answer.get("NumberOfSeriesRelatedInstances") is not None:
                return int(answer.NumberOfSeriesRelatedInstances)
    except ValueError:
        raise Unavailable("the peer does not accept queries") from None
    except RuntimeError:
        raise Unavailable("the association ended") from None
    finally:
        end(assoc)
    return None
