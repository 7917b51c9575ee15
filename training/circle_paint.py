"""Paint the heads that the network for the circle of Willis learns from: `python -m training.circle_paint HEADS COUNT [ANATOMY]`.

COUNT drawn heads; with ANATOMY, the folder of real anatomy, eight about one person's intracranial space and the skull of
another, with air in its sinuses and without.  What is there is not painted again.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.circle_heads import CircleHead, draw_circle_head
from training.real_heads import RealBrain, real_skull

FIRST_SEED = 1000
"""Tests draw theirs below."""
BRAINS = 8


def save_head(path: Path, head: CircleHead) -> None:
    """Write a head as `training.circle_train.Base` reads it; it appears whole or not at all."""
    unfinished = path.with_suffix(".tmp.npz")
    np.savez(
        unfinished,
        plain=head.plain_hu_DHW,
        filled=head.filled_hu_DHW,
        affine=head.affine_lps,
        centre=head.centre_lps_mm,
    )
    os.replace(unfinished, path)


def painted(folder: Path, count: int, anatomy: Path | None) -> Iterator[str]:
    """Yield the name of each head that was missing once it is in the folder; those of real geometry have no number for a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        if not (folder / f"{seed}.npz").exists():
            save_head(folder / f"{seed}.npz", draw_circle_head(seed))
            yield str(seed)
    if anatomy is None:
        return
    missing = [number for number in range(BRAINS) if not (folder / f"brain{number}.npz").exists()]
    brain = RealBrain(anatomy) if missing else None
    for number in missing:
        assert brain is not None
        save_head(folder / f"brain{number}.npz", brain.head(number))
        yield f"brain{number}"
    for number, aerated in enumerate((True, False)):
        if not (folder / f"skull{number}.npz").exists():
            save_head(
                folder / f"skull{number}.npz", real_skull(anatomy, np.random.default_rng(number), aerated=aerated)
            )
            yield f"skull{number}"


def main(arguments: list[str]) -> int:
    """Paint what is missing."""
    if len(arguments) not in (2, 3):
        print("usage: python -m training.circle_paint HEADS COUNT [ANATOMY]", file=sys.stderr)
        return 2
    for name in painted(Path(arguments[0]), int(arguments[1]), Path(arguments[2]) if len(arguments) == 3 else None):
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
