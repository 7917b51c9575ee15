import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.support.made_up_scan import scan
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture
from training.dataset import prepare, save_prepared
from training.train import CHECKPOINT, main

ROOT = Path(__file__).parents[2]
RUN = """
folder = "{folder}"
device = "cpu"
threads = 1
precision = "float32"           # whose rounding is small enough to compare
seed = 28                       # at the first step only the second process has a lesion in its patch

[data]
cache = "{cache}"
first_seed = 0
scans = 4

[network]
widths = [8, 16, 16]
convolutions = [1, 1, 1]
groups = 4

[preprocessing]
spacing_mm = 1.0
size_DHW = [64, 64, 64]

[sampling]
patch = 32
batch = {batch}
lesion_share = 0.5

# The only loss whose mean over two halves is that over the whole.  AdamW divides by the gradient: a large loss at a small
# rate keeps rounding small, and a strong decay shows which heads had a gradient at all.
[loss]
bce = 1000.0
hardest = 1.0
tversky = 0.0
vessel = 0.0
location = 0.0
diameter = 0.0

[optimisation]
steps = 2
warmup_steps = 1
learning_rate = 2e-4
weight_decay = 10.0
"""


def run(tmp_path: Path, name: str, batch: int) -> Path:
    config = tmp_path / f"{name}.toml"
    config.write_text(RUN.format(folder=tmp_path / name, cache=tmp_path / "cache", batch=batch))
    return config


def test_two_processes_learn_what_one_with_twice_the_batch_does_and_the_first_alone_writes(tmp_path: Path) -> None:
    for seed in range(4):
        save_prepared(tmp_path / "cache" / str(seed), prepare(scan(seed)))
    assert main([str(run(tmp_path, "one", batch=2))]) == 0

    two = run(tmp_path, "two", batch=1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "training.train", str(two)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 2/2") == 1
    assert len(list((tmp_path / "two").glob("events.*"))) == 1

    one, other = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("one", "two"))
    assert one["step"] == other["step"] == 2
    for name, tensor in one["network"].items():
        assert torch.allclose(tensor, other["network"][name], rtol=0.0, atol=1e-5), name
        assert torch.allclose(one["average"][name], other["average"][name], rtol=0.0, atol=1e-5), name
