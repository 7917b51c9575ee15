"""What a C-FIND Identifier asks for, and the Identifiers that answer it."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pynetdicom.dsutils import decode, encode

from node.dicom.query import PRIVATE_CREATOR, PRIVATE_GROUP, PRIVATE_KEYS, BadQuery, Query, identifier_of, read_query
from storage.conditions import Between, Like
from storage.queries.cfind import SERIES_COLUMNS

FOUND: dict[str, Any] = dict.fromkeys(SERIES_COLUMNS, "") | {
    "patient_name": "Müller^Jörg", "study_instance_uid": "2.25.1001", "series_number": 3, "instance_count": 400,
    "outcome": "not_analysed", "stage": "reported", "reason": "gap", "revision": 2, "priority": 2, "p_present": None,
    "report_uid": "2.25.77", "reported_at": datetime(2026, 11, 23, 9, 30, 15, tzinfo=UTC), "modalities_in_study": ("CT", "SR"),
    "series_count": 2, "study_instance_count": 401, "limits": "noise",
}  # fmt: skip


def asking(level: str = "STUDY", private: dict[int, Any] | None = None, implicit: bool = False, **keys: Any) -> Dataset:
    """The Identifier as it comes off the wire."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    if private is not None:
        ds.add_new((PRIVATE_GROUP, 0x0012), "LO", PRIVATE_CREATOR)
        for number, value in private.items():
            ds.add_new((PRIVATE_GROUP, 0x1200 + number), "LO", value)
    return read_dataset(BytesIO(encode(ds, implicit, True) or b""), implicit, True)


def conditions(level: str = "STUDY", **keys: Any) -> dict[str, Any]:
    return {column: list(values) for column, values in read_query(asking(level, **keys)).conditions.items()}


def answer(query: Query, **found: Any) -> Dataset:
    """The answer as the peer reads it."""
    written = encode(identifier_of(query, FOUND | found), False, True)
    assert written is not None
    read: Dataset = decode(BytesIO(written), False, True)
    return read


def refused(identifier: Dataset) -> tuple[int, str, str]:
    with pytest.raises(BadQuery) as caught:
        read_query(identifier)
    assert len(str(caught.value)) <= 64
    return caught.value.status, str(caught.value), str(caught.value.tag)


def test_every_way_to_match_is_understood() -> None:
    assert conditions(PatientID="P-1", StudyDate="", AccessionNumber=None, StudyID="*") == {"patient_id": ["P-1"]}
    assert conditions(PatientName="DOE^J*", AccessionNumber="A-?7") == {
        "name_key": [Like("doe^j*")],
        "accession_number": [Like("A-?7")],
    }
    assert conditions(StudyInstanceUID=["2.25.1", "2.25.2"]) == {"study_instance_uid": ["2.25.1", "2.25.2"]}
    assert conditions(PatientName="^^", AccessionNumber="\\", StudyDate="*", StudyInstanceUID="") == {}
    assert conditions(ModalitiesInStudy="CT\\MR") == {"modalities_in_study": ["CT", "MR"]}
    assert conditions("SERIES", StudyInstanceUID="2.25.1", SeriesNumber="03") == {
        "study_instance_uid": ["2.25.1"],
        "series_number": [3],
    }


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("20260131", Between("20260131", "20260131")),
        ("20260101-20260131", Between("20260101", "20260131")),
        ("20260101-", Between("20260101", "")),
        ("-20260131", Between("", "20260131")),
    ],
)
def test_a_date_may_be_a_range_open_at_either_end(date: str, expected: Between) -> None:
    assert conditions(StudyDate=date) == {"study_date": [expected]}


def test_a_date_and_a_time_are_matched_each_for_itself() -> None:
    found = conditions(StudyDate="20260101-20260102", StudyTime="1000-1100")
    assert found["study_date"] == [Between("20260101", "20260102")]
    assert found.keys() == {"study_date", "study_time"}


@pytest.mark.parametrize(
    ("asked", "inside", "outside"),
    [
        ("1015", ["101500", "1015", "101559.9"], ["1014", "101600", "10"]),
        ("100000-", ["10", "1000", "100000.000", "235959"], ["095959.999999"]),
        ("0900-10", ["090000", "105959.5"], ["085959", "110000"]),
        ("-101530.5", ["000000", "101530.5"], ["101531"]),
    ],
)
def test_a_time_stands_for_all_that_begins_with_it(asked: str, inside: list[str], outside: list[str]) -> None:
    [between] = conditions(StudyTime=asked)["study_time"]

    def is_inside(value: str) -> bool:
        return bool(between.low <= value and (not between.high or value <= between.high))

    assert all(map(is_inside, inside))
    assert not any(map(is_inside, outside))


@pytest.mark.parametrize(
    ("identifier", "status", "tag"),
    [
        (asking("PATIENT"), 0xA900, "(0008,0052)"),
        (Dataset(), 0xA900, "(0008,0052)"),
        (asking("SERIES"), 0xA900, "(0020,000D)"),
        (asking("SERIES", StudyInstanceUID=["2.25.1", "2.25.2"]), 0xA900, "(0020,000D)"),
        (asking("IMAGE", StudyInstanceUID="2.25.1", SeriesInstanceUID=""), 0xA900, "(0020,000E)"),
        (asking(StudyDate="yesterday"), 0xC000, "(0008,0020)"),
        (asking(StudyDate="20260101-20260102-20260103"), 0xC000, "(0008,0020)"),
        (asking(StudyDate="-"), 0xC000, "(0008,0020)"),
        (asking(StudyTime="quarter past ten"), 0xC000, "(0008,0030)"),
        (asking(private={0x07: "first"}, implicit=True), 0xC000, "(0099,1207)"),
        (asking(private={0x07: "99999999999"}), 0xC000, "(0099,1207)"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_element_named(identifier: Dataset, status: int, tag: str) -> None:
    found = refused(identifier)
    assert (found[0], found[2]) == (status, tag)


def test_a_refusal_holds_nothing_of_the_query() -> None:
    assert "Doe" not in refused(asking(StudyDate="Doe^Jane"))[1]


def test_only_what_was_asked_for_is_returned_and_that_nothing_can_be_retrieved_here() -> None:
    asked = asking(StudyInstanceUID="", NumberOfStudyRelatedInstances="", ModalitiesInStudy="")
    assert {element.keyword: element.value for element in answer(read_query(asked))} == {
        "QueryRetrieveLevel": "STUDY",
        "RetrieveAETitle": "",
        "InstanceAvailability": "UNAVAILABLE",
        "StudyInstanceUID": "2.25.1001",
        "NumberOfStudyRelatedInstances": 401,
        "ModalitiesInStudy": ["CT", "SR"],
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"PatientBirthDate": ""},
        {"OtherPatientIDsSequence": [Dataset()]},
        {"Modality": "CT"},
        {"NumberOfStudyRelatedSeries": "3"},
        {"private": {0x0A: ""}},
        {"private": {0x05: "20260101"}},
    ],
)
def test_what_is_not_supported_is_a_warning_and_matches_everything(keys: dict[str, Any]) -> None:
    query = read_query(asking(PatientID="", **keys))
    assert query.pending_status == 0xFF01
    assert not query.conditions
    assert read_query(asking(PatientID="")).pending_status == 0xFF00


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_our_outcome_is_in_a_private_block_that_the_asker_places(implicit: bool) -> None:
    everything = dict.fromkeys(PRIVATE_KEYS, "")
    query = read_query(asking(private=everything | {0x01: "NOT_ANALYSED"}, implicit=implicit))
    assert query.pending_status == 0xFF00
    assert query.conditions == {"outcome": ["not_analysed"]}
    found = answer(query)
    block = found.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    assert block.block_start == 0x1200
    assert [(block[n].VR, block[n].value) for n in sorted(PRIVATE_KEYS)] == [
        ("CS", "NOT_ANALYSED"), ("DS", None), ("CS", "REPORTED"), ("IS", 2), ("DT", "20261123093015+0000"), ("LO", "gap"),
        ("IS", 2), ("UI", "2.25.77"), ("LT", "noise"),
    ]  # fmt: skip
    assert answer(query, p_present=0.95678).private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[2].value == 0.9568
    in_work = answer(query, outcome=None, reported_at=None, report_uid=None, p_present=None, limits=None)
    assert not in_work.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[1].value


def test_the_private_block_of_somebody_else_is_not_ours() -> None:
    identifier = asking(private={0x01: "POSITIVE"})
    identifier[PRIVATE_GROUP, 0x0012].value = "SOMEBODY"
    query = read_query(identifier)
    assert (query.conditions, query.returned, query.pending_status) == ({}, {}, 0xFF01)


@pytest.mark.parametrize(
    ("asked_in", "name", "answered_in"),
    [
        ("", "Doe^Jane", None),
        ("ISO_IR 100", "Doe^Jane", None),
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 192", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 100", "Yamada^Tarou=山田^太郎", "ISO_IR 192"),
        ("", "Müller^Jörg", "ISO_IR 192"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎", "ISO_IR 192"),
        ("NONSENSE", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 6", "Doe^Jane", None),
        ("ISO_IR 6", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 13", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 192"),
        ("ISO_IR 13", "Yamada^Tarou=山田^太郎", "ISO_IR 192"),
        ("ISO_IR 144", "Иванов^Иван", "ISO_IR 144"),
        ("GB18030", "Li^Wei=李^伟", "GB18030"),
    ],
)
def test_names_come_in_the_askers_character_set_or_in_unicode(
    asked_in: str, name: str, answered_in: str | None
) -> None:
    found = answer(read_query(asking(SpecificCharacterSet=asked_in.split("\\"), PatientName="")), patient_name=name)
    assert found.get("SpecificCharacterSet") == answered_in
    assert found.PatientName == name


@pytest.mark.parametrize(
    ("character_set", "name"), [("ISO_IR 100", "MÜLL*"), (["", "ISO 2022 IR 87"], "YAMADA^TAROU=山田*")]
)
def test_a_name_is_understood_in_the_askers_character_set(character_set: Any, name: str) -> None:
    assert conditions(SpecificCharacterSet=character_set, PatientName=name) == {"name_key": [Like(name.lower())]}


@given(
    st.binary(max_size=60), st.sampled_from([0x00080020, 0x00100010, 0x00100020, 0x0020000D, 0x00991001, 0x00080052])
)
def test_whatever_a_key_holds_the_query_is_read_or_refused(value: bytes, tag: int) -> None:
    head = b"\x08\x00\x52\x00CS\x06\x00STUDY " if tag != 0x00080052 else b""
    vr = {0x00080020: b"DA", 0x00100010: b"PN", 0x0020000D: b"UI", 0x00080052: b"CS"}.get(tag, b"LO")
    element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr
    padded = value + b" " * (len(value) % 2)
    try:
        read_query(read_dataset(BytesIO(head + element + len(padded).to_bytes(2, "little") + padded), False, True))
    except BadQuery as refusal:
        assert refusal.status in (0xA900, 0xC000)
