"""A DICOMweb peer that is asked by QIDO-RS and gives by WADO-RS (PS3.18 10.6, 10.4)."""

import time
from collections.abc import Callable, Collection, Iterator

import requests

from node.config.peer import Peer
from node.config.sections import Tls
from node.dicom import multipart
from node.dicom.conformance import IMAGE_CLASSES, TRANSFER_SYNTAXES
from node.dicom.header import is_uid
from node.errors import Refused, Unavailable
from node.net.requestor import Keep
from node.scu.dicomweb import SERIES, Json, Service, failure, text_of
from node.scu.dimse import Timeouts
from node.scu.source import Listed

ANY_SYNTAX = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""As the server holds it: without the parameter it would have to decompress (PS3.18 8.7.3.5.2)."""
MOST_ONE_BY_ONE = 20
"""Orthanc's plug-in takes as long for eight instances, one by one, as for a series of 256."""
_CHUNK_BYTES = 65_536
_STUDY, _INSTANCE, _SOP_CLASS = "0020000D", "00080018", "00080016"
_ACCESSION_NUMBER, _MODALITY = "00080050", "00080060"
_GIVEN, _GONE = (200, 206), (404, 410)
"""206: some could not be given (PS3.18 2019a, 6.5.3.2)."""


class WebSource:
    """A `query_scu.Source`."""

    def __init__(self, peer: Peer, timeouts: Timeouts, tls: Tls | None, limit_seconds: float) -> None:
        """What is still under way after `limit_seconds` ends."""
        self._peer, self._timeouts, self._tls = peer, timeouts, tls
        self._deadline = time.monotonic() + limit_seconds

    def _service(self) -> Service:
        return Service(self._peer, self._timeouts, self._tls)

    def studies(self, *, accession_number: str = "", study_instance_uid: str = "") -> list[str]:
        """See Source.  A server that does not match by a key gives every study: those with another value are left out."""
        tag, keyword, value = (
            (_ACCESSION_NUMBER, "AccessionNumber", accession_number)
            if accession_number
            else (_STUDY, "StudyInstanceUID", study_instance_uid)
        )
        with self._service() as service, service.answering():
            found = service.client.search_for_studies(search_filters={keyword: value})
            return [_uid(each, _STUDY) for each in found if text_of(each, tag) == value]

    def series(self, study_instance_uid: str) -> list[Listed]:
        """See Source."""
        with self._service() as service, service.answering():
            found = self._all(service.client.search_for_series, SERIES, study_instance_uid)
            return [Listed(study_instance_uid, uid, text_of(each, _MODALITY)) for uid, each in found.items()]

    def instances(self, series: Listed) -> dict[str, str]:
        """See Source."""
        with self._service() as service, service.answering():
            search = service.client.search_for_instances
            found = self._all(search, _INSTANCE, series.study_instance_uid, series.series_instance_uid)
            return {uid: text_of(each, _SOP_CLASS) for uid, each in found.items()}

    def _all(self, search: Callable[..., list[Json]], tag: str, *uids: str) -> dict[str, Json]:
        """By the UID under `tag`.  A server may give a part at a time: it is asked until nothing new comes."""
        found, offset = dict[str, Json](), 0
        while True:
            self._check_time()
            part = search(*uids, offset=offset or None)
            known, offset = len(found), offset + len(part)
            found |= {_uid(each, tag): each for each in part}
            if len(found) == known:
                return found

    def retrieve(self, series: Listed, wanted: Collection[str], keep: Keep, on_done: Callable[[int], None]) -> None:
        """See Source.  A few instances are a request each; of more, the whole series is one, and others are passed over."""
        of_series = f"{self._peer.url}/studies/{series.study_instance_uid}/series/{series.series_instance_uid}"
        few = sorted(wanted) if len(wanted) <= MOST_ONE_BY_ONE else []
        done = 0
        with self._service() as service:
            for url in [f"{of_series}/instances/{uid}" for uid in few] or [of_series]:
                for file in self._files(service, url):
                    done += _give(file, wanted, keep)
                    on_done(done)

    def _files(self, service: Service, url: str) -> Iterator[bytearray]:
        """The files in the answer, each when it is whole; none where the server has it no longer."""
        with service.answering(), service.get(url, ANY_SYNTAX) as response:
            if response.status_code in _GONE:
                return
            if response.status_code not in _GIVEN:
                raise failure(self._peer, response.status_code)
            content_type = response.headers.get("Content-Type", "")
            boundary, chunks = multipart.boundary_of(content_type), self._in_time(response)
            if boundary is None and not content_type.lower().startswith("application/dicom"):
                raise Refused(f"{self._peer.ae_title} at {self._peer.url} gave no multipart/related")
            try:
                yield from multipart.parts(chunks, boundary) if boundary else [bytearray(b"".join(chunks))]
            except multipart.Truncated:
                raise Unavailable(f"what {self._peer.ae_title} gave ended early") from None

    def _in_time(self, response: requests.Response) -> Iterator[bytes]:
        for chunk in response.iter_content(_CHUNK_BYTES):
            self._check_time()
            yield chunk

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise Unavailable(f"{self._peer.ae_title} was not done in time")


def _give(file: bytearray, wanted: Collection[str], keep: Keep) -> bool:
    """Whether it was given to `keep`: a DICOM file, one of those wanted (empty: all), and what we take as an SCP too."""
    try:
        sop_class_uid, sop_instance_uid, syntax, dataset = multipart.unpacked(file)
    except ValueError:
        return False
    if (
        (wanted and sop_instance_uid not in wanted)
        or sop_class_uid not in IMAGE_CLASSES
        or syntax not in TRANSFER_SYNTAXES
    ):
        return False
    keep(sop_class_uid, sop_instance_uid, syntax, dataset)
    return True


def _uid(answer: Json, tag: str) -> str:
    """Raises ValueError when it is none: it becomes part of a URL."""
    uid = text_of(answer, tag)
    if not is_uid(uid):
        raise ValueError("no UID")
    return uid
