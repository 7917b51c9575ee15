"""Every frame of a multi-frame image is a slice with a header of its own."""

from typing import Any

import pytest
from pydicom import DataElement, Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from node.dicom.frame_headers import frame_headers, is_part_of_concatenation
from tests.support.builders import header
from tests.support.dicom_factory import ct_series, enhanced_ct


def group(macro: str, **attributes: Any) -> Dataset:
    item, groups = Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    setattr(groups, macro, Items([item]))
    return groups


@pytest.mark.parametrize("shared", [True, False])
def test_a_frame_lies_where_its_plane_position_says(shared: bool) -> None:
    made = enhanced_ct(ct_series(4, spacing_mm=5.0), shared=shared)
    positions = [each.position_mm for each in frame_headers(header(number_of_frames=4), made)]
    assert [position[2] for position in positions if position] == [100.0, 105.0, 110.0, 115.0]


def test_a_frame_says_itself_how_it_was_made_and_before_what_all_share() -> None:
    made = enhanced_ct(ct_series(2))
    shared = made.SharedFunctionalGroupsSequence[0]
    shared.update(group("CTReconstructionSequence", ConvolutionKernel=["Hr68h", "3"]))
    shared.update(group("CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]))
    shared.update(group("CTXRayDetailsSequence", KVP="120.0"))
    for number, frame in enumerate(made.PerFrameFunctionalGroupsSequence, start=1):
        frame.update(group("FrameContentSequence", FrameAcquisitionNumber=number, TemporalPositionIndex=number))
    own = group("CTImageFrameTypeSequence", FrameType=["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"])
    made.PerFrameFunctionalGroupsSequence[1].update(own)
    one, two = frame_headers(header(number_of_frames=2, convolution_kernel="H20f"), made)
    assert (one.convolution_kernel, one.kvp, one.acquisition_number, one.temporal_position) == (
        "Hr68h\\3",
        "120",
        "1",
        "1",
    )
    assert (one.image_type[0], two.image_type[0], two.image_type[3]) == ("ORIGINAL", "DERIVED", "MAX_IP")


@pytest.mark.parametrize("offset", ["", "+0100", "-0530"])
@pytest.mark.parametrize("fraction", ["", ".5"])
def test_when_a_frame_was_acquired_is_read_without_its_offset_from_utc(fraction: str, offset: str) -> None:
    made = enhanced_ct(ct_series(1))
    at = f"20240101120000{fraction}"
    made.PerFrameFunctionalGroupsSequence[0].update(
        group("FrameContentSequence", FrameAcquisitionDateTime=f"{at}{offset}")
    )
    [frame] = frame_headers(header(number_of_frames=1), made)
    assert (frame.acquired_at, frame.instance_number) == (at, 1)


def test_what_the_groups_do_not_say_stands_in_the_instance() -> None:
    first, _ = frame_headers(header(number_of_frames=2, kvp="100"), enhanced_ct(ct_series(2)))
    assert (first.kvp, first.convolution_kernel, first.image_type) == ("100", "H20f", ("ORIGINAL", "PRIMARY", "AXIAL"))


def test_stacks_and_the_dimension_of_time_tell_frames_apart() -> None:
    made = enhanced_ct(ct_series(2))
    pointers = [Dataset(), Dataset()]
    for pointer, keyword in zip(pointers, ("InStackPositionNumber", "TemporalPositionIndex"), strict=True):
        pointer.DimensionIndexPointer = Tag(keyword)
    made.DimensionIndexSequence = pointers
    for number, frame in enumerate(made.PerFrameFunctionalGroupsSequence, start=1):
        frame.update(group("FrameContentSequence", StackID=str(number), DimensionIndexValues=[7, 3 + number]))
    one, two = frame_headers(header(number_of_frames=2), made)
    assert [(each.stack, each.temporal_position) for each in (one, two)] == [("1", "4"), ("2", "5")]
    made.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].DimensionIndexValues = 7  # fewer than dimensions
    assert frame_headers(header(number_of_frames=2), made)[0].temporal_position == ""


def test_a_concatenation_is_part_of_something_unless_it_is_the_only_part() -> None:
    made = enhanced_ct(ct_series(2))
    assert not is_part_of_concatenation(made)
    made.ConcatenationUID = "2.25.9"
    assert is_part_of_concatenation(made)
    made.InConcatenationTotalNumber = 1
    assert not is_part_of_concatenation(made)


def test_functional_groups_that_are_no_sequence_say_nothing() -> None:
    made = enhanced_ct(ct_series(2))
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        made[keyword] = DataElement(keyword, "LO", "no items")
    made.add(DataElement("DimensionIndexSequence", "DS", [1.5, 2.5]))
    assert len(frame_headers(header(number_of_frames=2), made)) == 2
