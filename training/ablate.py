"""What each part of what comes after the first stage is worth: `python -m training.ablate BUNDLE RUN CANDIDATES HELD_OUT --learnt DRAWN`.

BUNDLE, RUN, CANDIDATES and `--learnt` are those of `python -m training.combine`; HELD_OUT has the candidates of the held-out
scans.  A part is left out, everything else is learned and fitted anew, and a row says what AUC and CPM are then, and what they
lose, with 95 % intervals over scans.  One that excludes zero decides.  On CANDIDATES weights and calibration are fitted on the other
four fifths, on HELD_OUT on CANDIDATES and the drawn scans.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ai.bundle import load_bundle
from ai.second_stage import ShapeNet
from training.candidates import Marked, load_marked
from training.cases import Case, case
from training.combine import (
    compared,
    cross_fitted,
    fused_out_of_fold,
    require_unseen,
    tuned_without,
)
from training.config import ConfigError, exits_2
from training.export import calibrated
from training.figures import headline
from training.scoring import AROUND, Seen, combined, fitted_weights, seconds_of
from training.second_stage import trained
from training.tuning import Learnt, tuned

Judged = tuple[list[Case], list[Case]]
"""The cases of the real-tree scans and of the held-out ones."""
FIGURES = ("auc_present", "cpm")
_THRESHOLD = 0.5
"""Of no figure here."""


class Parts:
    """The scans, and how they are judged where a part is left out."""

    def __init__(
        self,
        before: Sequence[ShapeNet],
        after: Sequence[ShapeNet],
        marked: Sequence[Marked],
        held_out: Sequence[Marked],
        drawn: dict[str, list[Marked]],
    ) -> None:
        """`before`, `after`: the second stage's networks before they learned from `drawn`, by the folder's name, and after."""
        self._before, self._after = before, after
        self._sets, self._drawn = (marked, held_out), drawn

    def whole(self) -> Judged:
        """Nothing is left out."""
        return self._fused(self._after, [scan for scans in self._drawn.values() for scan in scans])

    def without_drawn(self, name: str) -> Judged:
        """The drawn scans of one kind."""
        scans = [scan for kind, of_kind in self._drawn.items() if kind != name for scan in of_kind]
        learnt = Learnt.of(scans)
        return self._fused([tuned(each, learnt, seed) for seed, each in enumerate(self._before)], scans)

    def without_place(self) -> Judged:
        """The tissue around."""
        scans = [scan for of_kind in self._drawn.values() for scan in of_kind]
        return self._fused(self._after, scans, with_place=False)

    def without_fusion(self, count: int = AROUND) -> Judged:
        """The fusion: a weighted sum of both stages takes its place, the best `count` candidates seen from five places."""
        learnt = self._tuned_out_of_fold(count)
        return self._judged([seconds_of(self._after, each, count) for each in self._sets], learnt)

    def without_tuning(self, count: int = AROUND) -> Judged:
        """All drawn scans: the second stage knows drawn cubes alone."""
        return self._judged([seconds_of(self._before, each, count) for each in self._sets])

    def without_second_stage(self) -> Judged:
        """All that comes after the first stage."""
        return self._judged([[np.zeros(len(scan.hits)) for scan in each] for each in self._sets], with_place=False)

    def _tuned_out_of_fold(self, count: int) -> Seen:
        """The drawn scans as networks see them that were tuned on the other four fifths."""
        scans = [scan for of_kind in self._drawn.values() for scan in of_kind]
        seconds: list[NDArray[np.float64]] = [np.zeros(0)] * len(scans)
        for these, number in tuned_without(self._before, scans):
            [seconds[number]] = seconds_of(these, [scans[number]], count)
        return scans, seconds

    def _fused(self, networks: Sequence[ShapeNet], drawn: Sequence[Marked], with_place: bool = True) -> Judged:
        fusion, learnt = fused_out_of_fold(self._before, drawn)
        return self._judged([seconds_of(networks, each, fusion=fusion) for each in self._sets], learnt, with_place)

    def _judged(
        self,
        seconds: Sequence[Sequence[NDArray[np.float64]]],
        learnt: Seen = ((), ()),
        with_place: bool = True,
    ) -> Judged:
        """By the second stage's log odds of both sets."""
        here, held = seconds
        marked, held_out = self._sets
        cases, *_ = cross_fitted(marked, here, with_place=with_place, learnt=learnt)
        fitted = [*marked, *learnt[0]], [*here, *learnt[1]]
        weights = fitted_weights(*fitted, with_place=with_place)
        calibration = calibrated(combined(*fitted, weights))
        return cases, [case(scored, calibration, _THRESHOLD) for scored in combined(held_out, held, weights)]


def row(title: str, judged: Judged, whole: Judged) -> str:
    """A line of a Markdown table: of either set the figures, and what is lost."""
    cells = [title]
    for cases, all_parts in zip(judged, whole, strict=True):
        values, gains = headline(cases, _THRESHOLD), compared(cases, all_parts, _THRESHOLD)
        for name in FIGURES:
            gain, low, high = gains[name]
            cells.append(
                f"{values[name]:.3f}"
                if cases is all_parts
                else f"{values[name]:.3f}; {-gain:+.3f} ({-high:+.3f} to {-low:+.3f})"
            )
    return f"| {' | '.join(cells)} |"


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(prog="python -m training.ablate", description=__doc__)
    for name in ("bundle", "run", "candidates", "held_out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--learnt", type=Path, nargs="+", required=True)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle)
    drawn = {folder.name: load_marked(folder, bundle) for folder in asked.learnt}
    if len(drawn) < len(asked.learnt):
        raise ConfigError("each folder of --learnt is a kind of scans, and needs a name of its own")
    marked, held_out = (load_marked(folder, bundle) for folder in (asked.candidates, asked.held_out))
    require_unseen(bundle, [scan for scans in drawn.values() for scan in scans], marked, held_out)
    parts = Parts(bundle.second, trained(asked.run), marked, held_out, drawn)
    whole = parts.whole()
    print("| left out | real-tree: AUC | CPM | held-out: AUC | CPM |\n|---|---|---|---|---|")
    print(row("nothing", whole, whole), flush=True)
    rows: list[tuple[str, Callable[[], Judged]]] = [
        ("the tissue around", parts.without_place),
        *(
            (f"the drawn scans of kind {name}", lambda name=name: parts.without_drawn(name))
            for name in drawn
            if len(drawn) > 1
        ),
        ("the fusion", parts.without_fusion),
        ("the fusion and the four places about a centre", lambda: parts.without_fusion(0)),
        ("all drawn scans, and with them the fusion", parts.without_tuning),
        ("the second stage and the tissue around", parts.without_second_stage),
    ]
    for title, judged in rows:
        print(row(title, judged(), whole), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
