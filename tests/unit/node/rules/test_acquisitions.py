"""What counts as one acquisition: signs that tell two apart, and signs that do not."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from node.rules.acquisitions import acquisition_of, described, is_derived, shows_all_of, split
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
        pytest.param(
            at("101500", content_at="20261123101600"),
            at("101500", content_at="20261123101700"),
            id="reconstructed later from the same pass",
        ),
        pytest.param(at("101500", kvp="120"), at("101500", kvp="120"), id="one tube voltage"),
        pytest.param(at("101500", range(1, 70)), at("101500", range(3, 66)), id="a little more of the patient"),
        pytest.param(slices(slice_thickness_mm=0.6), slices(slice_thickness_mm=3.0), id="thin slices for thick ones"),
        pytest.param(slices(slice_thickness_mm=0.75), slices(slice_thickness_mm=0.6), id="nearly as thin"),
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
        pytest.param(
            slices(content_at="20261123101600"), slices(content_at="20261123101700"), id="made later, no other time"
        ),
        pytest.param(slices(content_at="20261123101600"), slices(), id="only one says when it was made"),
        pytest.param(slices(image_type=("DERIVED", "PRIMARY", "AXIAL")), slices(), id="derived by Image Type"),
        pytest.param(slices(image_type=("ORIGINAL", "PRIMARY", "VOLUME", "SUBTRACTION")), slices(), id="subtracted"),
        pytest.param(slices(image_type=("ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED")), slices(), id="resampled"),
        pytest.param(slices(series_description="CTA bone removed"), slices(), id="bone removed, by its description"),
        pytest.param(slices(series_description="CTA BoneRemoval 0.75"), slices(), id="the same in one word"),
        pytest.param(slices(slice_thickness_mm=3.0), slices(slice_thickness_mm=0.6), id="thick slices for thin ones"),
        pytest.param(slices(range(1, 61, 2)), slices(), id="half of the slices"),
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
        pytest.param(
            [*slices(range(1, 31), acquisition_uid="2.25.1"), *slices(range(31, 61), acquisition_uid="2.25.2")],
            id="step and shoot, each step under a UID of its own",
        ),
        pytest.param([*slices(range(1, 31), stack="1"), *slices(range(31, 61), stack="2")], id="stack upon stack"),
    ],
)
def test_one_pass_through_the_patient_is_one_acquisition(headers: list[Header]) -> None:
    assert [sorted(part) for part in split(headers)] == [list(range(len(headers)))]


def parts(headers: list[Header]) -> list[list[str]]:
    """The SOP Instance UIDs of each acquisition, sorted."""
    return [sorted(headers[index].sop_instance_uid for index in part) for part in split(headers)]


def renumbered(start: int, headers: list[Header]) -> list[Header]:
    """The same slices as other instances, whose Instance Numbers go on from `start`."""
    return [
        replace(each, sop_instance_uid=f"2.25.6.{start + n}", instance_number=start + n)
        for n, each in enumerate(headers)
    ]


@pytest.mark.parametrize(
    "acquisitions",
    [
        pytest.param([at("101500", range(1, 61, 2)), at("101545", range(2, 61, 2))], id="interleaved"),
        pytest.param([at("101500"), renumbered(100, at("101545"))], id="two phases at the same places"),
        pytest.param(
            [slices(acquisition_number="1"), renumbered(100, slices(acquisition_number="2"))], id="two numbers"
        ),
        pytest.param(
            [slices(range(1, 61, 2), acquisition_uid="2.25.1"), slices(range(2, 61, 2), acquisition_uid="2.25.2")],
            id="interleaved, told by UID alone",
        ),
        pytest.param(
            [slices(range(1, 61, 2), stack="1"), slices(range(2, 61, 2), stack="2")], id="interleaved stacks"
        ),
        pytest.param([slices(acquisition_number="9"), renumbered(100, slices(acquisition_number="10"))], id="9 and 10"),
        pytest.param([slices(kvp="140"), renumbered(100, slices(kvp="80"))], id="two tube voltages"),
        pytest.param([slices(), renumbered(100, slices(convolution_kernel="Hr68h"))], id="two kernels"),
        pytest.param(
            [renumbered(100 * n, slices(temporal_position=str(n), acquired_at=f"1015{n:02d}")) for n in range(1, 4)],
            id="perfusion",
        ),
        pytest.param(
            [
                [
                    replace(each, sop_instance_uid=f"2.25.7.{n}.{second}", instance_number=100 * n + second)
                    for n, each in enumerate(at(f"1015{second:02d}"))
                ]
                for second in range(4)
            ],
            id="time points a second apart, numbered by place",
        ),
        *(
            pytest.param(
                [
                    [
                        replace(header(300, acquired_at="20261123101400"), sop_instance_uid=f"2.25.8.{n}", instance_number=n)
                        for n in range(900, 900 + count)
                    ],
                    at("101500"),
                ],
                id=f"{count} slices at one place far off that watch the contrast",
            )
            for count in (1, 2, 8)
        ),
        pytest.param(
            [
                [*at("101500", range(1, 31)), *at("101503", range(31, 61))],
                renumbered(100, [*at("101506", range(1, 31)), *at("101509", range(31, 61))]),
            ],
            id="two phases, each in two steps",
        ),
        pytest.param(
            [
                [h for n in range(1, 61) for h in slices(range(n, n + 1), acquisition_number=str(n))],
                renumbered(
                    100, [h for n in range(1, 61) for h in slices(range(n, n + 1), acquisition_number=str(100 + n))]
                ),
            ],
            id="two phases of slices that are numbered one by one",
        ),
        pytest.param(
            [slices(slice_thickness_mm=1.0), renumbered(100, slices(range(1, 61, 5), slice_thickness_mm=5.0))],
            id="thin and thick at one place",
        ),
        pytest.param(
            [slices(), renumbered(100, slices(image_type=("DERIVED", "PRIMARY", "AXIAL", "SUBTRACT")))],
            id="an original and its derived copy",
        ),
        pytest.param([slices(), renumbered(100, slices())], id="told by nothing but their numbers"),
        pytest.param(
            [slices(), renumbered(100, slices(range(1, 3), orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0)))],
            id="axial and sagittal",
        ),
    ],
)  # fmt: skip
def test_acquisitions_of_one_place_are_told_apart_in_whatever_order_they_came(acquisitions: list[list[Header]]) -> None:
    expected = [sorted(each.sop_instance_uid for each in acquisition) for acquisition in acquisitions]
    headers = [each for acquisition in acquisitions for each in acquisition]
    assert sorted(parts(headers)) == sorted(expected)
    order = parts(headers)
    for seed in range(5):
        mixed = list(headers)
        Random(seed).shuffle(mixed)
        assert parts(mixed) == order


def test_acquisitions_come_in_the_order_of_their_times_and_numbers() -> None:
    late, early = at("101545"), renumbered(100, at("101500"))
    assert parts([*late, *early])[0][0] == "2.25.6.100"
    ninth, tenth = slices(acquisition_number="9"), renumbered(100, slices(acquisition_number="10"))
    assert parts([*tenth, *ninth])[1][0] == "2.25.6.100"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            [*slices(range(1, 21), slice_thickness_mm=1.0), *slices(range(21, 61), slice_thickness_mm=2.0)],
            id="thin below, thick above",
        ),
        pytest.param([*slices(range(1, 31), kvp="120"), *slices(range(31, 61))], id="only some say the voltage"),
        pytest.param([*slices(range(1, 31), kvp="120"), *slices(range(31, 61), kvp=" 120 ")], id="padding"),
        pytest.param([*slices(), *renumbered(100, slices(range(5, 7)))], id="two slices repeated"),
        pytest.param([*slices(), *slices(instance_number=1)], id="repeated under the same numbers"),
        pytest.param([replace(each, position_mm=None) for each in slices()], id="no positions"),
    ],
)
def test_what_may_be_one_stays_one(headers: list[Header]) -> None:
    assert len(split(headers)) == 1


def test_of_no_slices_there_is_no_acquisition() -> None:
    assert split([]) == []


def test_an_answer_does_not_hold_where_either_series_holds_several_acquisitions() -> None:
    several = [*at("101500"), *renumbered(100, at("101545"))]
    assert not shows_all_of(acquisition_of(several), acquisition_of(at("101500")))
    assert not shows_all_of(acquisition_of(at("101500")), acquisition_of(several))


def test_an_acquisition_is_described_without_any_free_text() -> None:
    mine = at("101545.5", acquisition_number="2", kvp="120", convolution_kernel="Br36f\\4")
    assert described(mine) == "number 2, 120 kV, kernel Br36f, 10:15:45, 60 slices"
    odd = slices(range(1, 2), acquisition_number="DOE", convolution_kernel="Doe Jane", acquired_at="noon")
    assert described(odd) == "1 slice"


def test_an_original_is_not_derived() -> None:
    assert not is_derived(
        header(image_type=("ORIGINAL", "PRIMARY", "VOLUME", "NONE"), series_description="CTA meaningful")
    )


def test_an_acquisition_number_of_thousands_of_digits_is_none() -> None:
    long = "1" * 5000
    both = [
        *slices(range(1, 31), acquisition_number=long),
        *renumbered(100, slices(range(31, 61), acquisition_number="2")),
    ]
    assert sum(map(len, split(both))) == 60
