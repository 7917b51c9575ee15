"""The picture of a soak: memory and descriptors of each process over the day, and what happened to them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.soak.site import Happened
from tests.soak.watch import Sample

COLOURS = {"serve": "#1f5fa8", "receive": "#2e7d32", "work": "#b3261e", "web": "#7b5ea7"}


def draw(path: Path, samples: Iterable[Sample], happened: Sequence[Happened], hour_seconds: float) -> None:
    """A PNG: lines are kills, grey is an outage."""
    from matplotlib.figure import Figure

    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for each in samples:
        lives[each.role, each.pid].append(each)
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    memory, descriptors = figure.subplots(2, 1, sharex=True)
    for axes in (memory, descriptors):
        for event in happened:
            if event.name.startswith("kill") or event.name == "restart":
                axes.axvline(event.begun / hour_seconds, color="#666", linewidth=0.7, linestyle=":")
            else:
                axes.axvspan(event.begun / hour_seconds, event.ended / hour_seconds, color="#e3e3e3", linewidth=0)
    for (role, _), life in lives.items():
        hours = [each.at / hour_seconds for each in life]
        memory.plot(hours, [each.memory_mib for each in life], color=COLOURS[role], linewidth=1)
        descriptors.plot(hours, [each.descriptors for each in life], color=COLOURS[role], linewidth=1)
    for axes in (memory, descriptors):
        axes.set_ylim(bottom=0)  # when all is plotted: the top stays what it is by then
    for role, colour in COLOURS.items():
        memory.plot([], [], color=colour, label=role)
    memory.legend(loc="lower right", ncols=4, frameon=False)
    memory.set_ylabel("resident memory, MiB")
    descriptors.set_ylabel("open descriptors")
    descriptors.set_xlabel("hour of the simulated day (dotted: kill -9 or restart; grey: an outage)")
    for event in happened:
        if not event.name.startswith("kill") and event.name != "restart":
            middle = (event.begun + event.ended) / 2 / hour_seconds
            descriptors.text(
                middle, 1, event.name, rotation=90, fontsize=7, ha="center", va="bottom", color="#444",
                transform=descriptors.get_xaxis_transform(),
            )  # fmt: skip
    figure.savefig(path, dpi=110)
