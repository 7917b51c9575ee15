from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from node.config.sections import Eligibility
from node.config.spellings import DERIVED, NO_ORIGINAL, SHARP
from node.rules.eligibility import (
    Covered,
    NotEligible,
    Sibling,
    Turn,
    choose,
    ct_slices,
    ineligibility,
    ineligibility_of_one,
    is_sharp,
    strays,
)
from node.rules.ineligible import Ineligible
from storage.records import Header, Series
from storage.stages import Outcome, Stage
from tests.support.builders import START, header

RULES = Eligibility()


def slices(count: int = 60, **changes: Any) -> list[Header]:
    return [header(number, **changes) for number in range(1, count + 1)]


def reason(headers: list[Header], lacking: int = 0) -> Ineligible | None:
    said = ineligibility(headers, RULES, lacking)
    return said.reason if said else None


def test_a_thin_axial_head_ct_is_eligible() -> None:
    assert ineligibility(slices(), RULES) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"has_pixels": False}, Ineligible.NO_IMAGE),
        ({"sop_class_uid": SecondaryCaptureImageStorage}, Ineligible.SECONDARY_CAPTURE),
        ({"sop_class_uid": MultiFrameGrayscaleByteSecondaryCaptureImageStorage}, Ineligible.SECONDARY_CAPTURE),
        ({"sop_class_uid": MultiFrameGrayscaleWordSecondaryCaptureImageStorage}, Ineligible.SECONDARY_CAPTURE),
        ({"sop_class_uid": MultiFrameTrueColorSecondaryCaptureImageStorage}, Ineligible.SECONDARY_CAPTURE),
        ({"modality": "MR"}, Ineligible.NOT_CT),
        ({"modality": ""}, Ineligible.NOT_CT),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Ineligible.LOCALIZER),
        ({"image_type": ("original", "primary", "localizer")}, Ineligible.LOCALIZER),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 SPI", "MIP")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "PRIMARY", "PROJECTION IMAGE")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "SECONDARY", "Volume Rendering")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "PRIMARY", "VOLUME", "VOLUME_RENDER")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "PRIMARY", "VOLUME", "MAX_IP")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "SECONDARY", "OTHER", "CT_SOM5 VRT")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "PRIMARY", "VOLUME", "MINIP")}, Ineligible.REFORMAT),
        ({"image_type": ("DERIVED", "PRIMARY", "VOLUME", "NONE", "CURVED_MPR")}, Ineligible.REFORMAT),
        ({"image_type": ("ORIGINAL", "PRIMARY", " localizer ")}, Ineligible.LOCALIZER),
        ({"series_description": "COR MIP 10/3"}, Ineligible.REFORMAT),
        ({"series_description": "sagittal 2.0"}, Ineligible.REFORMAT),
        ({"series_description": "Cor"}, Ineligible.REFORMAT),
        ({"series_description": "VRT circle"}, Ineligible.REFORMAT),
        ({"series_description": "AX_MIP_5mm"}, Ineligible.REFORMAT),
        ({"series_description": "CTA_HEAD_MPR_AX"}, Ineligible.REFORMAT),
        ({"series_description": "Axial MIPs"}, Ineligible.REFORMAT),
        ({"series_description": "AX MIP THIN 5mm"}, Ineligible.REFORMAT),
        ({"series_description": "MIP Base of skull"}, Ineligible.REFORMAT),
    ],
)
def test_what_is_no_original_ct_volume_has_its_reason(changes: dict[str, Any], expected: Ineligible) -> None:
    assert reason(slices(**changes)) is expected


@pytest.mark.parametrize(
    "description", ["CTA 0.75 H20f", "Corot Carotid Angio", "HEAD ANGIO", "Sagamore protocol", "empirical", ""]
)
def test_descriptions_that_only_resemble_a_reformat_are_eligible(description: str) -> None:
    assert reason(slices(series_description=description)) is None


@pytest.mark.parametrize(
    "value", ["ANGIO", "CARDIAC", "PERFUSION", "VOLUME", "RESAMPLED", "CT_SOM5 SPI", "CT_SOM5 SEQ"]
)
def test_flavors_of_originals_and_resampled_images_are_eligible(value: str) -> None:
    assert reason(slices(image_type=("ORIGINAL", "PRIMARY", value))) is None


def test_derived_axial_images_are_eligible() -> None:
    assert reason(slices(image_type=("DERIVED", "PRIMARY", "AXIAL"))) is None
    assert reason(slices(image_type=())) is None


def test_one_object_without_pixels_does_not_spoil_a_series() -> None:
    assert reason([header(0, has_pixels=False), *slices()]) is None


def test_too_few_slices_are_told_with_their_number() -> None:
    assert ineligibility(slices(59), RULES) == NotEligible(Ineligible.TOO_FEW_SLICES, "59 slices, at least 60 wanted")
    assert reason(slices(60)) is None


def test_frames_of_a_multi_frame_object_count_as_slices() -> None:
    enhanced = str(EnhancedCTImageStorage)
    assert reason([header(number_of_frames=60, sop_class_uid=enhanced)]) is None
    assert reason([header(number_of_frames=59, sop_class_uid=enhanced)]) is Ineligible.TOO_FEW_SLICES


def test_a_part_of_a_long_series_is_not_taken_for_a_short_one() -> None:
    assert reason(slices(30), lacking=270) is None
    assert reason(slices(30), lacking=10) is Ineligible.TOO_FEW_SLICES
    scout = slices(1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    assert reason(scout, lacking=300) is None
    assert reason(scout, lacking=3) is Ineligible.LOCALIZER
    assert reason(slices(1, sop_class_uid="1.2.840.10008.5.1.4.1.1.66"), lacking=300) is Ineligible.NOT_CT


def spaced(spacing_mm: float, count: int = 60, **changes: Any) -> list[Header]:
    return [header(n, position_mm=(0.0, 0.0, n * spacing_mm), **changes) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [(0.5, None), (1.5, None), (1.504, None), (1.51, Ineligible.SLICES_TOO_FAR_APART)],
)
def test_slices_may_lie_as_far_apart_as_configured(spacing_mm: float, expected: Ineligible | None) -> None:
    assert reason(spaced(spacing_mm)) is expected


def test_slices_too_far_apart_are_told_in_millimetres() -> None:
    said = ineligibility(spaced(5.0), RULES)
    assert said == NotEligible(Ineligible.SLICES_TOO_FAR_APART, "5.00 mm apart, at most 1.5 mm wanted")


def test_copies_of_slices_do_not_hide_how_far_apart_they_are() -> None:
    copies = [replace(each, sop_instance_uid=f"{each.sop_instance_uid}.1") for each in spaced(5.0, 35)]
    assert reason([*spaced(5.0, 35), *copies]) is Ineligible.SLICES_TOO_FAR_APART
    copies = [replace(each, sop_instance_uid=f"{each.sop_instance_uid}.1") for each in spaced(1.0, 60)]
    assert reason([*spaced(1.0, 60), *copies]) is None


@pytest.mark.parametrize(
    ("spacing_mm", "thickness_mm", "expected"),
    [
        (1.0, 5.0, Ineligible.SLICES_TOO_THICK),
        (0.625, 1.25, None),
        (1.5, 3.0, None),
        (1.5, 3.01, Ineligible.SLICES_TOO_THICK),
        (1.0, None, None),
    ],
)
def test_slices_that_overlap_are_as_coarse_as_they_are_thick(
    spacing_mm: float, thickness_mm: float | None, expected: Ineligible | None
) -> None:
    assert reason(spaced(spacing_mm, slice_thickness_mm=thickness_mm)) is expected


def test_of_several_acquisitions_one_must_be_thin() -> None:
    thick = spaced(5.0, 40, kvp="80")
    assert reason([*thick, *spaced(5.0, 40, kvp="140")]) is Ineligible.SLICES_TOO_FAR_APART
    assert reason([*thick, *spaced(1.0, 60, kvp="140")]) is None
    assert ineligibility_of_one(spaced(1.0, 59), RULES) == NotEligible(
        Ineligible.TOO_FEW_SLICES, "59 slices, at least 60 wanted"
    )
    projections = slices(60, image_type=("DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"))
    assert ineligibility_of_one(projections, RULES) == NotEligible(Ineligible.REFORMAT)


def test_the_rules_are_those_of_the_configuration() -> None:
    rules = Eligibility(minimum_slices=2, maximum_spacing_mm=6, excluded_image_types=(), excluded_descriptions=())
    assert (
        ineligibility(spaced(5.0, 2, image_type=("DERIVED", "SECONDARY", "MPR"), series_description="MIP"), rules)
        is None
    )


@pytest.mark.parametrize("reason", Ineligible)
def test_every_reason_is_explained_in_a_sentence(reason: Ineligible) -> None:
    assert reason.explained.endswith(".")


@pytest.mark.parametrize(
    "kernel",
    [
        "U70u", "U90u", "Ur77", "S80s",  # Siemens
        "H60s", "H70h", "Br64d\\3", "I70f", "Br64d ", "J70h", "Hr68h", "Qr59d", "B60f", "B70f", "Br64d", "Bl57f",  # Siemens
        "BONE", "BONEPLUS", "HD BONE", "EDGE", "LUNG", "ULTRA",  # GE
        "YA", "YB", "YC", "YD", "YE", "L",  # Philips
        "FC30", "FC51", "FC81",  # Toshiba and Canon
    ],
)  # fmt: skip
def test_bone_and_lung_kernels_are_sharp(kernel: str) -> None:
    assert is_sharp([header(convolution_kernel=kernel)], RULES)
    assert is_sharp([header(convolution_kernel=kernel.lower())], RULES)


@pytest.mark.parametrize(
    "kernel",
    [
        "Br36f\\4", "I31f\\5", "I41f",
        "H20f", "H30s", "H40s", "J30s", "J40s", "Hr38", "Hv40f", "Bv36f", "Br40d", "Qr40", "B20f", "B26f", "B30f",
        "STANDARD", "SOFT", "DETAIL", "Bf39", "Hc40", "S40s",
        "UA", "UB", "A", "B", "C",
        "FC08", "FC10", "FC21", "FC24", "FC26", "FC43", "FC44",
        "",
    ],
)  # fmt: skip
def test_soft_and_vascular_kernels_are_not_sharp(kernel: str) -> None:
    assert not is_sharp([header(convolution_kernel=kernel)], RULES)


def other(
    number: int = 2, stage: Stage = Stage.RECEIVING, sharp: bool = False, outcome: Outcome | None = None, why: str = ""
) -> Sibling:
    series = Series(
        id=number, series_instance_uid=f"2.25.{number}", study_instance_uid="2.25.1001", calling_ae="PACS",
        stage=stage, revision=1, instance_count=300, expected_count=None, count_asked_at=None, conflicts=(),
        attempts=0, first_instance_at=START, last_instance_at=START, outcome=outcome, reason=why,
    )  # fmt: skip
    return Sibling(series, sharp)


def reported(outcome: Outcome, why: str = "", sharp: bool = False) -> Sibling:
    return other(stage=Stage.REPORTED, outcome=outcome, why=why, sharp=sharp)


def turn(sharp: bool, *siblings: Sibling, quiet_seconds: float = 100) -> Turn | Covered:
    return choose(other(1, sharp=sharp), siblings, START - timedelta(seconds=quiet_seconds), START, RULES)


def test_a_soft_kernel_goes_at_once() -> None:
    assert turn(False, quiet_seconds=0) is Turn.GO
    assert turn(False, other(), quiet_seconds=0) is Turn.GO


def test_a_sharp_kernel_goes_only_when_the_study_has_been_quiet() -> None:
    assert turn(True, quiet_seconds=19.9) is Turn.WAIT
    assert turn(True, quiet_seconds=20) is Turn.GO
    assert turn(True, quiet_seconds=-4) is Turn.WAIT
    assert turn(True, quiet_seconds=-86_400) is Turn.GO, "the clock was set back"


def test_a_sharp_kernel_waits_for_a_soft_one_that_is_still_coming() -> None:
    assert turn(True, other(stage=Stage.RECEIVING)) is Turn.WAIT
    assert turn(True, other(stage=Stage.RECEIVING, sharp=True)) is Turn.GO


@pytest.mark.parametrize("stage", [Stage.READY, Stage.ANALYSING])
def test_a_series_waits_for_one_as_good_that_is_at_work(stage: Stage) -> None:
    assert turn(False, other(stage=stage)) is Turn.WAIT
    assert turn(True, other(stage=stage)) is Turn.WAIT
    assert turn(True, other(stage=stage, sharp=True)) is Turn.WAIT


@pytest.mark.parametrize("stage", [Stage.READY, Stage.ANALYSING])
def test_a_soft_kernel_does_not_wait_for_a_sharp_one(stage: Stage) -> None:
    assert turn(False, other(stage=stage, sharp=True)) is Turn.GO


@pytest.mark.parametrize(
    "sibling",
    [reported(Outcome.POSITIVE), reported(Outcome.NEGATIVE)],
)
def test_an_answer_for_the_acquisition_covers_its_other_reconstructions(sibling: Sibling) -> None:
    assert turn(False, sibling) == Covered(2)
    assert turn(True, sibling) == Covered(2)


def test_no_contrast_covers_a_sharp_kernel_with_as_many_slices_and_nothing_else() -> None:
    plain = reported(Outcome.NOT_ANALYSED, "no_contrast")
    assert turn(True, plain) == Covered(2)
    assert turn(False, plain) is Turn.GO, "a soft series may be the angiography that came after"
    assert turn(True, replace(plain, sharp=True)) is Turn.GO
    fewer = replace(plain, series=replace(plain.series, instance_count=299))
    assert turn(True, fewer) is Turn.GO


def test_the_answer_of_a_sharp_kernel_does_not_cover_a_soft_one() -> None:
    sibling = reported(Outcome.NEGATIVE, sharp=True)
    assert turn(False, sibling) is Turn.GO
    assert turn(True, sibling) == Covered(2)


@pytest.mark.parametrize(
    "sibling",
    [
        reported(Outcome.NOT_ANALYSED, "gap"),
        reported(Outcome.NOT_ANALYSED, "coverage"),
        reported(Outcome.NOT_ELIGIBLE, "too_few_slices"),
        other(stage=Stage.FAILED, outcome=Outcome.NOT_ANALYSED, why="attempts_exhausted"),
        other(stage=Stage.SET_ASIDE, outcome=Outcome.NOT_ELIGIBLE, why="slices_too_far_apart"),
        other(stage=Stage.SET_ASIDE, outcome=Outcome.COVERED, why="covered"),
        other(stage=Stage.RECEIVING, outcome=Outcome.NEGATIVE),
    ],
)
def test_what_says_nothing_of_the_acquisition_covers_nothing(sibling: Sibling) -> None:
    assert turn(False, sibling) is Turn.GO


def test_an_answer_counts_before_another_that_is_at_work() -> None:
    assert turn(True, other(3, Stage.ANALYSING), reported(Outcome.NEGATIVE)) == Covered(2)


STRAYS: list[dict[str, Any]] = [
    {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")},
    {"sop_class_uid": SecondaryCaptureImageStorage},
    {"modality": "SR", "has_pixels": False},
    {"image_type": ("DERIVED", "SECONDARY", "MPR")},
    {"modality": "PT"},
]


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("place", [0, 30, 60])
def test_a_stray_anywhere_in_the_series_is_set_aside_and_the_slices_left_are_judged(
    stray: dict[str, Any], place: int
) -> None:
    headers = slices()
    headers.insert(place, header(99, **stray))
    assert ineligibility(headers, RULES) is None
    assert len(ct_slices(headers, RULES)) == 60
    assert sum(strays(headers, RULES).values()) == 1


def test_what_is_left_beside_strays_may_be_too_little() -> None:
    assert reason([*slices(59), header(99, **STRAYS[0])]) is Ineligible.TOO_FEW_SLICES


@pytest.mark.parametrize(
    "description",
    ["THIN FOR MPR", "CTA 0.6 for MIPs", "thin  for VRT", "CTA COW 0.5 (MIP SOURCE)", "COW_MIP_SOURCE", "THIN_FOR_MIP"],
)
def test_thin_slices_for_reformats_are_no_reformat(description: str) -> None:
    assert ineligibility(slices(series_description=description), RULES) is None


@pytest.mark.parametrize("pattern", ["^CTA_5MM", "cta 5mm", r"\bthick\b"])
def test_a_pattern_of_the_site_may_have_underscores_or_spaces(pattern: str) -> None:
    rules = Eligibility(excluded_descriptions=(pattern,))
    assert ineligibility(slices(series_description="CTA_5MM_THICK"), rules) == NotEligible(Ineligible.REFORMAT)


def test_sop_classes_of_ct_are_eligible() -> None:
    assert reason(slices(sop_class_uid=CTImageStorage)) is None


def test_every_spelling_has_its_source() -> None:
    assert all(each.source for each in (*NO_ORIGINAL, *DERIVED, *SHARP))
    assert sum(not each.is_sure for each in (*NO_ORIGINAL, *DERIVED, *SHARP)) > 0


SERIES = [
    *slices(),
    header(90, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0)),
    header(91, sop_class_uid=SecondaryCaptureImageStorage, modality="OT", position_mm=None, orientation=None),
    header(92, image_type=("DERIVED", "SECONDARY", "SCREEN SAVE"), position_mm=None),
    header(93, image_type=("DERIVED", "SECONDARY", "MPR"), orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)),
    header(94, modality="SR", has_pixels=False),
    header(95, series_description="COR MIP"),
]


@given(st.permutations(SERIES), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_order_in_which_a_series_comes_changes_nothing(mixed: list[Header], thick: bool) -> None:
    mixed = [replace(each, slice_thickness_mm=5.0) for each in mixed] if thick else mixed
    ordered = [replace(each, slice_thickness_mm=5.0) for each in SERIES] if thick else SERIES
    assert ineligibility(mixed, RULES) == ineligibility(ordered, RULES)
    assert {each.sop_instance_uid for each in ct_slices(mixed, RULES)} == {
        each.sop_instance_uid for each in ct_slices(ordered, RULES)
    }
    assert strays(mixed, RULES) == strays(ordered, RULES)
    assert is_sharp(ct_slices(mixed, RULES), RULES) == is_sharp(ct_slices(ordered, RULES), RULES)


@given(st.permutations(SERIES[-6:] + slices(3)))
@settings(max_examples=60, deadline=None)
def test_the_reason_of_a_series_without_enough_slices_does_not_depend_on_their_order(mixed: list[Header]) -> None:
    assert ineligibility(mixed, RULES) == ineligibility([*SERIES[-6:], *slices(3)], RULES)
    only_strays = [each for each in mixed if each in SERIES[-6:]]
    assert ineligibility(only_strays, RULES) == ineligibility(SERIES[-6:], RULES)


def test_of_strays_of_two_kinds_as_many_the_reason_does_not_depend_on_their_order() -> None:
    assert reason([SERIES[60], SERIES[61]]) is reason([SERIES[61], SERIES[60]]) is not None
