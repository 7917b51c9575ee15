"""What names locations learns from the candidates on aneurysms of drawn scans."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ai.bundle import Bundle
from ai.decode import Candidate
from ai.locations import LOCATIONS, Location
from ai.naming import NamingNet, NamingSettings, naming_input
from ai.parts import Naming
from training.candidates import Marked
from training.cases import is_hit
from training.config import ConfigError
from training.metrics import share
from training.scoring import circle_of

RIDGE = 20.0
"""How strongly the weights, each for one standard deviation, are kept small."""


def fitted_names(scans: Sequence[Marked]) -> NamingNet:
    """A logistic regression of the location on what `ai.naming` reads of each candidate on an aneurysm.  Raises ConfigError."""
    read, locations = _lessons(scans)
    middle, spread = read.mean(dim=0), read.std(dim=0, correction=0) + 1e-3
    network = NamingNet(NamingSettings())
    weight, bias = network.locations.weight, network.locations.bias
    torch.nn.init.zeros_(weight)
    torch.nn.init.zeros_(bias)
    optimiser = torch.optim.LBFGS(network.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        wrong = F.cross_entropy(network((read - middle) / spread), locations, reduction="sum")
        value: Tensor = wrong + RIDGE * (weight**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():  # of numbers as they are read
        weight.div_(spread)
        bias.sub_(weight @ middle)
    return network.requires_grad_(False).eval()


def _lessons(scans: Sequence[Marked]) -> tuple[Tensor, Tensor]:
    """What is read of each candidate on an aneurysm, (N, M), and the index of its location, (N)."""
    read, locations = [], []
    for scan in scans:
        if pairs := _on_aneurysms(scan):
            read.append(torch.from_numpy(naming_input([one for one, _ in pairs], circle_of(scan))))
            locations += [LOCATIONS.index(where) for _, where in pairs]
    if not read:
        raise ConfigError("no candidate of the scans to learn from lies on an aneurysm: draw more")
    return torch.cat(read), torch.tensor(locations)


def _on_aneurysms(scan: Marked) -> list[tuple[Candidate, Location]]:
    """Each candidate on an aneurysm, and where that is."""
    return [
        (one, lesion.location)
        for one in scan.scored.candidates
        for lesion in scan.scored.lesions
        if is_hit(one.centre_lps_mm, lesion)
    ]


def named_right(scans: Sequence[Marked]) -> float:
    """Of the candidates on aneurysms, the share whose most probable location is the right one."""
    pairs = [pair for scan in scans for pair in _on_aneurysms(scan)]
    return share([LOCATIONS[int(np.argmax(one.location_shares))] is where for one, where in pairs])


def naming(bundle: Bundle, network: NamingNet) -> Bundle:
    """The bundle, which has a second stage, with what names its candidates' locations."""
    stage = bundle.manifest.second_stage
    assert stage is not None
    stage = replace(stage, naming=Naming(network.settings, {"unsaved.safetensors": ""}))
    return replace(bundle, manifest=replace(bundle.manifest, second_stage=stage), naming=(network,))
