"""What the first stage marks on scans as the scanner sees them, with the shape and surroundings of each, for the second stage.

`python -m training.candidates BUNDLE CACHE FOLDER [--count N]`: CACHE is a folder of `python -m training.paint`.  What is in
FOLDER is not looked at again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ai.bundle import Bundle, load_bundle
from ai.predict import found_candidates
from ai.preprocess import Region
from ai.second_stage import around, cube_around
from ai.shape import NAMES, SIDE, measured
from ai.surroundings import NAMES as PLACES
from ai.surroundings import surroundings
from ai.volume import Volume
from training.cases import Scored, is_hit
from training.config import ConfigError, exits_2
from training.dataset import Prepared, load_prepared
from training.evaluate import document_of, fitting, scored_of, seen
from training.files import write_whole
from training.paint import NATIVE, REGIONS

MOST_MARKED = 20
"""Of a scan's candidates.  Ten hold .94 of the sacs of 3 to 4 mm and .76 of the smaller ones of real-tree phantoms, twenty .96 and .84."""


MEASURED = 1
"""Raised whenever `ai.shape` or `ai.surroundings` measure otherwise: what was measured before does not go with what is."""
IDENTITY = "identity.json"
"""In a folder of candidates: what these depend on.  One of before 2026-12 has none: it is read as it is, and nothing is added."""


@dataclass(frozen=True, eq=False)
class Marked:
    """A scan with the first stage's candidates and what is measured around them, in the same order.

    `measures`: (N, M) of `ai.shape`.  `places`: (N, P) of `ai.surroundings`.  `around`: (N, 4, M), the first from the four places
    about each.  `cubes`: (N, D, H, W) HU about each, of `ai.shape.SIDE` voxels; none in folders of before 0.15.0.  `cube_odds`: (N), what
    networks say of them, where they were asked.  `circle_lps_mm`: where the middle of the circle of Willis is taken to be; None in
    folders of before 0.16.0.
    """

    scored: Scored
    measures: NDArray[np.float32]
    places: NDArray[np.float32]
    around: NDArray[np.float32]
    cubes: NDArray[np.int16] | None = None
    cube_odds: NDArray[np.float64] | None = None
    circle_lps_mm: tuple[float, float, float] | None = None

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Which candidates are on an aneurysm."""
        return np.array(
            [
                any(is_hit(one.centre_lps_mm, lesion) for lesion in self.scored.lesions)
                for one in self.scored.candidates
            ],
            bool,
        )

    def best(self, count: int) -> "Marked":
        """The scan with its best `count` candidates by the first stage's score, as a bundle that looks at so many has them."""
        scored = replace(self.scored, candidates=self.scored.candidates[:count])
        cubes = None if self.cubes is None else self.cubes[:count]
        odds = None if self.cube_odds is None else self.cube_odds[:count]
        measured = self.measures[:count], self.places[:count], self.around[:count]
        return Marked(scored, *measured, cubes, odds, self.circle_lps_mm)


def mark(box: Prepared, region: Region, scored: Scored) -> Marked:
    """Return the candidates with the shape of what lies around them in the box, and where they lie in the region."""
    volume = Volume(np.asarray(box.region.hu_DHW), box.region.affine_lps)
    centres = [one.centre_lps_mm for one in scored.candidates]
    cubes = [cube_around(volume, centre) for centre in centres]
    found = [
        [measured(cube), *(measured(cube_around(volume, place)) for place in around(centre))]
        for cube, centre in zip(cubes, centres, strict=True)
    ]
    measures = np.array(found, np.float32).reshape(len(centres), 5, len(NAMES))
    seen = np.array(cubes, np.int16).reshape(len(centres), SIDE, SIDE, SIDE)
    places = surroundings(region, centres)
    return Marked(scored, measures[:, 0], places, measures[:, 1:], seen, circle_lps_mm=region.circle_centre_lps_mm)


def identity_of(bundle: Bundle) -> dict[str, Any]:
    """What the candidates of a scan, and what is measured of them, depend on."""
    manifest = bundle.manifest
    return {
        "first_stage": sorted(manifest.weights_sha256.values()),
        "preprocessing": asdict(manifest.preprocessing),
        "most_marked": MOST_MARKED,
        "measured": MEASURED,
    }


def claim(folder: Path, bundle: Bundle) -> None:
    """The folder is one for the candidates of this bundle's first stage.

    Raises ConfigError where it holds those of another, or such as were marked without the place of the circle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_own(folder, bundle)
    if not all('"circle_lps_mm"' in path.read_text(encoding="utf-8") for path in _scans_in(folder)):
        raise ConfigError(
            f"{folder} is of a version that kept no place of the circle: mark the scans into another folder"
        )
    if not (folder / IDENTITY).exists():
        if _scans_in(folder):
            raise ConfigError(
                f"{folder} does not say of which model its candidates are: mark the scans into another folder"
            )
        write_whole(folder / IDENTITY, json.dumps(identity_of(bundle), indent=1))


def require_own(folder: Path, bundle: Bundle) -> None:
    """Raises ConfigError where the folder says that its candidates are those of another first stage, or measured otherwise."""
    path = folder / IDENTITY
    if not path.exists():
        return
    there, own = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(identity_of(bundle)))
    if others := [name for name in own if there.get(name) != own[name]]:
        raise ConfigError(
            f"{folder} was marked with the candidates of another model ({', '.join(others)}): mark the scans with this bundle, "
            "into another folder"
        )


def _scans_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.json") if path.stem.isdigit()]


def save_marked(folder: Path, marked: Marked) -> None:
    """Write a scan's candidates: their cubes, then all else as one file, with which the scan is there."""
    if marked.cubes is not None:
        np.save(folder / f"{marked.scored.seed}.npy", marked.cubes)
    document = document_of(marked.scored) | {"circle_lps_mm": marked.circle_lps_mm}
    for name, measures in (("measures", marked.measures), ("places", marked.places), ("around", marked.around)):
        document |= {name: measures.astype(float).round(5).tolist()}
    write_whole(folder / f"{marked.scored.seed}.json", json.dumps(document))


def load_marked(folder: Path, bundle: Bundle | None = None, *, cubes: bool = False) -> list[Marked]:
    """All scans of a folder, in the order of their seeds; the cubes too where they are asked for, or `bundle` looks at them.

    Raises ConfigError where only centres were measured, or the candidates are not those of the first stage of `bundle`.
    """
    if bundle is not None:
        require_own(folder, bundle)
    wanted = cubes or (bundle is not None and bool(bundle.cubes))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in _scans_in(folder)]
    if not all("around" in each for each in found):
        raise ConfigError(
            f"{folder} is of a version that measured centres alone: mark the scans anew, into another folder"
        )
    return [
        Marked(
            scored_of(each),
            np.array(each["measures"], np.float32).reshape(-1, len(NAMES)),
            np.array(each["places"], np.float32).reshape(-1, len(PLACES)),
            np.array(each["around"], np.float32).reshape(-1, 4, len(NAMES)),
            np.load(kept) if wanted and (kept := folder / f"{each['seed']}.npy").exists() else None,
            circle_lps_mm=tuple(circle) if (circle := each.get("circle_lps_mm")) else None,
        )
        for each in sorted(found, key=lambda one: one["seed"])
    ]


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Mark what is painted and not marked yet; 2 where the folder or the regions are another bundle's."""
    parser = argparse.ArgumentParser(prog="python -m training.candidates", description=__doc__)
    for name in ("bundle", "cache", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    bundle = load_bundle(asked.bundle, precision="auto")
    if not (regions := asked.cache / REGIONS).is_dir():
        raise ConfigError(f"{regions} is no folder: name one of `python -m training.paint`")
    claim(asked.folder, bundle)
    painted = sorted(regions.iterdir(), key=lambda path: path.name)
    for path in [path for path in painted if path.name.isdigit()][: asked.count]:
        if (asked.folder / f"{path.name}.json").exists():
            continue
        scan = fitting(load_prepared(path), bundle, asked.cache)
        found = found_candidates(scan.region, bundle, "cpu", most=MOST_MARKED)
        scored = Scored(scan.seed, seen(scan), found, scan.confounders)
        save_marked(asked.folder, mark(load_prepared(asked.cache / NATIVE / path.name), scan.region, scored))
        print(path.name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
