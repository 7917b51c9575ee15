"""How often the region of interest holds what it must: `python -m training.audit [FIRST_SEED] [COUNT]`.

Whole phantom series, half of them from the held-out ranges, go through the same steps as a patient's before the network:
head, coverage, contrast, region.  A share of the series lacks contrast or part of the circle of Willis.
"""

import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
from rich.progress import track

from ai.circle import located_extent, steady_centre
from ai.contrast import enhanced_tubes
from ai.errors import NotAnalysable
from ai.measures import quality_of
from ai.preprocess import Preprocessing
from training.dataset import circle_centre, enriched_lesions
from training.phantom import make_scan
from training.phantom.frame import FloatArray

FIRST_SEED = 9_200_000
"""Neither training, validation, the demo nor the benchmarks draw from here."""
MARGIN_MM = 5.0
"""A lesion nearer than this to the region's side counts as lost: the network would see half of its surroundings."""


@dataclass(frozen=True)
class Audited:
    """One series.  `kind`: whole, cropped or plain (without contrast).  `error_mm` of the circle's centre, z y x; nan unless found.

    `limits`: what in the images is said to limit the answer.
    """

    seed: int
    kind: str
    found: bool
    covered: bool
    contrast: bool
    error_mm: tuple[float, float, float]
    lesions: int
    inside: int
    limits: tuple[str, ...] = ()


def audit(seed: int, settings: Preprocessing) -> Audited:
    """What is said of the phantom `seed`, and how far that is from the truth."""
    kind = "cropped" if seed % 8 == 6 else "plain" if seed % 8 == 7 else "whole"
    scan = make_scan(
        seed,
        lesions=enriched_lesions(seed, (4,)) if kind == "whole" else 0,
        held_out=seed % 2 == 1,
        matrix=256,
        spacing_mm=1.0,
        contrast=kind != "plain",
        cropped=kind == "cropped",
    )
    nowhere = (np.nan,) * 3
    try:
        extent = located_extent(scan.volume)
    except NotAnalysable:
        return Audited(seed, kind, False, False, False, nowhere, len(scan.lesions), 0)
    if extent.circle_centre_lps_mm is None:
        return Audited(seed, kind, False, False, False, nowhere, len(scan.lesions), 0)
    centre = steady_centre(scan.volume, extent.circle_centre_lps_mm)
    half_mm = settings.spacing_mm * np.array(settings.size_DHW[::-1]) / 2.0 - MARGIN_MM
    middle = np.array(centre) + np.array(settings.offset_lps_mm)
    inside = sum(bool((np.abs(np.array(each.centre_lps_mm) - middle) <= half_mm).all()) for each in scan.lesions)
    error = np.full(3, np.nan)
    if kind == "whole":  # a cropped one may lack the carotids whose middle is the truth
        error = np.array(centre) - np.array(circle_centre(scan.vessel_DHW, scan.volume.affine_lps))
    tubes = enhanced_tubes(scan.volume, centre)
    return Audited(
        seed,
        kind,
        True,
        extent.covers_circle_of_willis(),
        tubes.filled,
        (float(error[2]), float(error[1]), float(error[0])),
        len(scan.lesions),
        inside,
        quality_of(scan.volume, centre, tubes, extent.spread_mm, extent.below_mm).limits,
    )


def summary(audited: list[Audited]) -> list[str]:
    """The figures, a line each."""
    of = {kind: [each for each in audited if each.kind == kind] for kind in ("whole", "cropped", "plain")}
    errors = np.array([each.error_mm for each in of["whole"] if each.found])
    lesions = sum(each.lesions for each in of["whole"])
    inside = sum(each.inside for each in of["whole"])
    lines = [f"phantom figures; {len(audited)} series"]
    if of["whole"]:
        good = sum(each.covered and each.contrast for each in of["whole"])
        lines += [
            f"whole: analysed {good} of {len(of['whole'])}; lesions inside the region {inside} of {lesions}",
            "centre error z, y, x mm, median of absolute: "
            + ", ".join(f"{value:.1f}" for value in np.median(np.abs(errors), axis=0)),
            percentiles(np.linalg.norm(errors, axis=1)),
            limited(of["whole"]),
        ]
    for kind, word in (("cropped", "covered"), ("plain", "contrast")):
        if of[kind]:
            wrong = sum(getattr(each, word) for each in of[kind])
            lines.append(f"{kind}: taken for {word} {wrong} of {len(of[kind])}")
    return lines


def limited(audited: list[Audited]) -> str:
    """A line with how many series are said to be limited, and by what."""
    counts = Counter(limit for each in audited for limit in each.limits)
    named = "; ".join(f"{limit} {count}" for limit, count in sorted(counts.items())) or "by nothing"
    return f"limited {sum(bool(each.limits) for each in audited)} of {len(audited)}: {named}"


def percentiles(distances_mm: FloatArray) -> str:
    """A line with how far the centres lie from the truth."""
    values = np.percentile(distances_mm, [50, 75, 90, 95, 100])
    listed = ", ".join(f"{value:.1f}" for value in values)
    within = ", ".join(f"{float((distances_mm <= limit).mean()):.3f} within {limit} mm" for limit in (8, 15))
    return f"centre distance mm at 50, 75, 90, 95, 100 %: {listed}; {within}"


def main(arguments: list[str]) -> int:
    """`[FIRST_SEED] [COUNT]`: print the figures and the series that were worst."""
    first = int(arguments[0]) if arguments else FIRST_SEED
    count = int(arguments[1]) if len(arguments) > 1 else 40
    audited = [audit(seed, Preprocessing()) for seed in track(range(first, first + count), "auditing")]
    for line in summary(audited):
        print(line)
    for each in audited:
        wrong = each.inside < each.lesions or (each.kind == "whole") != (each.covered and each.contrast)
        if wrong:
            print(each)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
