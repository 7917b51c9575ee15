"""Cubes are drawn into files of a few hundred, for a run to learn from while more are drawn.

`python -m training.cubes.store FOLDER COUNT [--tree CENTRELINE.vtk] [--validation] [--seed FIRST]`
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.cubes.drawing import draw_cube
from training.cubes.real_tree import RealTree, read_tree
from training.files import write_whole

SHARD = 250


@dataclass(frozen=True, eq=False)
class Shard:
    """N cubes of one file: `name` of it, `hu` (N, D, H, W) int16 that stay on disk, `kinds`, `settings` and `diameters_mm`."""

    name: str
    hu: NDArray[np.int16]
    kinds: tuple[str, ...]
    settings: tuple[str, ...]
    diameters_mm: NDArray[np.float64]

    @property
    def is_sac(self) -> NDArray[np.bool_]:
        """Which cubes have an aneurysm in the middle."""
        return np.array([kind == "sac" for kind in self.kinds])


def draw_shards(folder: Path, count: int, tree: RealTree | None, *, validation: bool, first: int = 0) -> None:
    """Draw the cubes of `count` seeds from `first` on, `SHARD` a file; files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(first, first + count, SHARD):
        name = folder / f"{start:07d}"
        if name.with_suffix(".json").exists():
            continue
        seeds = range(start, min(start + SHARD, first + count))
        cubes = [draw_cube(seed, tree, validation=validation) for seed in seeds]
        np.save(name.with_suffix(".npy"), np.stack([cube.hu_DHW for cube in cubes]))
        drawn = [[cube.kind, cube.setting, round(cube.diameter_mm, 3)] for cube in cubes]
        write_whole(name.with_suffix(".json"), json.dumps(drawn))


def read_shards(folder: Path) -> list[Shard]:
    """The cubes of a folder that are complete, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.json")):
        kinds, settings, diameters = zip(*json.loads(path.read_text(encoding="utf-8")), strict=True)
        found.append(
            Shard(
                path.stem, np.load(path.with_suffix(".npy"), mmap_mode="r"), kinds, settings, np.array(diameters, float)
            )
        )
    return found


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    tree = read_tree(asked.tree) if asked.tree else None
    draw_shards(asked.folder, asked.count, tree, validation=asked.validation, first=asked.seed)


if __name__ == "__main__":
    main()
