"""What a bundle gets wrong on painted scans, as two sheets of pictures: ten false positives, and ten misses.

`python -m training.mistakes BUNDLE CACHE CANDIDATES FOLDER`: CACHE is a folder of `python -m training.paint`, CANDIDATES one of
`python -m training.candidates`.  Each scan is judged by weights and calibration fitted on the other four fifths.  Writes
false-positives.png (the most probable ones at the report threshold) and misses.png (at even steps of their diameter) and prints
a line for each.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ai.bundle import load_bundle
from ai.second_stage import Place, cube_around
from ai.volume import Volume
from training.candidates import load_marked
from training.cases import Case
from training.combine import cross_fitted
from training.config import exits_2
from training.dataset import load_prepared
from training.paint import NATIVE
from training.scoring import seen_by

EACH = 10
SIDE, SPACING_MM = 83, 0.3
"""Of a picture, 25 mm wide."""
PANEL, TITLE = 150, 16
WINDOW_HU = (-50.0, 550.0)
Mistake = tuple[int, Place, str]
"""The scan's seed, the place, and what to say."""


def false_positives(cases: Sequence[Case], thresholds: Sequence[float]) -> list[Mistake]:
    """Those at or above each scan's report threshold, the most probable first."""
    found = [
        (mark.probability, (case.seed, mark.centre_lps_mm, f"{mark.location} {mark.diameter_mm:.1f} mm, P {mark.probability:.2f}"))
        for case, threshold in zip(cases, thresholds, strict=True)
        for mark in case.false_marks
        if mark.probability >= threshold
    ]  # fmt: skip
    return [mistake for _, mistake in sorted(found, key=lambda pair: -pair[0])]


def misses(cases: Sequence[Case], thresholds: Sequence[float]) -> list[Mistake]:
    """The lesions whose best mark lies below their scan's report threshold, the smallest first."""
    found = []
    for case, threshold in zip(cases, thresholds, strict=True):
        for lesion, score in zip(case.lesions, case.lesion_scores, strict=True):
            if score < threshold:
                said = f"P {score:.2f}" if score >= 0 else "no candidate"
                found.append((lesion.diameter_mm, (case.seed, lesion.centre_lps_mm,
                                                   f"{lesion.location} {lesion.diameter_mm:.1f} mm, {said}")))  # fmt: skip
    return [mistake for _, mistake in sorted(found, key=lambda pair: pair[0])]


def sheet(cache: Path, mistakes: Sequence[Mistake]) -> Image.Image:
    """Two columns of rows: an axial, a coronal and a sagittal slice through each place."""
    rows = -(-len(mistakes) // 2)
    width, height = 3 * (PANEL + 2) + 8, PANEL + TITLE + 4
    whole = Image.new("RGB", (2 * width, rows * height))
    for number, (seed, centre, words) in enumerate(mistakes):
        left, top = number % 2 * width, number // 2 * height
        ImageDraw.Draw(whole).text((left + 2, top + 2), f"{number + 1}  {words}", fill="white")
        box = load_prepared(cache / NATIVE / str(seed)).region
        cube = cube_around(Volume(np.asarray(box.hu_DHW), box.affine_lps), centre, SIDE, SPACING_MM)
        middle = SIDE // 2
        planes = (cube[middle], cube[::-1, middle], cube[::-1, :, middle])
        for index, plane in enumerate(planes):
            grey = np.clip((plane - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0, 1) * 255
            panel = Image.fromarray(grey.astype(np.uint8)).resize((PANEL, PANEL), Image.Resampling.BILINEAR)
            marked = ImageDraw.Draw(panel)
            marked.line((PANEL // 2, 0, PANEL // 2, 8), fill=255)
            marked.line((0, PANEL // 2, 8, PANEL // 2), fill=255)
            whole.paste(panel, (left + index * (PANEL + 2), top + TITLE))
    return whole


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw both sheets."""
    parser = argparse.ArgumentParser(prog="python -m training.mistakes", description=__doc__)
    for name in ("bundle", "cache", "candidates", "folder"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle)
    marked = load_marked(asked.candidates, bundle)
    cases, thresholds, _ = cross_fitted(*seen_by(bundle, marked))
    wrong, missed = false_positives(cases, thresholds), misses(cases, thresholds)
    shown = [missed[round(at)] for at in np.linspace(0, len(missed) - 1, min(EACH, len(missed)))]
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, all_of, mistakes in (("false-positives", wrong, wrong[:EACH]), ("misses", missed, shown)):
        sheet(asked.cache, mistakes).quantize(64).save(asked.folder / f"{name}.png", optimize=True)
        print(f"{name}: {len(all_of)} on {len(marked)} scans")
        for number, (seed, centre, words) in enumerate(mistakes, start=1):
            print(f"  {number} {seed} {words} at {', '.join(f'{mm:.0f}' for mm in centre)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
