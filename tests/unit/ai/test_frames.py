"""Stored pixels become Hounsfield units, or the reason why not."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from ai.errors import NotAnalysable, Reason
from ai.frames import AIR_HU, frames, text_of
from ai.volume import volume_from_datasets, volume_from_files
from tests.support.dicom_factory import change, ct_series, enhanced_ct, marked, save
from tests.support.refusal import refusal


def jpeg_2000(pixels: NDArray[np.uint16]) -> bytes:
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG2000", irreversible=False)
    return buffer.getvalue()


def test_rescale_is_applied_slice_by_slice() -> None:
    series = ct_series(2) + ct_series(2, slope=2.0, intercept=-1000.0, origin_mm=(-20.0, -30.0, 102.0))
    for index, ds in enumerate(series):
        ds.SOPInstanceUID = f"2.25.{index + 1}"
        hu = np.full((8, 9), 40 + 2 * index)
        ds.PixelData = ((hu - float(ds.RescaleIntercept)) / float(ds.RescaleSlope)).astype("<u2").tobytes()
    assert volume_from_datasets(series).hu_DHW[:, 0, 0].tolist() == [40, 42, 44, 46]


def test_a_fractional_slope_is_rounded_to_whole_hounsfield_units() -> None:
    series = ct_series(2, slope=0.5, intercept=-1024.5)
    for ds in series:
        ds.PixelData = np.full((8, 9), 2200, "<u2").tobytes()
    assert (volume_from_datasets(series).hu_DHW == 76).all()  # 75.5


def test_values_beyond_int16_are_clipped_and_never_wrap() -> None:
    series = ct_series(2, slope=1.0, intercept=1000.0)
    for ds in series:
        ds.PixelData = np.full((8, 9), 65535, "<u2").tobytes()
    assert (volume_from_datasets(series).hu_DHW == 32767).all()
    for ds in series:
        ds.RescaleIntercept = 5e9
    assert (volume_from_datasets(series).hu_DHW == 32767).all()
    for ds in series:
        ds.RescaleSlope, ds.RescaleIntercept = -3.5, 0
    assert (volume_from_datasets(series).hu_DHW == AIR_HU).all()


@pytest.mark.parametrize("padding_hu", [-2000, -3024, -1025])
def test_what_lies_below_air_becomes_air(padding_hu: int) -> None:
    series = ct_series(2, hu=lambda _: np.full((8, 9), padding_hu, np.int16), signed=True, intercept=0.0)
    assert (volume_from_datasets(series).hu_DHW == AIR_HU).all()


@pytest.mark.parametrize(
    ("signed", "stored", "value", "limit"),
    [
        (False, 63536, 63536, None),
        (True, -2000, -2000, None),
        (True, -2000, 63536, None),
        (False, 63536, -2000, None),
        (False, 3000, 2990, 3010),
        (False, 3000, 3010, 2990),
    ],
)
def test_pixel_padding_becomes_air_in_either_sign_and_as_a_range(
    signed: bool, stored: int, value: int, limit: int | None
) -> None:
    series = ct_series(2, signed=signed, intercept=3000.0)
    pixels = np.full((8, 9), 50, "<i2" if signed else "<u2")
    pixels[0, 0] = stored
    for ds in series:
        ds.PixelData = pixels.tobytes()
        for keyword, number in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", limit)):
            if number is not None:
                ds.add_new(keyword, "US" if number >= 0 else "SS", number)
    hu = volume_from_datasets(series).hu_DHW
    assert hu[0, 0, 0] == AIR_HU
    assert hu[0, 0, 1] == 3050


def test_the_bits_above_the_high_bit_are_not_pixel_value() -> None:
    for signed, stored, expected in ((False, 0xF0FF, 0x0FF), (True, 0x0FFE, -2)):
        series = ct_series(2, signed=signed, intercept=0.0, BitsStored=12, HighBit=11)
        for ds in series:
            ds.PixelData = np.full((8, 9), stored, "<u2").tobytes()
        assert (volume_from_datasets(series).hu_DHW == expected).all()
    series = ct_series(2, intercept=0.0, BitsStored=12, HighBit=None)
    assert (volume_from_datasets(series).hu_DHW[0] == marked(8, 9)(0)).all()


def test_big_endian_pixels_are_read_as_such() -> None:
    series = ct_series(3)
    for ds in series:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    np.testing.assert_array_equal(volume_from_datasets(series).hu_DHW, [marked(8, 9)(index) for index in range(3)])


def test_a_dataset_without_file_meta_information_is_little_endian() -> None:
    series = ct_series(3)
    for ds in series:
        del ds.file_meta
    np.testing.assert_array_equal(volume_from_datasets(series).hu_DHW, [marked(8, 9)(index) for index in range(3)])


def test_compressed_pixels_are_decoded_single_frame_and_multi_frame() -> None:
    series = ct_series(3)
    multi = enhanced_ct(series)
    multi.compress(RLELossless)
    for ds in series:
        ds.compress(RLELossless)
    expected = np.stack([marked(8, 9)(index) for index in range(3)])
    for datasets in (series, [multi]):
        np.testing.assert_array_equal(volume_from_datasets(datasets).hu_DHW, expected)


def test_the_datasets_are_not_changed() -> None:
    series = ct_series(3)
    before = [ds.to_json() for ds in series]
    volume_from_datasets(series)
    assert [ds.to_json() for ds in series] == before


def test_missing_pixels_are_refused() -> None:
    for changes in ({"PixelData": None}, {"PixelData": b""}, {"Rows": None}, {"Rows": 0}):
        assert refusal(ct_series(3, **changes)).reason is Reason.MISSING_PIXELS


def test_truncated_pixels_are_refused_with_the_byte_counts() -> None:
    series = ct_series(3)
    series[1].PixelData = series[1].PixelData[:-10]
    caught = refusal(series)
    assert (caught.reason, caught.detail) == (Reason.PIXELS_TRUNCATED, "134 bytes of at least 144")
    multi = enhanced_ct(ct_series(3))
    multi.PixelData = multi.PixelData[:300]
    assert refusal([multi]).reason is Reason.PIXELS_TRUNCATED


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    paths = save(ct_series(3), tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert refusal(paths, of=volume_from_files).reason is Reason.PIXELS_TRUNCATED
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    assert refusal(paths, of=volume_from_files).reason is Reason.PIXELS_TRUNCATED


def test_a_file_that_is_gone_is_not_the_series_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        volume_from_files([*save(ct_series(3), tmp_path), tmp_path / "gone.dcm"])


def test_no_garbled_file_escapes_as_anything_but_a_reason(tmp_path: Path) -> None:
    paths = save(ct_series(3), tmp_path)
    whole, random = paths[1].read_bytes(), np.random.default_rng(4)
    damaged = [whole[:length] for length in range(0, len(whole), 37)]
    for _ in range(150):
        noisy = bytearray(whole)
        for place in random.integers(132, len(noisy), 3):
            noisy[place] = random.integers(256)
        damaged.append(bytes(noisy))
    refused = 0
    for data in damaged:
        paths[1].write_bytes(data)
        try:
            volume_from_files(paths)
        except NotAnalysable:
            refused += 1
    assert refused > len(damaged) / 3


def test_undecodable_pixels_are_refused_without_text_from_the_dataset() -> None:
    series = ct_series(3)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    caught = refusal(series)
    assert caught.reason is Reason.PIXELS_UNDECODABLE
    assert caught.detail.startswith("transfer syntax 1.2.840.10008.1.2.4.90")
    assert "Doe" not in str(caught)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.113619.5.2")
    assert refusal(series).detail == "a transfer syntax that is not in the Standard"


@pytest.mark.parametrize(
    "changes",
    [
        {"BitsAllocated": 12},
        {"BitsAllocated": None},
        {"SamplesPerPixel": 3},
        {"BitsStored": 17},
        {"BitsStored": 12, "HighBit": 16},
        {"BitsStored": 12, "HighBit": 5},
    ],
)
def test_pixel_descriptions_that_contradict_themselves_are_refused(changes: dict[str, Any]) -> None:
    assert refusal(ct_series(3, **changes)).reason is Reason.PIXELS_UNDECODABLE


def test_a_matrix_or_a_frame_count_that_is_only_claimed_costs_no_memory() -> None:
    assert refusal(ct_series(3, Rows=4096, Columns=4096)).reason is Reason.PIXELS_TRUNCATED
    assert refusal([enhanced_ct(ct_series(3), NumberOfFrames=20_000)]).reason is Reason.MISSING_GEOMETRY


def test_pixels_that_decode_to_another_matrix_are_refused() -> None:
    series = ct_series(3)
    for ds in series:
        ds.PixelData = encapsulate([jpeg_2000(np.zeros((16, 16), np.uint16))])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.Rows, ds.Columns = 16, 16
    assert volume_from_datasets(series).hu_DHW.shape == (3, 16, 16)
    for ds in series:
        ds.Rows = 8
    assert refusal(series).reason is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize("kind", ["OD", "US", "HU_MOD", "ed", "Z_EFF"])
def test_one_slice_in_other_than_hounsfield_units_is_refused(kind: str) -> None:
    series = ct_series(3)
    series[1].RescaleType = kind
    assert refusal(series).reason is Reason.NOT_HOUNSFIELD


def test_one_frame_in_other_than_hounsfield_units_is_refused() -> None:
    made = enhanced_ct(ct_series(3), shared=False)
    for each in made.PerFrameFunctionalGroupsSequence:
        each.PixelValueTransformationSequence[0].RescaleType = "HU"
    assert volume_from_datasets([made]).hu_DHW.shape[0] == 3
    made.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0].RescaleType = "ED"
    assert refusal([made]).reason is Reason.NOT_HOUNSFIELD


@pytest.mark.parametrize("kind", ["HU", "HU ", "hu", ""])
def test_hounsfield_units_may_be_padded_or_unsaid(kind: str) -> None:
    series = ct_series(3)
    for ds in series:
        ds.RescaleType = kind
    assert volume_from_datasets(series).hu_DHW.shape[0] == 3


@pytest.mark.parametrize("changes", [{"RescaleSlope": None}, {"RescaleIntercept": None}, {"RescaleSlope": 0}])
def test_a_slice_that_does_not_say_its_hounsfield_units_is_refused(changes: dict[str, Any]) -> None:
    series = ct_series(3)
    change(series[1], **changes)
    assert refusal(series).reason is Reason.MISSING_RESCALE


def test_reading_text_leaves_the_bytes_as_received(tmp_path: Path) -> None:
    series = ct_series(1)
    ds = dcmread(save(series, tmp_path)[0])
    assert text_of(ds, "PatientID") == "P-0001"
    assert isinstance(ds.get_item("PatientID"), RawDataElement)
    assert text_of(ds, "AdmissionID") == ""
    assert text_of(ds, "NotAKeyword") == ""
    assert next(frames(Dataset())).has_geometry is False
