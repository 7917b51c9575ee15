"""The parts of a multipart answer, however it was cut, and the DICOM files in them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dicom.header import file_meta
from node.dicom.multipart import Truncated, body_of, boundary_of, parts, unpacked
from tests.support.dicom_factory import ct_series, save

BODIES = st.lists(st.binary(max_size=200).filter(lambda body: b"--edge" not in body), min_size=1, max_size=4)


def encoded(bodies: list[bytes], first_line_break: bytes = b"") -> bytes:
    each = [b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n" for body in bodies]
    return first_line_break + b"".join(each) + b"--edge--\r\nwhat comes after"


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@settings(max_examples=50)
@given(BODIES, st.integers(1, 64), st.sampled_from([b"", b"\r\n", b"a preamble\r\n"]))
def test_every_part_comes_as_it_was_however_the_answer_is_cut(bodies: list[bytes], size: int, before: bytes) -> None:
    assert list(parts(cut(encoded(bodies, before), size), "edge")) == bodies


@settings(max_examples=50)
@given(BODIES, st.integers(1, 64), st.data())
def test_an_answer_that_ends_early_gives_whole_parts_only_and_says_so(
    bodies: list[bytes], size: int, data: st.DataObject
) -> None:
    whole = encoded(bodies)
    end = data.draw(st.integers(0, whole.rindex(b"--edge--") + len(b"--edge-")))
    found: list[bytes] = []
    reading = parts(cut(whole[:end], size), "edge")
    with pytest.raises(Truncated):
        found.extend(map(bytes, reading))
    assert found == bodies[: len(found)]


def test_a_part_may_have_no_header() -> None:
    assert list(parts([b"--edge\r\n\r\nbody\r\n--edge--"], "edge")) == [b"body"]


def test_what_we_make_is_one_part() -> None:
    assert list(parts([body_of(b"\r\nthe file\r\n", "edge")], "edge")) == [b"\r\nthe file\r\n"]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=edge', "edge"),
        ('multipart/related;boundary="an edge";type="application/dicom"', "an edge"),
        ("Multipart/Related; Boundary=edge", "edge"),
        ("multipart/related", None),
        ("application/dicom; boundary=edge", None),
        ("", None),
    ],
)
def test_the_boundary_is_read_of_a_multipart_type(content_type: str, boundary: str | None) -> None:
    assert boundary_of(content_type) == boundary


def test_a_file_is_its_uids_and_the_bytes_of_its_dataset(tmp_path: Path) -> None:
    [path] = save(ct_series(1), tmp_path)
    whole = path.read_bytes()
    sop_class_uid, sop_instance_uid, syntax, dataset = unpacked(bytearray(whole))
    assert whole.endswith(bytes(dataset)) and bytes(dataset[:2]) == b"\x08\x00"
    again = bytearray(file_meta((sop_class_uid, sop_instance_uid), syntax, "PACS") + dataset)
    assert unpacked(again) == (sop_class_uid, sop_instance_uid, syntax, dataset)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0\xff\xff\xff\xff", b"<html>" * 99],
)
def test_what_is_no_file_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ValueError):
        unpacked(bytearray(content))
