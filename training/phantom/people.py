"""Drawn arteries as they are in people: thinner, less even, siphons folded more and less, and harmless shapes like sacs."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from training.phantom.confounders import Blob, across_axes
from training.phantom.frame import FloatArray
from training.phantom.tree import Tree, mirror
from training.phantom.tubes import STEP_MM

THINNER = {
    "ICA_neck": 0.9,
    "ICA_infra": 0.83,
    "ICA_supra": 0.83,
    "M1": 0.82,
    "M2_superior": 0.85,
    "M2_inferior": 0.85,
    "M2_middle": 0.85,
    "A1": 0.82,
    "A2": 0.85,
    "P1": 0.7,
    "P2": 0.8,
    "basilar": 0.93,
    "basilar_tip": 0.93,
}
"""Radius in people over that of `draw_arteries`."""
FOLDS = (0.8, 1.7)
"""How far a siphon strays from its chord, as a multiple of the drawn one."""


def make_like_people(tree: Tree, rng: np.random.Generator) -> None:
    """The arteries of `draw_arteries` have the calibre, the unevenness and the siphons of people."""
    for side in "LR":
        _fold(tree, side, float(rng.uniform(*FOLDS)))
    for name, tube in tree.tubes.items():
        kind = name[2:] if name[:2] in ("L_", "R_") else name
        radius = tube.radius * THINNER.get(kind, 1.0)
        if kind == "ICA_supra":
            radius = radius * np.linspace(1.0, 0.9, len(radius))
        if "ICA_neck" not in name:
            radius = radius * uneven(len(radius), rng)
        tree.tubes[name] = replace(tube, radius=radius)


def folded(course: FloatArray, fold: float) -> FloatArray:
    """How a course moves when its distance from its chord is multiplied; its ends stay."""
    steps = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(course, axis=0), axis=1))])
    chord = course[0] + (steps / steps[-1])[:, None] * (course[-1] - course[0])
    moved: FloatArray = (fold - 1) * (course - chord)
    return moved


def carried(points: FloatArray, origin_moved: FloatArray) -> FloatArray:
    """A branch whose origin has moved: it comes along, less and less over 10 mm."""
    away = np.linalg.norm(points - points[0], axis=1)
    out: FloatArray = points + np.clip(1 - away / 10.0, 0, 1)[:, None] * origin_moved
    return out


def _fold(tree: Tree, side: str, fold: float) -> None:
    """The siphon from where it leaves the petrous bone to the carotid's fork; what leaves it comes along."""
    infra, supra = tree.tubes[f"{side}_ICA_infra"], tree.tubes[f"{side}_ICA_supra"]
    first = infra.nearest(np.array(mirror(side, (15.5, -8.5, -19.5))))
    count = len(infra.points) - first
    course = np.concatenate([infra.points[first:], supra.points])
    moved = folded(course, fold)
    for kind in ("PCOM", "choroidal", "ophthalmic", "hypophyseal_0", "hypophyseal_1"):
        tube = tree.tubes.get(f"{side}_{kind}")
        if tube is not None:
            at = int(np.argmin(np.linalg.norm(course - tube.points[0], axis=1)))
            tree.tubes[f"{side}_{kind}"] = replace(tube, points=carried(tube.points, moved[at]))
    points = np.concatenate([infra.points[:first], course[:count] + moved[:count]])
    tree.tubes[f"{side}_ICA_infra"] = replace(infra, points=points)
    tree.tubes[f"{side}_ICA_supra"] = replace(supra, points=course[count:] + moved[count:])


def uneven(count: int, rng: np.random.Generator) -> FloatArray:
    """How a vessel's radius varies along it: about 0.08 of itself over a few millimetres."""
    noise = gaussian_filter1d(rng.normal(0, 1, count + 40), rng.uniform(1.5, 4.0))[20:-20]
    out: FloatArray = np.clip(1 + rng.uniform(0.06, 0.12) * noise / (noise.std() + 0.05), 0.65, 1.35)
    return out


LOOKALIKES = (
    "PCOM infundibulum",
    "choroidal infundibulum",
    "ophthalmic infundibulum",
    "blunt carotid end",
    "M1 divides into three",
    "ICA_supra divides into three",
)
"""The kinds that `add_lookalikes` draws; a tree's variants name them with their side."""


def add_lookalikes(tree: Tree, rng: np.random.Generator) -> tuple[str, ...]:
    """Infundibula, blunt carotid ends above thin branches, and forks of three, in scans with an aneurysm or without.

    Returns the kinds that were drawn, each once.
    """
    before = len(tree.variants)
    for side in "LR":
        for kind in ("PCOM", "choroidal", "ophthalmic"):
            if f"{side}_{kind}" in tree.tubes and rng.uniform() < 0.2:
                _widen_origin(tree, side, kind, rng)
        if rng.uniform() < 0.15:
            _blunt_end(tree, side, rng)
        if rng.uniform() < 0.4:
            _third_branch(tree, side, f"{side}_M1", rng)
        if rng.uniform() < 0.12:
            _third_branch(tree, side, f"{side}_ICA_supra", rng)
    drawn = {variant[2:] for variant in tree.variants[before:]}  # without the side
    return tuple(kind for kind in LOOKALIKES if kind in drawn)


def _widen_origin(tree: Tree, side: str, kind: str, rng: np.random.Generator) -> None:
    """A cone of at most 3 mm where a branch leaves the carotid."""
    branch, parent = tree.tubes[f"{side}_{kind}"], tree.tubes[f"{side}_ICA_supra"]
    start = float(parent.radius[parent.nearest(branch.points[0])])
    away = np.arange(len(branch.radius)) * STEP_MM - start
    cone = float(rng.uniform(0.9, 1.45)) * (1 - np.clip(away, 0, None) / rng.uniform(2.0, 4.0))
    tree.tubes[branch.name] = replace(branch, radius=np.maximum(branch.radius, cone))
    tree.variants.append(f"{side} {kind} infundibulum")


def _blunt_end(tree: Tree, side: str, rng: np.random.Generator) -> None:
    """The carotid stays wide up to its fork, and one of the arteries that it divides into is thin."""
    supra = tree.tubes[f"{side}_ICA_supra"]
    back = np.arange(len(supra.points))[::-1] * STEP_MM
    wide = supra.radius * (1 + rng.uniform(0.1, 0.35) * np.exp(-((back / 3.0) ** 2)))
    tree.tubes[supra.name] = replace(supra, radius=wide)
    thin = tree.tubes[f"{side}_{rng.choice(['A1', 'M1'], p=[0.75, 0.25])}"]
    tree.tubes[thin.name] = replace(thin, radius=thin.radius * rng.uniform(0.4, 0.7))
    tree.variants.append(f"{side} blunt carotid end")


def _third_branch(tree: Tree, side: str, parent: str, rng: np.random.Generator) -> None:
    """A third artery, nearly as wide as the other two, leaves where a vessel divides."""
    tube = tree.tubes[parent]
    width = 2 * float(tube.radius[-1]) * rng.uniform(0.4, 0.8)
    toward = np.array(mirror(side, (float(rng.uniform(0, 10)), float(rng.normal(0, 8)), float(rng.normal(3, 8)))))
    tree.offshoot(f"{parent}_third", tube, 1.0, rng.uniform(12, 30), (width, 0.7 * width), toward=toward)
    tree.variants.append(f"{parent} divides into three")


def freed_from_bone(tree: Tree, rng: np.random.Generator) -> list[Blob]:
    """Soft tissue or fluid about the carotids where they leave the base of the skull: no bone touches some, it does others."""
    found = []
    for side in "LR":
        room = float(rng.choice([0.0, rng.uniform(0.3, 1.5), rng.uniform(1.5, 5.0)], p=[0.25, 0.35, 0.4]))
        if room == 0.0:
            continue
        infra, supra = tree.tubes[f"{side}_ICA_infra"], tree.tubes[f"{side}_ICA_supra"]
        first = int(rng.uniform(0.45, 0.8) * len(infra.points))
        fluid = tree.head.cistern_hu
        for tube, start, hu in ((infra, first, float(rng.uniform(25, 60))), (supra, 0, fluid)):
            for index in range(start, len(tube.points), 2):
                size = (tube.radius[index] + room) * rng.uniform(0.85, 1.15, 3)
                found.append(Blob(tube.points[index], size, across_axes(None, rng), hu, over=False))
    return found
