"""What counts as one acquisition: signs that tell two apart, and signs that do not."""

from typing import Any

import pytest

from node.rules.acquisitions import acquisition_of, is_derived, several_in_one, shows_all_of, values_of
from storage.records import Header
from tests.support.builders import header


def slices(numbers: range = range(1, 61), **changes: Any) -> list[Header]:
    return [header(number, **changes) for number in numbers]


def at(clock: str, numbers: range = range(1, 61), **changes: Any) -> list[Header]:
    return slices(numbers, acquired_at=f"20261123{clock}", **changes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(slices(), slices(), id="nothing is said of either"),
        pytest.param(at("101500"), at("101500", convolution_kernel="Hr68h"), id="another kernel of the same pass"),
        pytest.param(at("101500.25"), at("101501"), id="the same pass, timed more roughly"),
        pytest.param(at("101500", kvp="120"), at("101500", kvp="120"), id="one tube voltage"),
        pytest.param(at("101500", range(1, 70)), at("101500", range(3, 66)), id="a little more of the patient"),
    ],
)
def test_an_answer_on_one_reconstruction_holds_for_another(one: list[Header], other: list[Header]) -> None:
    assert shows_all_of(acquisition_of(one), acquisition_of(other))


@pytest.mark.parametrize(
    ("other", "mine"),
    [
        pytest.param(at("101500"), at("101545"), id="another phase, 45 s later"),
        pytest.param(at("101500"), slices(), id="only one says when"),
        pytest.param(slices(temporal_position="1"), slices(temporal_position="2"), id="another time point"),
        pytest.param(slices(kvp="80"), slices(kvp="140"), id="another tube voltage"),
        pytest.param(slices(), slices(contrast_agent="IODINE"), id="contrast is named in one only"),
        pytest.param(slices(range(1, 30)), slices(), id="a part of the patient"),
        pytest.param(slices(image_type=("DERIVED", "PRIMARY", "AXIAL")), slices(), id="derived by Image Type"),
        pytest.param(slices(image_type=("ORIGINAL", "PRIMARY", "VOLUME", "SUBTRACTION")), slices(), id="subtracted"),
        pytest.param(slices(image_type=("ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED")), slices(), id="resampled"),
        pytest.param(slices(series_description="CTA bone removed"), slices(), id="bone removed, by its description"),
        pytest.param(slices(series_description="CTA BoneRemoval 0.75"), slices(), id="the same in one word"),
    ],
)
def test_an_answer_does_not_hold_for_what_may_show_something_else(other: list[Header], mine: list[Header]) -> None:
    assert not shows_all_of(acquisition_of(other), acquisition_of(mine))


def test_a_derived_copy_may_be_covered_by_its_original() -> None:
    derived = slices(image_type=("DERIVED", "SECONDARY", "AXIAL"))
    assert shows_all_of(acquisition_of(slices()), acquisition_of(derived))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(slices(), id="nothing is said"),
        pytest.param(
            [h for n in range(1, 61) for h in at(f"1015{n // 10:02d}.{n % 10}", range(n, n + 1))], id="a spiral"
        ),
        pytest.param(
            [*at("101500", range(1, 21)), *at("101504", range(21, 41)), *at("101508", range(41, 61))],
            id="step and shoot, timed",
        ),
        pytest.param(
            [*slices(range(1, 31), acquisition_number="1"), *slices(range(31, 61), acquisition_number="2")],
            id="step and shoot, numbered",
        ),
    ],
)
def test_one_pass_through_the_patient_is_one_acquisition(headers: list[Header]) -> None:
    assert several_in_one(headers) == ""


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        pytest.param([*at("101500", range(1, 61, 2)), *at("101545", range(2, 61, 2))], "2 passes", id="interleaved"),
        pytest.param([*at("101500"), *at("101545")], "2 passes", id="two phases at the same places"),
        pytest.param(
            [*slices(acquisition_number="1"), *slices(acquisition_number="2")], "2 passes", id="two numbers, same places"
        ),
        pytest.param([*slices(kvp="80"), *slices(kvp="140")], "2 tube voltages", id="two tube voltages"),
        pytest.param(
            [*slices(), *slices(convolution_kernel="Hr68h")], "2 convolution kernels", id="two kernels"
        ),
        pytest.param(
            [*slices(temporal_position="1"), *slices(temporal_position="2"), *slices(temporal_position="3")],
            "3 temporal positions",
            id="perfusion",
        ),
    ],
)  # fmt: skip
def test_two_passes_over_the_same_place_are_never_one_volume(headers: list[Header], words: str) -> None:
    assert words in several_in_one(headers)
    assert words in several_in_one(headers[::-1])


def test_padding_is_no_difference() -> None:
    assert values_of("Br36f \\ 4") == ("Br36f", "4")
    assert several_in_one([*slices(kvp="120"), *slices(kvp="120 ")]) == ""


def test_an_original_is_not_derived() -> None:
    assert not is_derived(
        header(image_type=("ORIGINAL", "PRIMARY", "VOLUME", "NONE"), series_description="CTA meaningful")
    )
