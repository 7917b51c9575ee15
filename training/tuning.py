"""The second stage, which learned from drawn cubes, goes on to learn from what the first stage marks on drawn scans.

`python -m training.tuning BUNDLE RUN FOLDER [FOLDER ...]`: the folders are those of `python -m training.drawn_candidates`, RUN the
file that the weights are written to.  Prints how well aneurysms are told from the rest before and after, on a fifth of the
scans that another tuning leaves out; what is written has learned from all of them.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ai.bundle import load_bundle
from ai.second_stage import ShapeNet, log_odds, sac_logits
from training.candidates import Marked, load_marked
from training.config import exits_2
from training.metrics import auc
from training.second_stage import DROPPED, save_trained, with_dropout

BATCH, EPOCHS, RATE, DECAY = 128, 8, 1e-3, 0.1


@dataclass(frozen=True, eq=False)
class Learnt:
    """N candidates: `measures` (N, 5, M) at each and at four places about it, `hits` (N), and the number of each one's scan (N)."""

    measures: Tensor
    hits: Tensor
    scans: NDArray[np.int64]

    @classmethod
    def of(cls, marked: Sequence[Marked]) -> "Learnt":
        """Those of scans."""
        some = [scan for scan in marked if len(scan.hits)]
        measures = [np.concatenate([scan.measures[:, None], scan.around], axis=1) for scan in some]
        return cls(
            torch.from_numpy(np.concatenate(measures)),
            torch.from_numpy(np.concatenate([scan.hits for scan in some])).float(),
            np.repeat(np.arange(len(some)), [len(scan.hits) for scan in some]),
        )

    def only(self, chosen: NDArray[np.bool_]) -> "Learnt":
        """Some of the candidates."""
        return Learnt(self.measures[chosen], self.hits[chosen], self.scans[chosen])

    def auc_of(self, networks: Sequence[ShapeNet]) -> float:
        """How well aneurysms are told from the rest by the mean log odds over the five places."""
        places = range(self.measures.shape[1])
        odds = np.mean([log_odds(networks, self.measures[:, place].numpy()) for place in places], axis=0)
        return float(auc(odds.tolist(), [bool(hit) for hit in self.hits]))


def tuned(network: ShapeNet, learnt: Learnt, seed: int, epochs: int = EPOCHS) -> ShapeNet:
    """The network after it has seen each candidate `epochs` times, from one of its places each time."""
    torch.manual_seed(seed)
    tuning = copy.deepcopy(network).train()
    for parameter in tuning.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(tuning.parameters(), RATE, weight_decay=DECAY)
    count, places = learnt.measures.shape[:2]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * -(-count // BATCH))
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(count), BATCH):
            read = tuning.standardised(learnt.measures[batch, torch.randint(0, places, (len(batch),))])
            odds = sac_logits(with_dropout(tuning.kinds, F.dropout(read, DROPPED)))
            loss = F.binary_cross_entropy_with_logits(odds, learnt.hits[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return tuning.requires_grad_(False).eval()


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, and say what it was worth."""
    parser = argparse.ArgumentParser(prog="python -m training.tuning", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle)
    networks = bundle.second
    learnt = Learnt.of([scan for folder in asked.folders for scan in load_marked(folder, bundle)])
    unseen = learnt.scans % 5 == 0
    tried = [tuned(network, learnt.only(~unseen), seed) for seed, network in enumerate(networks)]
    print(f"{len(learnt.hits)} candidates of {learnt.scans.max() + 1} scans, {int(learnt.hits.sum())} on an aneurysm")
    for title, these in (("before", networks), ("after, not having learned from them", tried)):
        print(f"on a fifth of the scans, {title}: AUC {learnt.only(unseen).auc_of(these):.3f}")
    save_trained(asked.run, [tuned(network, learnt, seed) for seed, network in enumerate(networks)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
