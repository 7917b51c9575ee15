"""What is one acquisition: phases, copies, and several in one series."""

from typing import Any

from pydicom import Dataset

from tests.corpus.images import ANEURYSM_HU, FILLED_HU, PLAIN_HU, at, cta, enhanced, interleaved
from tests.corpus.situation import Sending, Situation


def after(first: list[Dataset], second: list[Dataset]) -> tuple[Sending, Sending]:
    """One series, which has ended when the other comes."""
    return Sending(first, then_ends=True), Sending(second)


SITUATIONS = (
    Situation(
        "a second phase under the same acquisition number",
        "Weasis issue 701, dcm2niix issue 721: phases share what should tell them apart",
        lambda: after(at("101500", cta()), at("101545", cta(ANEURYSM_HU, series=2))),
        ("negative", "positive"),
    ),
    Situation(
        "a second phase of which only the first says when",
        "sibling of the above: one scanner console strips times",
        lambda: after(at("101500", cta()), cta(ANEURYSM_HU, series=2, AcquisitionNumber=1, AcquisitionDate="20260101")),
        ("negative", "positive"),
    ),
    Situation(
        "another kernel of the same pass",
        "every scanner: one pass is reconstructed twice",
        lambda: after(
            at("101500", cta(ConvolutionKernel="Hr40f")), at("101500", cta(series=2, ConvolutionKernel="Hr38f"))
        ),
        ("negative", "covered: covered"),
    ),
    Situation(
        "a bone-removed copy comes before its original",
        "PS3.3 C.7.6.1.1.2: Image Type DERIVED",
        lambda: after(
            at("101500", cta(ImageType=["DERIVED", "SECONDARY", "AXIAL", "BONE_REMOVED"])),
            at("101500", cta(ANEURYSM_HU, series=2)),
        ),
        ("negative", "positive"),
    ),
    Situation(
        "a copy with the bone removed says so only in its description",
        "workstations keep ORIGINAL in Image Type",
        lambda: after(
            at("101500", cta(SeriesDescription="CTA BoneRemoval 0.75")), at("101500", cta(ANEURYSM_HU, series=2))
        ),
        ("negative", "positive"),
    ),
    Situation(
        "an original covers its derived copy",
        "the same, the other way round",
        lambda: after(
            at("101500", cta()), at("101500", cta(series=2, ImageType=["DERIVED", "SECONDARY", "AXIAL", "FILTERED"]))
        ),
        ("negative", "covered: covered"),
    ),
    Situation(
        "the lower and the higher tube voltage as two series",
        "dual-energy CT (PS3.3 C.8.2.1: KVP)",
        lambda: after(at("101500", cta(KVP=140)), at("101500", cta(ANEURYSM_HU, series=2, KVP=80))),
        ("negative", "positive"),
    ),
    Situation(
        "the plain head before the angiography, both acquisition 1",
        "scanners that number every acquisition 1",
        lambda: after(at("101500", cta(PLAIN_HU)), at("101900", cta(series=2))),
        ("not_analysed: no_contrast", "negative"),
    ),
    Situation(
        "a short series does not cover a long one of the same pass",
        "a slab around the circle is sent beside the whole head",
        lambda: after(at("101500", cta()), at("101500", cta(ANEURYSM_HU, 60, series=2))),
        ("negative", "positive"),
    ),
    Situation(
        "time points of a perfusion as series of their own",
        "Temporal Position Identifier (0020,0100)",
        lambda: after(cta(TemporalPositionIdentifier=1), cta(ANEURYSM_HU, series=2, TemporalPositionIdentifier=2)),
        ("negative", "positive"),
    ),
    Situation(
        "step and shoot, timed and numbered",
        "axial scanning: the table moves between rotations",
        lambda: [
            Sending(
                [
                    ds
                    for step in range(4)
                    for ds in at(f"1015{4 * step:02d}", cta()[6 * step : 6 * step + 6], number=step + 1)
                ]
            )
        ],
        ("negative",),
    ),
    Situation(
        "two interleaved passes in one series",
        "an axial scan repeated with a shift of half a slice",
        lambda: [
            Sending(
                interleaved(
                    at("101500", cta(spacing_mm=1.0)),
                    at("101545", cta(ANEURYSM_HU, spacing_mm=1.0, origin_mm=(-20, -30, 100.5), first=100), number=2),
                )
            )
        ],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "two phases at the same places in one series",
        "Slicer pull request 4801: phases in one series",
        lambda: [Sending([*at("101500", cta()), *at("101545", cta(ANEURYSM_HU, first=100))])],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "two phases of one Enhanced CT instance",
        "PS3.3 C.7.6.16.2.2: Frame Acquisition DateTime, Temporal Position Index",
        lambda: [Sending([enhanced_phases()])],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "two tube voltages in one series",
        "dual-energy source images",
        lambda: [Sending([*cta(KVP=140), *cta(ANEURYSM_HU, first=100, KVP=80)])],
        ("positive",),
        ("2 acquisitions", "80 kV"),
    ),
    Situation(
        "two kernels in one series",
        "a PACS that merges series by description",
        lambda: [Sending([*cta(ConvolutionKernel="Hr40f"), *cta(first=100, ConvolutionKernel="Hr68h")])],
        ("negative",),
        ("2 acquisitions", "Hr40f"),
    ),
    Situation(
        "a plain head and its angiography in one series",
        "a technologist appends the second scan",
        lambda: [Sending([*at("101500", cta(PLAIN_HU)), *at("101900", cta(ANEURYSM_HU, first=100), number=2)])],
        ("positive",),
        ("2 acquisitions", "no_contrast"),
    ),
    Situation(
        "three acquisitions in one series, one with a gap",
        "sibling of the above, one of them broken off",
        lambda: [
            Sending(
                [
                    *at("101500", cta()),
                    *at("101545", cta(ANEURYSM_HU, first=100), number=2),
                    *[ds for n, ds in enumerate(at("101630", cta(first=200, count=30), number=3)) if n != 10],
                ]
            )
        ],
        ("positive",),
        ("3 acquisitions", "not analysed: gap"),
    ),
    Situation(
        "two acquisitions in one series, both broken",
        "sibling of the above",
        lambda: [
            Sending(
                [
                    *[ds for n, ds in enumerate(at("101500", cta(count=30))) if n != 10],
                    *[ds for n, ds in enumerate(at("101545", cta(first=100, count=30), number=2)) if n != 15],
                ]
            )
        ],
        ("not_analysed: gap",),
    ),
    Situation(
        "a perfusion of six time points in one series",
        "CT perfusion, one series for all time points",
        lambda: [
            Sending(
                [
                    ds
                    for n, hu in enumerate((PLAIN_HU, 120, FILLED_HU, ANEURYSM_HU, FILLED_HU, 120))
                    for ds in at(f"1015{n:02d}", cta(hu, first=100 * n), number=1, TemporalPositionIdentifier=n + 1)
                ]
            )
        ],
        ("positive",),
        ("6 acquisitions", "filled best"),
    ),
    Situation(
        "a perfusion of thick slices",
        "CT perfusion: 8 slices of 5 mm, many times",
        lambda: [
            Sending(
                [
                    ds
                    for n in range(6)
                    for ds in at(
                        f"1015{n:02d}", cta(count=8, first=100 * n, spacing_mm=5.0), TemporalPositionIdentifier=n + 1
                    )
                ]
            )
        ],
        ("not_eligible: slices_too_far_apart",),
    ),
    Situation(
        "slices of the bolus tracking in the angiography's series",
        "bolus tracking: one place, once a second, before the scan",
        lambda: [
            Sending(
                [
                    *[
                        at(f"1014{n:02d}", cta(PLAIN_HU, first=500 + n, count=1, origin_mm=(-20, -30, 120)), number=1)[
                            0
                        ]
                        for n in range(0, 20, 2)
                    ],
                    *at("101500", cta(), number=2),
                ]
            )
        ],
        ("negative",),
        ("too_few_slices",),
    ),
    Situation(
        "two interleaved passes told apart by Acquisition UID alone",
        "PS3.3 C.7.6.1: Acquisition UID (0008,0017), times removed by an anonymiser",
        lambda: [
            Sending(
                interleaved(
                    cta(spacing_mm=1.0, AcquisitionUID="2.25.31"),
                    cta(ANEURYSM_HU, origin_mm=(-20, -30, 100.5), first=100, AcquisitionUID="2.25.32"),
                )
            )
        ],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "step and shoot, each step under an Acquisition UID of its own",
        "sibling of the above: a UID for each continuous gathering",
        lambda: [
            Sending([ds for step in range(4) for ds in cta(AcquisitionUID=f"2.25.3{step}")[6 * step : 6 * step + 6]])
        ],
        ("negative",),
    ),
    Situation(
        "two stacks over one place in one Enhanced CT instance",
        "PS3.3 C.7.6.16.2.2: Stack ID",
        lambda: [Sending([enhanced_stacks(0.5)])],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "two stacks one above the other in one Enhanced CT instance",
        "sibling of the above: neck and head of one pass",
        lambda: [Sending([enhanced_stacks(24.0, FILLED_HU)])],
        ("negative",),
    ),
    Situation(
        "two time points told apart by their dimension index alone",
        "PS3.3 C.7.6.17: Dimension Index Pointer to Temporal Position Index",
        lambda: [Sending([enhanced_moments()])],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "a second phase of which only the content time tells",
        "an anonymiser that removes the times of acquisition; doubt analyses both",
        lambda: after(
            cta(AcquisitionNumber=1, AcquisitionDate="20260101", ContentTime="101600"),
            cta(ANEURYSM_HU, series=2, AcquisitionNumber=1, AcquisitionDate="20260101", ContentTime="101700"),
        ),
        ("negative", "positive"),
    ),
    Situation(
        "thick and thin slices of one pass in one series",
        "two reconstructions that a PACS has merged",
        lambda: [
            Sending([*cta(SliceThickness=1.0), *cta(PLAIN_HU, count=5, spacing_mm=5.0, first=100, SliceThickness=5.0)])
        ],
        ("negative",),
        ("2 acquisitions",),
    ),
)


def enhanced_phases() -> Dataset:
    """Two phases of 24 frames, told apart by Frame Acquisition DateTime and Temporal Position Index."""
    from pydicom.sequence import Sequence as Items

    ds = enhanced([*cta(), *cta(ANEURYSM_HU, first=100)])
    for index, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + index // 24
        content.FrameAcquisitionDateTime = "20260101101500" if index < 24 else "20260101101545"
        groups.FrameContentSequence = Items([content])
    return ds


def with_contents(ds: Dataset, **changes: Any) -> Dataset:
    """The enhanced image whose first and second half have one and the other of two values in their frame content."""
    from pydicom.sequence import Sequence as Items

    groups = list(ds.PerFrameFunctionalGroupsSequence)
    for index, each in enumerate(groups):
        content = Dataset()
        for keyword, values in changes.items():
            setattr(content, keyword, values[2 * index // len(groups)])
        each.FrameContentSequence = Items([content])
    return ds


def enhanced_stacks(apart_mm: float, hu: int = ANEURYSM_HU) -> Dataset:
    """Two stacks of 24 frames, of which the second begins so far above the first."""
    second = cta(hu, origin_mm=(-20, -30, 100 + apart_mm), first=100)
    return with_contents(enhanced([*cta(), *second]), StackID=("1", "2"))


def enhanced_moments() -> Dataset:
    """Two moments interleaved in place, with no other sign of it than their index in the dimension of time."""
    from pydicom.sequence import Sequence as Items
    from pydicom.tag import Tag

    ds = enhanced([*cta(), *cta(ANEURYSM_HU, origin_mm=(-20, -30, 100.5), first=100)])
    dimension = Dataset()
    dimension.DimensionIndexPointer = Tag("TemporalPositionIndex")
    ds.DimensionIndexSequence = Items([dimension])
    return with_contents(ds, DimensionIndexValues=(1, 2))
