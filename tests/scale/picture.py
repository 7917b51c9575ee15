"""The picture of a simulation: how far the model and the node agree, and what further hospitals cost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.scale.model import Overhead, day, percentile, turnarounds

COLOURS = ("#1f5fa8", "#b3261e", "#2e7d32", "#7b5ea7", "#8a6d1a")
WORKERS = (1, 2, 4, 8, 16)
MOST_SECONDS = 120.0


def draw(path: Path, overhead: Overhead, both: tuple[Sequence[float], Sequence[float]]) -> None:
    """A PNG: cumulative turnarounds of node and model, and the 95th percentile against hospitals for some numbers of workers."""
    from matplotlib.figure import Figure

    from tests.scale.__main__ import DEVICES, LIMIT_SECONDS, SERIES_A_DAY

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    agreement, growth = figure.subplots(1, 2, width_ratios=(2, 3))
    for seconds, name, colour in zip(both, ("the node", "the model"), COLOURS, strict=False):
        ordered = np.sort(seconds)
        agreement.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=name, color=colour)
    agreement.axhline(0.95, color="#999", linewidth=0.7, linestyle=":")
    agreement.set_xlabel("last slice to report, seconds")
    agreement.set_ylabel("share of the series")
    agreement.set_title("the check: a worker at a load of .6", fontsize=10)
    agreement.legend(frameon=False, loc="lower right")
    service = DEVICES["two processor cores"]
    for workers, colour in zip(WORKERS, COLOURS, strict=True):
        sites, late = 5, list[tuple[int, float]]()
        while not late or (late[-1][1] < MOST_SECONDS and sites < 4000):
            one = day(np.random.default_rng([sites, 2]), sites, SERIES_A_DAY, service)
            late.append((sites, percentile(turnarounds(one, workers, overhead))))
            sites = round(sites * 1.25)
        growth.plot(*zip(*late, strict=True), color=colour, label=f"{workers}")
    growth.axhline(LIMIT_SECONDS, color="#999", linewidth=0.7, linestyle=":")
    growth.set_xscale("log")
    growth.set_ylim(0, 60)
    growth.set_xlabel(f"hospitals, {SERIES_A_DAY:g} head angiographies a day each")
    growth.set_ylabel("95th percentile of a day, seconds")
    growth.set_title("workers with two cores each (3.3 s an analysis)", fontsize=10)
    growth.legend(title="workers", frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)
