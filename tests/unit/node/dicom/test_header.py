import json
import struct
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from node.dicom import conformance, header
from node.dicom.dataset_walker import Malformed
from node.dicom.header import MismatchedDataset, UnreadableDataset, file_meta, is_uid, walk
from storage.records import Header
from storage.store import Store
from tests.support.builders import SERIES_UID, FakeClock, add, encoded, read_header, series_now
from tests.unit.node.dicom.slices import read, slice_with, wire

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
EVERY_SYNTAX = [*NATIVE, DeflatedExplicitVRLittleEndian, JPEGLSLossless]


def header_with(**changes: Any) -> Header:
    return read(encoded(slice_with(**changes)))


@pytest.mark.parametrize("syntax", EVERY_SYNTAX)
def test_the_header_is_the_same_in_every_transfer_syntax(syntax: str) -> None:
    assert read(wire(slice_with(), syntax), syntax) == Header(
        sop_instance_uid="2.25.20000",
        sop_class_uid=CTImageStorage,
        series_instance_uid="2.25.1002",
        study_instance_uid="2.25.1001",
        transfer_syntax_uid=syntax,
        patient_id="P-0001",
        issuer_of_patient_id="",
        patient_name="Doe^Jane",
        accession_number="A-77",
        study_date="20260101",
        study_time="101500",
        study_id="S1",
        modality="CT",
        series_number=3,
        series_description="CTA 0.75",
        convolution_kernel="H20f",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        acquisition_key="2.25.1003/4/20260101",
        frame_of_reference_uid="2.25.1003",
        position_mm=(-20.0, -30.0, 100.0),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        number_of_frames=1,
        instance_number=1,
        has_pixels=True,
        acquisition_number="4",
    )


def test_content_time_and_acquisition_uid_are_read() -> None:
    found = read(encoded(slice_with(ContentDate="20260101", ContentTime="101600.5", AcquisitionUID="2.25.9")))
    assert (found.content_at, found.acquisition_uid, found.acquisition_key) == ("20260101101600.5", "2.25.9", "2.25.9")


@pytest.mark.parametrize(
    ("value", "number"),
    [(b" 17 ", 17), (b"-3", -3), (b"", None), (b"1\\2", None), (b"one ", None), (b"99999999999 ", None), (b"7\0", 7)],
)
def test_a_number_that_is_none_is_as_good_as_absent(value: bytes, number: int | None) -> None:
    head = encoded(slice_with(SeriesNumber=None, InstanceNumber=None))
    at = head.index(b"\x20\x00\x32\x00DS")  # what follows the two
    content = head[:at] + b"".join(
        b"\x20\x00" + tag + b"\x00IS" + len(value).to_bytes(2, "little") + value for tag in (b"\x11", b"\x13")
    )
    found = read(content + head[at:])
    assert (found.series_number, found.instance_number) == (number, number)


@pytest.mark.parametrize("syntax", EVERY_SYNTAX)
def test_a_dataset_cut_anywhere_is_unreadable_or_only_lacks_what_was_cut_off(syntax: str) -> None:
    content = wire(slice_with(), syntax)
    whole = read(content, syntax)
    nothing = replace(Header("", "", "", "", ""), has_pixels=False)
    readable = 0
    for length in range(len(content)):
        try:
            cut = read(content[:length], syntax)
        except UnreadableDataset as error:
            assert len(str(error)) <= 64
        else:  # cut between two elements: nothing in the bytes tells that more should follow
            readable += 1
            for key, value in vars(cut).items():
                assert value in (getattr(whole, key), getattr(nothing, key)), key
    assert readable < 20


@pytest.mark.parametrize("syntax", [*NATIVE, DeflatedExplicitVRLittleEndian, JPEGLSLossless])
def test_pixel_data_that_are_cut_are_unreadable(syntax: str) -> None:
    content = wire(slice_with(), syntax)
    for missing in (1, 7, 20):
        with pytest.raises(UnreadableDataset, match="truncated"):
            read(content[:-missing], syntax)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), syntax=st.sampled_from(EVERY_SYNTAX))
def test_damaged_bytes_are_unreadable_or_some_header_and_nothing_else(data: st.DataObject, syntax: str) -> None:
    content = bytearray(wire(slice_with(), syntax))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(read(bytes(content), syntax), Header)
    except UnreadableDataset as error:
        assert len(str(error)) <= 64


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=400), syntax=st.sampled_from(EVERY_SYNTAX))
def test_any_bytes_whatever_are_unreadable(content: bytes, syntax: str) -> None:
    with pytest.raises(UnreadableDataset):
        read(content, syntax)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\="), max_size=30)


@settings(max_examples=100, deadline=None)
@given(name=TEXT, patient=TEXT)
def test_text_of_any_script_is_read_as_it_was_meant(name: str, patient: str) -> None:
    ds = slice_with(SpecificCharacterSet="ISO_IR 192", PatientID=patient.strip(), SeriesDescription=name.strip())
    header = read(encoded(ds))
    assert (header.patient_id, header.series_description) == (patient.strip(" "), name.strip(" ")) or (
        header.patient_id.strip(),
        header.series_description.strip(),
    ) == (patient.strip(), name.strip())


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"),
    ],
)
def test_names_decode_by_their_character_set(character_set: str | list[str], name: str) -> None:
    if character_set == "ISO_IR 13":
        character_set = ["ISO 2022 IR 13", "ISO 2022 IR 87"]
    assert header_with(SpecificCharacterSet=character_set, PatientName=name).patient_name == name


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_name_that_does_not_decode_or_an_unknown_character_set_is_no_reason_to_refuse() -> None:
    content = encoded(slice_with(PatientName="Buc^Jerome", SpecificCharacterSet="ISO_IR 192"))
    assert read(content.replace(b"Jerome", b"J\xe9r\xf4me")).patient_name.startswith("Buc^J")
    assert read(content.replace(b"ISO_IR 192", b"NOBODYS OW")).patient_name == "Buc^Jerome"


@pytest.mark.parametrize(
    "uid",
    [
        "../../../etc/passwd", "1.2.3/../4", "1..2", ".1", "1.", "1.2.a", "01.2", "1.02", "1.2 .3", "-1.2",
        "1." + "2" * 63, "1.2\\1.3", "１.２",
    ],
)  # fmt: skip
@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_a_uid_that_is_none_is_refused(keyword: str, uid: str) -> None:
    ds = slice_with(SpecificCharacterSet="ISO_IR 192")
    number = {"SeriesInstanceUID": 0x0E, "StudyInstanceUID": 0x0D}[keyword]
    value = uid.encode()
    value += b"\0" * (len(value) % 2)
    delattr(ds, keyword)
    content = encoded(ds)
    at = content.index(struct.pack("<HH", 0x20, 0x12))  # Acquisition Number follows the two
    if keyword == "StudyInstanceUID":
        at = content.index(struct.pack("<HH", 0x20, 0x0E))
    spoiled = content[:at] + struct.pack("<HH2sH", 0x20, number, b"UI", len(value)) + value + content[at:]
    with pytest.raises(UnreadableDataset, match=f"{keyword} is not a valid UID"):
        read(spoiled)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_or_empty_uid_is_refused_by_name(keyword: str, value: str | None) -> None:
    with pytest.raises(UnreadableDataset, match=f"{keyword} is missing"):
        header_with(**{keyword: value})


def test_another_instance_or_class_than_announced_is_a_mismatch() -> None:
    content = encoded(slice_with())
    with pytest.raises(MismatchedDataset, match="SOPInstanceUID"):
        read(content, sop="2.25.1")
    with pytest.raises(MismatchedDataset, match="SOPClassUID"):
        read_header(content, ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.7", "2.25.20000")


@pytest.mark.parametrize("uid", ["0", "1", "1.2.840.10008.1.2", "2.25." + "9" * 39, "1." + "2" * 62, "1.0.3"])
def test_a_valid_uid_is_valid(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize("uid", ["", "1.2\n", "1.2\0", "1." + "2" * 63])
def test_an_invalid_uid_is_not(uid: str) -> None:
    assert not is_uid(uid)


def test_messages_hold_no_value_of_the_dataset() -> None:
    for changes in ({"SeriesInstanceUID": "1.2.Doe^Jane"}, {"SOPInstanceUID": "1.2.3"}, {"StudyInstanceUID": None}):
        with pytest.raises(UnreadableDataset) as caught:
            header_with(**changes)
        assert "Doe" not in str(caught.value)
        assert "1.2.3" not in str(caught.value)
        assert len(str(caught.value)) <= 64


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"AcquisitionUID": "2.25.5"}, "2.25.5"),
        ({}, "2.25.1003/4/20260101"),
        ({"AcquisitionDate": None}, "2.25.1003/4/"),
        ({"AcquisitionNumber": None}, ""),
        ({"FrameOfReferenceUID": None}, ""),
        ({"AcquisitionNumber": None, "FrameOfReferenceUID": None, "AcquisitionDate": None}, ""),
    ],
)
def test_the_acquisition_key_is_the_same_for_the_same_acquisition_or_empty(changes: dict[str, Any], key: str) -> None:
    assert header_with(**changes).acquisition_key == key


@pytest.mark.parametrize(
    ("changes", "position"),
    [
        ({}, (-20.0, -30.0, 100.0)),
        ({"ImagePositionPatient": None}, None),
        ({"ImagePositionPatient": ""}, None),
        ({"ImagePositionPatient": ["1", "2"]}, None),
        ({"ImagePositionPatient": "5"}, None),
        ({"ImagePositionPatient": ["1", "2", "3", "4"]}, None),
    ],
)
def test_a_position_is_three_numbers_or_none(changes: dict[str, Any], position: tuple[float, ...] | None) -> None:
    assert header_with(**changes).position_mm == position


@pytest.mark.parametrize("number", [b"nan", b"inf", b"1e9", b"1e999", b"-inf"])
def test_a_number_that_is_none_makes_no_position_and_never_stops_the_database(
    store: Store, clock: FakeClock, number: bytes
) -> None:
    content = encoded(slice_with(ImagePositionPatient=["-20", "-30", "100"]))
    value = b"-20\\-30\\100 "
    spoiled = b"1\\2\\" + number
    header = read(content.replace(value, spoiled + b" " * (len(value) - len(spoiled))))
    assert header.position_mm == ((1.0, 2.0, 1e9) if number == b"1e9" else None)
    add(store, clock, replace(header, series_instance_uid=SERIES_UID))
    [(kept, _)] = store.settling.instances(series_now(store).id)
    assert kept.position_mm == header.position_mm


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(
    "position", [b"-1.5\\+2\\3e1 ", b"11\\22", b"1\\\\33", b"1\\2\\.", b"0\\1\\1e999 ", b"1\\2\\3\0", b"1_0\\2\\3"]
)
def test_what_differs_in_every_slice_is_read_as_pydicom_reads_it(
    monkeypatch: pytest.MonkeyPatch, syntax: str, position: bytes
) -> None:
    position += b" " * (len(position) % 2)
    eights = "8" * (len(position) - 4)
    content = wire(slice_with(ImagePositionPatient=["0", "0", eights]), syntax)
    plain = f"0\\0\\{eights}".encode()
    assert content.count(plain) == 1
    content = content.replace(plain, position)
    found = read(content, syntax)
    monkeypatch.setattr(header, "_plain", lambda _keyword, _element: None)
    assert found == read(content, syntax)


def test_text_with_a_zero_byte_can_be_stored(store: Store, clock: FakeClock) -> None:
    content = encoded(slice_with(PatientName="Doe^Jane", PatientID="P-0001", SeriesDescription="CTA 0.75"))
    header = read(content.replace(b"Doe^Jane", b"Doe\0Jane").replace(b"P-0001", b"P\x000001"))
    assert (header.patient_name, header.patient_id) == ("DoeJane", "P0001")
    add(store, clock, replace(header, series_instance_uid=SERIES_UID))
    assert series_now(store).instance_count == 1


def test_odd_values_are_as_good_as_none() -> None:
    content = encoded(slice_with(NumberOfFrames=3))
    assert read(content).number_of_frames == 3
    at = content.index(struct.pack("<HH", 0x28, 0x08)) + 8
    assert read(content[:at] + b"x " + content[at + 2 :]).number_of_frames == 1
    assert header_with(ImageType="ORIGINAL").image_type == ("ORIGINAL",)
    assert header_with(ImageType=None).image_type == ()
    assert header_with(ImageType="").image_type in ((), ("",))
    assert header_with(Modality=None).modality == ""


def test_a_dataset_without_pixels_says_so() -> None:
    assert not header_with(PixelData=None).has_pixels


def test_nested_sequences_and_private_elements_are_stepped_over() -> None:
    ds = slice_with()
    icon, code = Dataset(), Dataset()
    icon.SOPInstanceUID, icon.BitsAllocated, icon.PixelData = "2.25.999", 8, b"\0\0"
    code.CodeValue = "T-A0100"
    icon.ViewCodeSequence = Items([code, code])
    ds.IconImageSequence = Items([icon])
    ds.ReferencedImageSequence = Items([icon, icon])
    ds.add_new(0x00091001, "UN", b"private \0\x01")
    for syntax in NATIVE:
        assert read(wire(ds, syntax), syntax) == read(wire(slice_with(), syntax), syntax)
    for sequence in (ds["IconImageSequence"], ds["ReferencedImageSequence"]):
        sequence.is_undefined_length = True
    for item in ds.ReferencedImageSequence:
        item.is_undefined_length_sequence_item = True
    for syntax in NATIVE:
        assert read(wire(ds, syntax), syntax) == read(wire(slice_with(), syntax), syntax)


def test_what_follows_the_pixels_does_not_matter() -> None:
    ds = slice_with()
    ds.add_new(0xFFFCFFFC, "OB", b"\0" * 10)
    assert read(encoded(ds)) == read(encoded(slice_with()))


@pytest.mark.parametrize("source_ae", ["PACS", "ODD", "A_16_CHAR_TITLE_"])
def test_the_file_meta_makes_the_senders_bytes_a_dicom_file(source_ae: str) -> None:
    content = wire(slice_with(), ImplicitVRLittleEndian)
    meta = file_meta((CTImageStorage, "2.25.20000"), ImplicitVRLittleEndian, source_ae)
    ds = dcmread(BytesIO(meta + content))
    assert ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == "2.25.20000"
    assert ds.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert ds.file_meta.SourceApplicationEntityTitle == source_ae
    assert ds.file_meta.ImplementationClassUID == conformance.IMPLEMENTATION_CLASS_UID
    assert ds.PixelData == slice_with().PixelData


def test_a_header_survives_its_journey_through_json() -> None:
    header = header_with()
    assert Header.from_json(header.as_json()) == header


@pytest.mark.parametrize(
    ("element", "says"),
    [
        (struct.pack("<HH2sH", 0xFFFE, 0xE000, b"AE", 0), "out of place"),  # its length reads like a VR
        (struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 16_386) + b"1" * 16_386, "too long"),
    ],
)
def test_what_an_element_with_a_short_length_may_not_be_is_noticed_among_many(element: bytes, says: str) -> None:
    before = b"".join(struct.pack("<HH2sH", 0x0008, number, b"SH", 2) + b"x " for number in range(0x50, 0x60))
    with pytest.raises(Malformed, match=says):
        walk(ExplicitVRLittleEndian).feed(before + element)


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_dataset_in_pieces_of_any_size_has_the_same_header(piece: int) -> None:
    dataset, whole, in_pieces = encoded(slice_with()), walk(ExplicitVRLittleEndian), walk(ExplicitVRLittleEndian)
    whole.feed(dataset)
    for at in range(0, len(dataset), piece):
        in_pieces.feed(dataset[at : at + piece])
    in_pieces.finish()
    assert in_pieces.captured == whole.captured
    assert len(whole.captured) > 10


def test_long_texts_are_read_and_not_remembered() -> None:
    remembered = []
    for number in range(3):
        long = "x" * 1200 + str(number)
        assert header_with(SeriesDescription=long).series_description == long
        remembered.append(header._decoded_text.cache_info().currsize)
    assert len(set(remembered)) == 1


def test_a_number_whose_vr_the_sender_did_not_know_is_read_and_holds_no_nul() -> None:
    """PS3.5 6.2.2: UN, whose header has 12 bytes where others have 8.  PostgreSQL holds no NUL."""
    known = struct.pack("<HH2sH", 0x0020, 0x0012, b"IS", 2) + b"4 "
    unknown = struct.pack("<HH2sHL", 0x0020, 0x0012, b"UN", 0, 2) + b"3\0"
    sent = wire(slice_with(), ExplicitVRLittleEndian)
    assert sent.count(known) == 1
    found = read(sent.replace(known, unknown), ExplicitVRLittleEndian)
    assert found.acquisition_number == "3"
    assert "\\u0000" not in json.dumps(found.as_json())
