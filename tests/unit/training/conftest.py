"""Runs that take seconds.  What else these tests are about is measured elsewhere, or not at all; see `tests.support.unmeasured`."""

from pathlib import Path

import pytest

from ai.preprocess import Preprocessing
from ai.unet import UNetSettings
from tests.support.made_up_scan import scan
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture
from training import dataset
from training.config import Data, Optimisation, Sampling, TrainConfig


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(dataset, "make_scan", scan)
    return TrainConfig(
        folder=str(tmp_path / "run"),
        device="cpu",
        threads=1,
        precision="float32",
        data=Data(cache=str(tmp_path / "cache"), first_seed=0, scans=4, validation_first_seed=100, validation_scans=4),
        network=UNetSettings(widths=(8, 16, 16), convolutions=(1, 1, 1), groups=4),
        preprocessing=Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64)),
        sampling=Sampling(patch=32),
        optimisation=Optimisation(steps=6, warmup_steps=2, checkpoint_every=2),
    )
