"""The worst cases of an evaluation, and what they look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from ai.affine import voxel_of
from ai.preprocess import Region
from training.cases import Case

EACH = 5
"""So many false alarms and so many misses."""
SIDE_MM, PANEL = 48.0, 280
WINDOW_HU = (-50.0, 550.0)


@dataclass(frozen=True)
class Worst:
    """A false alarm or a miss: what to say, and where to look when the method or the truth says where."""

    kind: str
    seed: int
    caption: str
    centre_lps_mm: tuple[float, float, float] | None
    diameter_mm: float


def worst_cases(cases: Sequence[Case], threshold: float, each: int = EACH) -> list[Worst]:
    """The most probable false alarms at or above the threshold, then the misses: the largest lesions without a report."""
    alarms: list[tuple[float, Worst]] = []
    misses: list[tuple[float, Worst]] = []
    for case in cases:
        beside = f"; confounders: {', '.join(case.confounders)}" if case.confounders else ""
        for mark in case.false_marks:
            if mark.probability >= threshold:
                caption = f"false alarm, seed {case.seed}: {mark.location} {mark.diameter_mm:.1f} mm, P {mark.probability:.2f}{beside}"
                alarms.append(
                    (mark.probability, Worst("false alarm", case.seed, caption, mark.centre_lps_mm, mark.diameter_mm))
                )
        if case.marks is None and not case.positive and case.present >= threshold:
            caption = f"false alarm, seed {case.seed}: P {case.present:.2f}{beside}"
            alarms.append((case.present, Worst("false alarm", case.seed, caption, None, 0.0)))
        scores = case.lesion_scores if case.marks is not None else [case.present] * len(case.lesions)
        for lesion, score in zip(case.lesions, scores, strict=True):
            if score < threshold:
                best = f"best mark P {score:.2f}" if score >= 0 else "no mark"
                caption = f"missed, seed {case.seed}: {lesion.location} {lesion.diameter_mm:.1f} mm, {best}{beside}"
                misses.append(
                    (lesion.diameter_mm, Worst("missed", case.seed, caption, lesion.centre_lps_mm, lesion.diameter_mm))
                )
    return [one for kind in (alarms, misses) for _, one in sorted(kind, key=lambda pair: -pair[0])[:each]]


def picture(region: Region, worst: Worst) -> bytes:
    """A PNG: an axial, a coronal and a sagittal slice through the place, 48 mm wide, with a ring around it."""
    assert worst.centre_lps_mm is not None
    step = float(region.affine_lps[0, 2])
    at = np.rint(voxel_of(region.affine_lps, worst.centre_lps_mm)).astype(int)
    half = round(SIDE_MM / step / 2)
    padded = np.full((2 * half + 1,) * 3, -1024, np.int16)
    source, target = [], []
    for index, side in zip(at.tolist(), region.hu_DHW.shape, strict=True):
        low, high = max(0, index - half), min(side, index + half + 1)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - index + half, max(low, high) - index + half))
    padded[tuple(target)] = region.hu_DHW[tuple(source)]
    sheet = Image.new("RGB", (3 * PANEL, PANEL))
    planes = (padded[half], padded[::-1, half], padded[::-1, :, half])
    ring = (worst.diameter_mm / 2.0 + 3.0) / SIDE_MM * PANEL
    for number, plane in enumerate(planes):
        grey = np.clip((plane - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0, 1) * 255
        panel = Image.fromarray(grey.astype(np.uint8)).resize((PANEL, PANEL), Image.Resampling.BILINEAR).convert("RGB")
        box = tuple(PANEL / 2 + sign * ring for sign in (-1, -1, 1, 1))
        ImageDraw.Draw(panel).ellipse(box, outline=(255, 70, 70) if worst.kind == "missed" else (255, 190, 0))
        sheet.paste(panel, (number * PANEL, 0))
    out = BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()
