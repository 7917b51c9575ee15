"""Arteries that follow a real head's: bent, mirrored for tests only, their calibre drawn anew, what the data lacks completed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from ai.locations import Location
from training.anatomy import Branch
from training.phantom.carotids import lay_external
from training.phantom.frame import FloatArray
from training.phantom.head import Head, cavity_at, pulled_to
from training.phantom.people import carried, folded, uneven
from training.phantom.scan import OTHER_ARTERY
from training.phantom.tree import Point, Tree, label_of, mirror, sided
from training.phantom.tubes import STEP_MM, Tube

RADIUS_MM = {
    "ICA_supra": (1.85, 1.4),
    "M1": (1.2, 1.1),
    "M2_superior": (0.95, 0.45),
    "M2_inferior": (0.85, 0.4),
    "A1": (0.92, 0.88),
    "A2": (0.9, 0.4),
    "ACOM": (0.7, 0.7),
    "PCOM": (0.6, 0.55),
    "P1": (0.75, 0.7),
    "P2": (0.85, 0.4),
    "basilar": (1.45, 1.3),
}
"""Mean radius at the beginning and the end of an artery in people; other branches have 0.8 of what was measured."""
SPREAD = 0.13
"""Standard deviation of an artery's radius between people, as a fraction."""
BENDS_MM = ((70.0, 3.0), (32.0, 1.9), (14.0, 0.9))
"""Distance between control points and standard deviation of their displacement, of each field that bends a tree."""
UNSEEN_BENDS_MM = ((55.0, 3.0), (26.0, 2.0), (11.0, 0.8))
STRENGTH, UNSEEN_STRENGTH = (0.25, 1.0), (1.0, 1.4)
"""How strongly a tree is bent: what training draws, and what only validation draws."""
FOLDS, UNSEEN_FOLDS = (0.76, 1.3), ((0.6, 0.74), (1.32, 1.6))
"""How far a siphon strays from its chord, as a multiple of the real one."""
_INSIDE = ("M2", "A2", "P2", "branch")


def draw_real_arteries(head: Head, rng: np.random.Generator, branches: Sequence[Branch], *, unseen: bool) -> Tree:
    """All arteries of a head in canonical mm, named as `draw_arteries` names them.

    `unseen`: bent by fields that False never draws, and mirrored, which False never is.
    """
    strength = float(rng.uniform(*(UNSEEN_STRENGTH if unseen else STRENGTH)))
    tree = Tree(head, rng, 1.0)
    tree.variants.append(f"real tree bent by {strength:.2f}" + (", mirrored" if unseen else ""))
    scale = rng.normal(1.0, 0.04, 3) * rng.normal(1.0, 0.03)
    fields = [(step, size * strength) for step, size in (UNSEEN_BENDS_MM if unseen else BENDS_MM)]
    bends = [_Bend(step, size, rng) for step, size in fields]
    courses: dict[str, FloatArray] = {}
    for branch in branches:
        name = _mirrored(branch.name) if unseen else branch.name
        points = branch.points * [-1.0, 1.0, 1.0] if unseen else branch.points
        points = points * scale
        points = points + sum(bend.at(points) for bend in bends)
        courses[name] = points
    parents = {
        _mirrored(one.name) if unseen else one.name: _mirrored(one.parent) if unseen else one.parent for one in branches
    }
    _fold_siphons(courses, parents, tree, unseen=unseen)
    courses = _seated(courses, tree)
    for branch in branches:
        name = _mirrored(branch.name) if unseen else branch.name
        _add(tree, name, parents[name], courses[name], branch.radius)
    _complete_carotids(tree)
    _complete_posterior(tree)
    for side in "LR":
        lay_external(tree, side)
    return tree


def _fold_siphons(courses: dict[str, FloatArray], parents: dict[str, str], tree: Tree, *, unseen: bool) -> None:
    """The siphons folded more or less than the head's own; what leaves them keeps its origin on them."""
    for side in "LR":
        low, high = UNSEEN_FOLDS[int(tree.rng.integers(2))] if unseen else FOLDS
        fold = float(tree.rng.uniform(low, high))
        names = (f"{side}_ICA_infra", f"{side}_ICA_supra")
        whole = np.concatenate([courses[name] for name in names])
        moved = folded(whole, fold)
        for name, parent in parents.items():
            if parent in names and name not in names:
                origin = int(np.argmin(np.linalg.norm(whole - courses[name][0], axis=1)))
                courses[name] = carried(courses[name], moved[origin])
        cut = len(courses[names[0]])
        courses[names[0]], courses[names[1]] = (whole + moved)[:cut], (whole + moved)[cut:]


def _seated(courses: dict[str, FloatArray], tree: Tree) -> dict[str, FloatArray]:
    """The courses shifted, either side for itself, so that the carotids enter the cistern where the drawn skull lets them."""
    shift = {}
    for side in "LR":
        ring = np.array(mirror(side, (12.8, 8.2, -7.3)))
        shift[side] = ring - courses[f"{side}_ICA_supra"][0] + np.clip(tree.rng.normal(0, 0.9, 3), -2, 2)
    moved = {}
    for name, points in courses.items():
        left = np.clip(0.5 + points[:, :1] / 24.0, 0, 1)
        moved[name] = points + left * shift["L"] + (1 - left) * shift["R"]
    return moved


class _Bend:
    """A smooth displacement in mm: cubic B-splines on a lattice of `step_mm` about the middle of the circle."""

    def __init__(self, step_mm: float, size_mm: float, rng: np.random.Generator) -> None:
        self.step_mm = step_mm
        side = int(280 / step_mm) + 6
        self.half = side / 2 + float(rng.uniform(-0.5, 0.5))
        self.lattice = rng.normal(0, 1.6 * size_mm, (3, side, side, side))  # splines smooth the lattice's values

    def at(self, points: FloatArray) -> FloatArray:
        where = (points / self.step_mm + self.half).T
        parts = [map_coordinates(axis, where, order=3, mode="nearest", prefilter=False) for axis in self.lattice]
        out: FloatArray = np.stack(parts, axis=1)
        return out


def _mirrored(name: str) -> str:
    return {"L": "R", "R": "L"}[name[0]] + name[1:] if name[:2] in ("L_", "R_") else name


def _resampled(points: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A course at every STEP_MM without the steps of the voxels that it was traced through; its ends stay."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], max(int(lengths[-1] / STEP_MM) + 1, 3))
    fine = np.stack([np.interp(at, lengths, points[:, axis]) for axis in range(3)], axis=1)
    smooth = gaussian_filter1d(fine, 1.5, axis=0, mode="nearest")
    fade = np.clip(np.minimum(at, lengths[-1] - at) / 2.0, 0, 1)[:, None]
    return fine + fade * (smooth - fine), np.interp(at, lengths, values)


def _add(tree: Tree, name: str, parent: str, points: FloatArray, measured: FloatArray) -> None:
    course, thin = _resampled(points, measured)
    if any(part in name for part in _INSIDE):
        fade = np.clip(np.arange(len(course)) * STEP_MM / 8, 0, 1)
        outside = (cavity_at(tree.head, course) > -2.0) & (fade > 0)
        pulled = pulled_to(tree.head, course[outside], -2.0, only_outside=True)
        course[outside] += fade[outside, None] * (pulled - course[outside])
    kind = name[2:] if name[:2] in ("L_", "R_") else name
    if kind == "ICA_infra":
        course, radius = _petrous(tree, name[0], course)
    elif kind in RADIUS_MM:
        first, last = RADIUS_MM[kind]
        reach = np.clip(np.arange(len(course)) * STEP_MM / (60.0 if kind[1] == "2" else len(course) * STEP_MM), 0, 1)
        radius = (first + (last - first) * reach) * tree.rng.lognormal(0, SPREAD)
    else:
        radius = np.maximum(thin * 0.8, 0.3) * tree.rng.lognormal(0, SPREAD)
        radius = np.minimum(radius, 0.9 * tree.tubes[parent].radius[tree.tubes[parent].nearest(course[0])])
    if kind in ("P1", "A1") and tree.rng.uniform() < 0.1:
        radius = radius * 0.6
        tree.variants.append(f"{name} hypoplasia")
    if kind == "PCOM" and tree.rng.uniform() < 0.2:
        radius = radius * 1.5
        tree.variants.append(f"{name} fetal")
    tube = Tube(name, course, radius * uneven(len(course), tree.rng), _label(tree, name, kind, parent))
    if kind == "basilar":
        _basilar(tree, tube)
        return
    if kind in ("M1", "ICA_supra", "A1", "P1"):
        tube = _wide_ends(tube, tree.rng)
    tree.tubes[name] = tube


def _wide_ends(tube: Tube, rng: np.random.Generator) -> Tube:
    """The vessel a little wider toward the fork that it ends in."""
    back = np.arange(len(tube.points))[::-1] * STEP_MM
    return replace(tube, radius=tube.radius * (1 + rng.uniform(0, 0.2) * np.exp(-((back / 2.0) ** 2))))


def _label(tree: Tree, name: str, kind: str, parent: str) -> int:
    for part, location in (
        ("ICA_infra", Location.LEFT_INFRACLINOID_ICA),
        ("ICA_supra", Location.LEFT_SUPRACLINOID_ICA),
        ("M1", Location.LEFT_MCA),
        ("M2", Location.LEFT_MCA),
        ("A1", Location.LEFT_ACA),
        ("A2", Location.LEFT_ACA),
        ("PCOM", Location.LEFT_PCOM),
    ):
        if kind.startswith(part):
            return label_of(sided(name[0], location))
    if kind == "ACOM":
        return label_of(Location.ACOM)
    if kind in ("P1", "P2", "basilar"):
        return label_of(Location.OTHER_POSTERIOR)
    above = tree.tubes[parent]
    return OTHER_ARTERY if "ICA" in parent else above.label if parent != "basilar_tip" else _OTHER_POSTERIOR


_OTHER_POSTERIOR = label_of(Location.OTHER_POSTERIOR)


def _petrous(tree: Tree, side: str, course: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The siphon with the petrous carotid before it, and its radius."""
    canal = tree.near(mirror(side, (25, -17, -38)), 1.0)
    bend = tree.near(mirror(side, (23.5, -14.5, -30)), 0.8)
    foramen = 0.5 * course[0] + 0.5 * bend + tree.rng.normal(0, 0.6, 3) + [0, -1.0, -0.5]
    straight = np.concatenate([[canal], [bend], [foramen], course])
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(straight, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], int(lengths[-1] / STEP_MM) + 1)
    fine = np.stack([np.interp(at, lengths, straight[:, axis]) for axis in range(3)], axis=1)
    smooth = gaussian_filter1d(fine, 2.5, axis=0, mode="nearest")
    near = np.clip((lengths[3] + 4 - at) / 4, 0, 1)[:, None]
    points = fine + near * (smooth - fine)
    wide = float(tree.rng.lognormal(0, SPREAD))
    return points, np.linspace(2.25, 1.85, len(points)) * wide


def _basilar(tree: Tree, tube: Tube) -> None:
    """The basilar artery with the stretch down to where the vertebral arteries join, and its tip apart."""
    join = np.array([tree.rng.normal(0, 1.5), -18.0, -29.0]) + tree.rng.normal(0, 1.0, 3)
    count = max(int(np.linalg.norm(tube.points[0] - join) / STEP_MM), 2)
    low = join + np.linspace(0, 1, count, endpoint=False)[:, None] * (tube.points[0] - join)
    points = np.concatenate([low, tube.points])
    smooth = gaussian_filter1d(points, 3.0, axis=0, mode="nearest")
    fade = np.clip((count + 6 - np.arange(len(points))) / 6, 0, 1)[:, None]
    points = points + fade * (smooth - points)
    radius = np.concatenate([np.full(count, tube.radius[0]), tube.radius])
    cut = len(points) - round(5.0 / STEP_MM)
    tree.tubes["basilar"] = Tube("basilar", points[: cut + 1], radius[: cut + 1], tube.label)
    tip = Tube("basilar_tip", points[cut:], radius[cut:], label_of(Location.BASILAR_TIP))
    tree.tubes["basilar_tip"] = _wide_ends(tip, tree.rng)


def _complete_carotids(tree: Tree) -> None:
    """The carotids of the neck, and small branches of the siphon and the supraclinoid carotid."""
    rng = tree.rng
    for side in "LR":
        infra, supra = tree.tubes[f"{side}_ICA_infra"], tree.tubes[f"{side}_ICA_supra"]
        wide = 2 * float(infra.radius[0])
        neck = [tree.near(mirror(side, (29, -20, z)), 3.0) for z in (-170, -140, -110, -85)]
        neck += [tree.near(mirror(side, (27, -20, -60)), 2.0), infra.points[0]]
        tree.lay(f"{side}_ICA_neck", neck, (wide + 0.3, wide), OTHER_ARTERY, wiggle_mm=1.0, wave_mm=40)
        small = (float(rng.uniform(0.7, 1.1)), 0.5)
        back = np.array(mirror(side, (4, -18, 1)))
        tree.offshoot(f"{side}_choroidal", supra, rng.uniform(0.6, 0.75), 24, small, toward=back, label=OTHER_ARTERY)
        path = ((13.5, 14, -7), (16.5, 21, -9), (24, 33, -8), (22, 47, -5), (20, 58, -4))
        through = [supra.points[2], *(tree.near(mirror(side, p), 0.8) for p in path[1:])]
        tree.lay(f"{side}_ophthalmic", through, (rng.uniform(1.0, 1.4), 0.8), OTHER_ARTERY, wiggle_mm=0.8)
        for number in range(int(rng.integers(0, 3))):
            way = np.array(mirror(side, (-6, -3, 1)))
            tree.offshoot(f"{side}_hypophyseal_{number}", supra, rng.uniform(0.2, 0.5), 6, (0.6, 0.4), toward=way)
        first = tree.tubes[f"{side}_P2"].points[0]
        if f"{side}_PCOM" not in tree.tubes and rng.uniform() < 0.6:
            start = supra.points[int(rng.uniform(0.4, 0.55) * len(supra.points))]
            middle = [start + (first - start) * t + rng.normal(0, 0.8, 3) - [0, 0, 1.5] for t in (0.35, 0.7)]
            label = label_of(sided(side, Location.LEFT_PCOM))
            width = float(rng.uniform(0.7, 1.5))
            tree.lay(f"{side}_PCOM", [start, *middle, first], (width * 1.1, width), label, wiggle_mm=0.5)
        a2 = tree.tubes[f"{side}_A2"]
        start = a2.points[int(len(a2.points) * rng.uniform(0.15, 0.3))]
        through = [
            start,
            *(start + np.array([0, y, z]) + rng.normal(0, 1.5, 3) for y, z in ((6, 8), (4, 20), (-8, 30))),
        ]
        tree.lay(f"{side}_callosomarginal", through, (1.4, 1.0, 0.8), a2.label, wiggle_mm=1.0, inside_mm=2.0)


def _complete_posterior(tree: Tree) -> None:
    """Vertebral and cerebellar arteries, which the data lacks."""
    rng, other = tree.rng, _OTHER_POSTERIOR
    basilar = tree.tubes["basilar"]
    join = basilar.points[0]
    for side in "LR":
        va = float(np.clip(rng.normal(2.7, 0.45), 1.2, 3.8))
        dura = tree.near(mirror(side, (11, -31, -49)), 1.0)
        neck = ((22, -15, -170), (22, -15, -130), (22, -15, -100), (21, -15, -86), (27, -15, -76), (27, -20, -66))
        low = [tree.near(mirror(side, p), 1.2) for p in (*neck, (24, -32, -61), (16, -34, -57))]
        tree.lay(f"{side}_vertebral_neck", [*low, dura], (va * 1.1, va), OTHER_ARTERY, wiggle_mm=0.8)
        through = [tree.near(mirror(side, p), 1.3) for p in ((8.5, -26.5, -42), (4.5, -21.5, -34))]
        v4 = tree.lay(f"{side}_V4", [dura, *through, join], (va, va * 0.92, va * 0.85), other, wiggle_mm=0.7)
        where = v4.points[int(rng.uniform(0.25, 0.6) * len(v4.points))]
        route: tuple[Point, ...] = (
            (14, -31, -44),
            (13, -38, -50),
            (8, -43, -46),
            (7, -45, -38),
            (6, -52, -36),
            (8, -62, -44),
        )
        through = [where, *(tree.near(mirror(side, p), 1.6) for p in route)]
        tree.lay(f"{side}_PICA", through, (min(rng.uniform(1.1, 1.7), va), 0.9), other, wiggle_mm=1.0, inside_mm=2.0)
        start = basilar.points[int(rng.uniform(0.25, 0.6) * len(basilar.points))]
        route = ((10, -20.5, -23), (18, -22, -24), (24, -26, -22), (24, -32, -26), (32, -42, -32))
        through = [start, *(tree.near(mirror(side, p), 1.3) for p in route)]
        tree.lay(f"{side}_AICA", through, (rng.uniform(0.8, 1.2), 0.6), other, wiggle_mm=0.8, inside_mm=1.0)
        start = basilar.points[-max(int(rng.uniform(0, 2.5) / STEP_MM), 1)]
        route = ((7, -13, -4), (14, -20, -6), (18, -31, -6), (15, -41, -1), (14, -55, 3))
        through = [start, *(tree.near(mirror(side, p), 1.2) for p in route)]
        tree.lay(f"{side}_SCA", through, (rng.uniform(1.1, 1.5), 0.8), other, wiggle_mm=0.7, inside_mm=1.0)
