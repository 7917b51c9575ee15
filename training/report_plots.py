"""The plots of a report, as PNG bytes."""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ai.locations import LOCATIONS
from training.cases import Case
from training.figures import Figures
from training.metrics import calibration_bins, froc, roc_curve

INK, SOFT = "#1f4e79", "#9fbfdf"


def plots(found: Figures, cases: Sequence[Case]) -> dict[str, bytes]:
    """Every plot that the figures allow, by its title."""
    drawn: dict[str, Callable[[Axes], None]] = {
        "ROC of aneurysm present": lambda axes: _roc(axes, cases),
        "Calibration of aneurysm present": lambda axes: _calibration(axes, cases),
    }
    if "froc" in found:
        drawn |= {
            "FROC with 95 % intervals over scans": lambda axes: _froc(axes, found, cases),
            "Sensitivity by diameter, at 0.5 false positives a scan": lambda axes: _bars(axes, found["by_size"]),
            "Sensitivity by location, at 0.5 false positives a scan": lambda axes: _bars(axes, found["by_location"]),
            "Diameter of what was reported": lambda axes: _diameters(axes, found, cases),
        }
    return {title: _png(title, draw) for title, draw in drawn.items()}


def _png(title: str, draw: Callable[[Axes], None]) -> bytes:
    figure = Figure(figsize=(6.4, 4.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    figure.suptitle(f"{title} (phantoms)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    out = BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _roc(axes: Axes, cases: Sequence[Case]) -> None:
    positive = [case.positive for case in cases]
    if all(positive) or not any(positive):
        axes.text(0.5, 0.5, "one class only", ha="center")
        return
    false_rate, true_rate = roc_curve([case.present for case in cases], positive)
    axes.plot(false_rate, true_rate, color=INK)
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))


def _calibration(axes: Axes, cases: Sequence[Case]) -> None:
    bins = calibration_bins([case.present for case in cases], [case.positive for case in cases])
    mean, share, count = zip(*bins, strict=True)
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":")
    axes.plot(mean, share, color=INK, marker="o")
    for x, y, n in zip(mean, share, count, strict=True):
        axes.annotate(str(n), (x, y), textcoords="offset points", xytext=(5, -10), fontsize=8)
    axes.set(xlabel="mean probability (number of scans beside it)", ylabel="share positive", ylim=(-0.03, 1.03))


def _froc(axes: Axes, found: Figures, cases: Sequence[Case]) -> None:
    rates = np.geomspace(0.05, 10.0, 120)
    curve = froc(
        [score for case in cases for score in case.lesion_scores],
        [mark.probability for case in cases for mark in case.false_marks],
        len(cases),
        rates.tolist(),
    )
    axes.step(rates, curve, where="post", color=INK)
    for rate in found["froc"]["false_positives_per_scan"]:
        if bounds := found["intervals_95"].get(f"sensitivity_at_{rate:g}"):
            axes.plot([rate, rate], bounds, color=SOFT, linewidth=4, zorder=0)
    axes.set_xscale("log", base=2)
    ticks = found["froc"]["false_positives_per_scan"]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="false positives a scan", ylabel="lesion sensitivity", ylim=(0, 1.01))


def _bars(axes: Axes, rows: Figures) -> None:
    names = [name for name, row in rows.items() if row["lesions"]]
    values = [rows[name]["at_half_a_false_positive"] for name in names]
    axes.barh(range(len(names)), values, color=INK)
    labels = [f"{name.replace('_', ' ')} (n = {rows[name]['lesions']})" for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="sensitivity")


def _diameters(axes: Axes, found: Figures, cases: Sequence[Case]) -> None:
    pairs = [
        (lesion.diameter_mm, mark.diameter_mm, LOCATIONS.index(lesion.location))
        for case in cases
        if case.sized
        for lesion in case.lesions
        if (mark := case.best_mark(lesion, found["threshold"])) is not None
    ]
    if pairs:
        true, measured, _ = zip(*pairs, strict=True)
        top = max(*true, *measured) + 1.0
        axes.plot([0, top], [0, top], color=SOFT, linestyle=":")
        axes.scatter(true, measured, s=14, color=INK)
    axes.set(xlabel="true diameter in mm", ylabel="reported diameter in mm")
