"""Hard negatives: where a bundle sees lesions on training scans that have none there.

`python -m training.mine CONFIG.toml BUNDLE` writes the cells that the next run samples patches from.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ai.affine import voxel_of
from ai.bundle import Bundle, load_bundle
from ai.inference import output_affine
from ai.predict import found_candidates
from training.config import ConfigError, TrainConfig, exits_2, read_config
from training.dataset import Prepared
from training.evaluate import is_hit
from training.files import write_whole
from training.scans import training_scans
from training.train import HARD_CELLS, hard_cells

LEAST_SCORE = -3.0
"""Candidates below this mean logit teach nothing."""


def mine(config: TrainConfig, bundle: Bundle) -> int:
    """Write the mistakes of a bundle on the training scans into the cache folder; return how many there are.

    They replace what was mined on these scans before; the cache's other scans keep theirs.  Raises ConfigError when the
    bundle reads another spacing.
    """
    wanted_mm, spacing_mm = config.preprocessing.spacing_mm, bundle.manifest.preprocessing.spacing_mm
    if abs(spacing_mm - wanted_mm) > 1e-6:
        raise ConfigError(
            f"the bundle reads {spacing_mm:g} mm and the scans are at {wanted_mm:g} mm: mine with another"
        )
    mistakes = {scan.seed: mistaken_cells(scan, bundle, config.device) for scan in training_scans(config)}
    kept = {seed: cells for seed, cells in (hard_cells(config) | mistakes).items() if cells}
    write_whole(Path(config.data.cache) / HARD_CELLS, json.dumps(kept))
    return sum(len(cells) for cells in mistakes.values())


def mistaken_cells(scan: Prepared, bundle: Bundle, device: str = "auto") -> list[tuple[int, int, int]]:
    """The output cells of the candidates that hit no lesion, worst first."""
    grid = output_affine(scan.region.affine_lps)
    cells = []
    for candidate in found_candidates(scan.region, bundle, device):
        if candidate.score < LEAST_SCORE or any(is_hit(candidate.centre_lps_mm, lesion) for lesion in scan.lesions):
            continue
        d, h, w = np.rint(voxel_of(grid, candidate.centre_lps_mm)).astype(int)
        cells.append((int(d), int(h), int(w)))
    return cells


@exits_2
def main(arguments: list[str]) -> int:
    """`CONFIG BUNDLE`: mine and say how many mistakes were found."""
    if len(arguments) != 2:
        print("usage: python -m training.mine CONFIG.toml BUNDLE_FOLDER", file=sys.stderr)
        return 2
    print(f"{mine(read_config(arguments[0]), load_bundle(arguments[1]))} mistakes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
