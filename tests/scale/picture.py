"""The pictures of a simulation: how far the model and the node agree, and what further hospitals cost; and a day."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.scale.model import HOURS, Overhead, day, percentile, turnarounds

if TYPE_CHECKING:
    from tests.scale.day import Played

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


def draw_day(path: Path, played: "Played") -> None:
    """A PNG: studies an hour, and how many angiographies wait for their report, with what happened."""
    from matplotlib.figure import Figure

    from tests.scale.sites import ANGIOGRAPHY

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    arriving, waiting = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    hours = np.arange(len(HOURS) + 1)
    at = [
        [study.at / played.hour_seconds for study in played.studies if (study.kind == ANGIOGRAPHY) is wanted]
        for wanted in (True, False)
    ]
    arriving.hist(at, hours, stacked=True, color=[COLOURS[0], "#c9c9c9"], label=["head angiographies", "other studies"])
    arriving.set_ylabel("studies an hour")
    arriving.legend(frameon=False, loc="upper left")
    moments = np.linspace(0, len(HOURS) * played.hour_seconds, 2000)
    came = np.array([case.came for case in played.cases])
    for seconds, name, colour in (
        ([case.waited for case in played.cases], "measured", COLOURS[0]),
        ([case.modelled for case in played.cases], "the model, to which nothing happens", COLOURS[1]),
    ):
        ended = np.sort(came + np.array(seconds))
        under_way = np.searchsorted(np.sort(came), moments, "right") - np.searchsorted(ended, moments, "right")
        waiting.plot(moments / played.hour_seconds, under_way, color=colour, label=name, linewidth=1.2)
    waiting.set_ylim(bottom=0)
    for event in played.happened:
        begun = event.begun / played.hour_seconds
        waiting.axvline(begun, color="#666", linewidth=0.7, linestyle=":")
        top = waiting.get_ylim()[1]
        waiting.text(begun, top, f" {event.kind}", rotation=90, fontsize=7, ha="right", va="top", color="#444")
    waiting.set_xlim(0, len(HOURS))
    waiting.set_ylabel("angiographies on their way\nto a report")
    waiting.set_xlabel(f"hour of the day, of {played.hour_seconds:g} s (dotted: kill -9, or the object store away)")
    waiting.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)
