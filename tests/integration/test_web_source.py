"""Asking a DICOMweb peer by QIDO-RS and getting from it by WADO-RS: what servers do that no real PACS does on demand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.audit.trail import Trail
from node.config.sections import Config
from node.dicom.multipart import body_of, unpacked
from node.errors import Refused, Unavailable
from node.runtime.clock import utc_now
from node.scu.dimse import Timeouts
from node.scu.remote import remote_of
from node.scu.source import Listed
from node.scu.wado import ANY_SYNTAX, MOST_ONE_BY_ONE, WebSource
from tests.support.dicom_factory import ct_series, save
from tests.support.web_server import Asked, Said, ServerFactory, WebServer

SERIES = Listed("2.25.1", "2.25.2")


def source(server: WebServer, limit_seconds: float = 20) -> WebSource:
    return WebSource(server.peer(), Timeouts(2, 2, 2), None, limit_seconds)


def found(**values: Any) -> dict[str, Any]:
    tags = {
        "study": "0020000D",
        "series": "0020000E",
        "instance": "00080018",
        "accession": "00080050",
        "modality": "00080060",
    }
    return {tags[name]: {"vr": "UI", "Value": [value]} for name, value in values.items()}


def test_studies_with_another_value_than_asked_for_are_left_out(web: ServerFactory) -> None:
    server = web(
        Said.of([found(study="2.25.1", accession="A1"), found(study="2.25.9", accession="A9"), found(study="2.25.8")])
    )
    assert source(server).studies(accession_number="A1") == ["2.25.1"]
    assert source(server).studies(study_instance_uid="2.25.9") == ["2.25.9"]
    assert [asked.path.partition("?")[2] for asked in server.asked] == ["AccessionNumber=A1", "StudyInstanceUID=2.25.9"]


def test_series_are_listed_with_their_modality(web: ServerFactory) -> None:
    server = web(Said.of([found(series="2.25.2", modality="CT"), found(series="2.25.3")]))
    assert source(server).series("2.25.1") == [Listed("2.25.1", "2.25.2", "CT"), Listed("2.25.1", "2.25.3", "")]
    assert source(web(Said(204))).series("2.25.1") == []


@pytest.mark.parametrize("ignores_offset", [False, True])
def test_instances_are_asked_for_until_nothing_new_comes(web: ServerFactory, ignores_offset: bool) -> None:
    uids = [f"2.25.3{number}" for number in range(5)]

    def answer(asked: Asked) -> Said:
        offset = 0 if ignores_offset else int(asked.path.partition("offset=")[2] or 0)
        return Said.of([found(instance=uid) for uid in uids[offset : offset + 2]])

    assert source(web(answer)).instances(SERIES).keys() == set(uids[:2] if ignores_offset else uids)


def test_series_too_are_asked_for_until_nothing_new_comes(web: ServerFactory) -> None:
    def answer(asked: Asked) -> Said:
        offset = int(asked.path.partition("offset=")[2] or 0)
        return Said.of([found(series=f"2.25.4{number}", modality="CT") for number in range(offset, min(offset + 2, 5))])

    assert source(web(answer)).series("2.25.1") == [Listed("2.25.1", f"2.25.4{number}", "CT") for number in range(5)]


def test_a_server_that_never_comes_to_an_end_is_asked_until_the_limit(web: ServerFactory) -> None:
    def answer(asked: Asked) -> Said:
        return Said.of([found(instance=f"2.25.5{asked.path.partition('offset=')[2] or 0}")])

    with pytest.raises(Unavailable, match="was not done in time"):
        source(web(answer), limit_seconds=0.3).instances(SERIES)


def test_a_uid_that_is_none_becomes_no_part_of_a_url(web: ServerFactory) -> None:
    with pytest.raises(Refused, match="did not answer with DICOM JSON"):
        source(web(Said.of([found(instance="../../patients")]))).instances(SERIES)


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes() for path in save(ct_series(3), tmp_path)]


def related(content: bytes, boundary: str = "edge", **changes: Any) -> Said:
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return Said(**{"body": content, "headers": {"Content-Type": kind}} | changes)


def retrieved(server: WebServer, wanted: tuple[str, ...] = (), limit_seconds: float = 20) -> list[bytes]:
    """The datasets that come."""
    kept: list[bytes] = []

    def keep(_class: str, _uid: str, _syntax: str, dataset: memoryview) -> int:
        kept.append(bytes(dataset))
        return 0

    source(server, limit_seconds).retrieve(SERIES, wanted, keep, lambda _: None)
    return kept


@pytest.mark.parametrize("status", [200, 206])
def test_a_whole_series_is_one_request_and_its_bytes_come_as_they_are(
    web: ServerFactory, files: list[bytes], status: int
) -> None:
    whole = b"".join(body_of(file, "edge").removesuffix(b"--edge--\r\n") for file in files) + b"--edge--"
    server = web(related(whole, status=status))
    assert [file.endswith(dataset) for file, dataset in zip(files, retrieved(server), strict=True)] == [True] * 3
    [asked] = server.asked
    assert (asked.path, asked.headers["Accept"]) == ("/dicom-web/studies/2.25.1/series/2.25.2", ANY_SYNTAX)


def uid_of(file: bytes) -> str:
    return unpacked(bytearray(file))[1]


@pytest.mark.parametrize("gone", [404, 410])
def test_of_a_few_each_instance_is_asked_for_and_one_that_is_gone_is_passed_over(
    web: ServerFactory, files: list[bytes], gone: int
) -> None:
    uid = uid_of(files[0])

    def answer(asked: Asked) -> Said:
        return related(body_of(files[0], "edge")) if asked.path.endswith(f"/{uid}") else Said(gone)

    server = web(answer)
    assert len(retrieved(server, ("2.25.1", uid))) == 1
    assert {asked.path.rpartition("/instances/")[2] for asked in server.asked} == {"2.25.1", uid}


def test_of_many_the_whole_series_is_asked_for_and_only_those_wanted_are_kept(
    web: ServerFactory, files: list[bytes]
) -> None:
    whole = b"".join(body_of(file, "edge").removesuffix(b"--edge--\r\n") for file in files) + b"--edge--"
    server = web(related(whole))
    wanted = (*map(uid_of, files[1:]), *(f"2.25.{number}" for number in range(MOST_ONE_BY_ONE)))
    assert len(retrieved(server, wanted)) == 2
    assert [asked.path for asked in server.asked] == ["/dicom-web/studies/2.25.1/series/2.25.2"]


def test_a_server_may_give_one_instance_without_multipart(web: ServerFactory, files: list[bytes]) -> None:
    assert len(retrieved(web(Said(200, files[0], {"Content-Type": "application/dicom"})))) == 1


def test_what_is_no_file_or_of_no_class_or_syntax_that_we_take_is_not_kept(
    web: ServerFactory, files: list[bytes]
) -> None:
    another = files[0].replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.4\0")
    unknown = files[0].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.6\0")
    assert files[0] not in (another, unknown)
    for content in (b"", b"<html>", another, unknown):
        assert retrieved(web(related(body_of(content, "edge")))) == []


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (lambda body: related(body[:-12]), Unavailable, "ended early"),
        (lambda body: related(body[:-300], length=len(body)), Unavailable, "ended early"),
        (lambda body: related(body, status=406), Refused, "HTTP 406"),
        (lambda body: related(body, status=503), Unavailable, "HTTP 503"),
        (lambda body: Said(200, body, {"Content-Type": "text/html"}), Refused, "gave no multipart/related"),
    ],
)
def test_an_answer_that_is_not_whole_or_another_gives_an_error(
    web: ServerFactory, files: list[bytes], said: Callable[[bytes], Said], error: Any, text: str
) -> None:
    with pytest.raises(error, match=text):
        retrieved(web(said(body_of(files[0], "edge"))))


def test_what_is_not_done_in_time_ends(web: ServerFactory, files: list[bytes]) -> None:
    with pytest.raises(Unavailable, match="was not done in time"):
        retrieved(web(related(body_of(files[0], "edge"))), limit_seconds=0)


def test_a_peer_gives_only_where_retrieve_says_wado(web: ServerFactory) -> None:
    server = web(Said.of([found(instance="2.25.3")]))
    given = remote_of(Config(), server.peer(retrieve="wado"), Trail(), utc_now).source(20)
    assert given.instances(SERIES).keys() == {"2.25.3"}
    with pytest.raises(Refused, match="set its retrieve to 'wado'"):
        remote_of(Config(), server.peer(), Trail(), utc_now).source(20)
