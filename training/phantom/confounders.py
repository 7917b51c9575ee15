"""What resembles an aneurysm or hides one: normal variants, calcium, metal, tumours and veins that fill."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from training.phantom.frame import FloatArray, Pose
from training.phantom.head import cavity_at
from training.phantom.scanner import Scanner
from training.phantom.tree import Tree, mirror
from training.phantom.tubes import Tube, curve

KINDS = (
    "infundibulum",
    "loop",
    "fenestration",
    "wall calcification",
    "vessel touching bone",
    "cavernous sinus filling",
    "jugular bulb filling",
    "clip",
    "coil",
    "meningioma",
    "late venous phase",
    "choroid plexus",
    "ectasia",
)


@dataclass(frozen=True, eq=False)
class Blob:
    """An ellipsoid of one HU, canonical mm until posed: under the vessels, or over them when `over`.

    `axes`: 3×3, rows are its unit axes.  `streaks`: amplitude in HU of the metal streaks it casts.
    """

    centre: FloatArray
    radii: FloatArray
    axes: FloatArray
    hu: float
    over: bool = True
    streaks: float = 0.0
    edge_mm: float = 0.6

    def posed(self, pose: Pose) -> "Blob":
        """The same blob in LPS mm."""
        turned = self.axes @ pose.rotation.T * np.array([1.0, -1.0, 1.0])
        return replace(self, centre=pose.to_lps(self.centre), axes=turned)

    def distance(self, points: FloatArray) -> FloatArray:
        """Approximate signed distance in mm at points (..., 3) of the same frame."""
        scaled = ((points - self.centre) @ self.axes.T) / self.radii
        k0 = np.linalg.norm(scaled, axis=-1)
        out: FloatArray = k0 * (k0 - 1) / (np.linalg.norm(scaled / self.radii, axis=-1) + 1e-6)
        return out


@dataclass
class Scene:
    """A head's vessels and blobs while confounders are added to it."""

    tree: Tree
    veins: list[Tube]
    scanner: Scanner
    blobs: list[Blob] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def across_axes(first: FloatArray | None, rng: np.random.Generator) -> FloatArray:
    """Three unit axes at right angles, the first along the given one (or at random)."""
    basis = rng.normal(0, 1, (3, 3))
    if first is not None:
        basis[0] = first
    q, _ = np.linalg.qr(basis.T)
    out: FloatArray = q.T
    return out


def across(tube: Tube, index: int, rng: np.random.Generator) -> FloatArray:
    """A random direction at right angles to a vessel."""
    way = np.cross(tube.tangent(index), rng.normal(0, 1, 3))
    out: FloatArray = way / (np.linalg.norm(way) + 1e-9)
    return out


def plaques(tube: Tube, rng: np.random.Generator, count: int, low: float = 0.0, high: float = 1.0) -> list[Blob]:
    """Flat calcified patches in a vessel's wall."""
    found = []
    for _ in range(count):
        index = int(rng.uniform(low, high) * (len(tube.points) - 1))
        out = across(tube, index, rng)
        along = tube.tangent(index)
        axes = np.stack([out, along, np.cross(out, along)])
        centre = tube.points[index] + out * (tube.radius[index] + rng.uniform(-0.1, 0.35))
        radii = np.array([rng.uniform(0.35, 0.9), rng.uniform(0.6, 3.0), rng.uniform(0.5, 1.6)])
        found.append(Blob(centre, radii, axes, float(rng.uniform(450, 1300))))
    return found


def add_background(scene: Scene, rng: np.random.Generator) -> None:
    """What many heads have without being called confounded: pineal and plexus calcium, faint siphon plaques."""
    where = rng.normal(0, 0.8, 3) + np.array([0, -38, 8])
    if rng.uniform() < 0.55:
        for _ in range(int(rng.integers(1, 4))):
            scene.blobs.append(
                Blob(where + rng.normal(0, 1.2, 3), rng.uniform(0.5, 1.8, 3), np.eye(3), float(rng.uniform(150, 700)))
            )
    for side in (-1, 1):
        if rng.uniform() < 0.4:
            spot = np.array([side * 16, -34, 15]) + rng.normal(0, 1.5, 3)
            scene.blobs.append(Blob(spot, rng.uniform(0.6, 2.0, 3), np.eye(3), float(rng.uniform(120, 500))))
    if rng.uniform() < 0.25:
        for _ in range(int(rng.integers(1, 4))):
            spot = np.array([0, rng.uniform(-20, 55), rng.uniform(45, 75)])
            scene.blobs.append(
                Blob(
                    spot, np.array([0.7, rng.uniform(1, 4), rng.uniform(1, 4)]), np.eye(3), float(rng.uniform(300, 900))
                )
            )
    _bone_islands(scene, rng)
    if rng.uniform() < 0.35:  # fillings in teeth
        for _ in range(int(rng.integers(1, 4))):
            spot = np.array([rng.choice([-1, 1]) * rng.uniform(10, 27), rng.uniform(32, 60), rng.uniform(-84, -74)])
            streaks = float(rng.uniform(100, 500))
            scene.blobs.append(
                Blob(spot, rng.uniform(1.5, 3.5, 3), np.eye(3), float(rng.uniform(2500, 8000)), streaks=streaks)
            )
    if rng.uniform() < 0.3:
        name = f"{rng.choice(['L', 'R'])}_ICA_infra"
        scene.blobs += plaques(scene.tree.tubes[name], rng, int(rng.integers(1, 3)), 0.45, 1.0)


def _bone_islands(scene: Scene, rng: np.random.Generator) -> None:
    """Crumbs of bone, calcium and enhancing mucosa about the base of the skull, as bright as vessels, or brighter."""
    count = int(rng.integers(20, 60))
    spots = rng.uniform((-60, -48, -62), (60, 60, 2), (count, 3))
    depth = cavity_at(scene.tree.head, spots)
    for spot in spots[(depth > -1.5) & (depth < 25)]:
        size = rng.uniform(0.5, 1.6) * rng.uniform(0.6, 1.6, 3)
        hu = float(rng.choice([rng.uniform(90, 350), rng.uniform(350, 1100)]))
        scene.blobs.append(Blob(spot, size, across_axes(None, rng), hu, over=False))


def add_confounders(scene: Scene, rng: np.random.Generator, kinds: tuple[str, ...] | None = None) -> None:
    """Add one to three confounders (or those asked for) to the scene and note their names."""
    if kinds is None:
        kinds = tuple(
            str(kind) for kind in rng.choice(KINDS, int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2])), replace=False)
        )
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no confounder {kind!r}; there are: {', '.join(KINDS)}")
        _ADD[kind](scene, rng)
        scene.names.append(kind)


def _infundibulum(scene: Scene, rng: np.random.Generator) -> None:
    """A cone of at most 3 mm where a communicating or choroidal artery leaves the carotid."""
    side = str(rng.choice(["L", "R"]))
    tubes = scene.tree.tubes
    supra = tubes[f"{side}_ICA_supra"]
    name = f"{side}_PCOM" if f"{side}_PCOM" in tubes and rng.uniform() < 0.8 else f"{side}_choroidal"
    branch = tubes[name]
    width = float(rng.uniform(1.9, 2.9))
    radius = branch.radius.copy()
    start = supra.radius[supra.nearest(branch.points[0])] / 0.8
    cone = np.linspace(width / 2, radius[min(int(start) + 4, len(radius) - 1)], int(start) + 4)
    radius[: len(cone)] = np.maximum(radius[: len(cone)], cone[: len(radius)])
    tubes[name] = replace(branch, radius=radius)


def _loop(scene: Scene, rng: np.random.Generator) -> None:
    """Hairpin turns whose apex, seen on end, is round."""
    for _ in range(int(rng.integers(1, 4))):
        names = [
            name
            for name in scene.tree.tubes
            if any(part in name for part in ("M2_s", "M2_i", "A2", "P2", "PICA", "M1"))
        ]
        parent = scene.tree.tubes[str(rng.choice(names))]
        index = int(rng.uniform(0.15, 0.6) * (len(parent.points) - 1))
        start, out = parent.points[index], across(parent, index, rng)
        aside = np.cross(out, parent.tangent(index)) * rng.uniform(0.8, 1.5)
        reach = rng.uniform(3, 7)
        size = min(float(rng.uniform(1.3, 2.3)), 2 * float(parent.radius[index]))
        through = np.array(
            [
                start,
                start + 0.7 * reach * out,
                start + reach * out + aside,
                start + 0.7 * reach * out + 2 * aside,
                start - 2 * out + 2.6 * aside,
                start - 7 * out + 2 * aside + parent.tangent(index) * 5,
            ]
        )
        points, radius = curve(through, np.array([size, size * 0.9, size * 0.7]), rng, wiggle_mm=0.2)
        name = f"loop_{len(scene.tree.tubes)}"
        scene.tree.tubes[name] = Tube(name, points, radius, parent.label)


def _fenestration(scene: Scene, rng: np.random.Generator) -> None:
    """A lumen that runs double for some millimetres."""
    names = ("basilar", "ACOM", "L_M1", "R_M1", "L_A1", "R_A1", "L_V4", "R_V4")
    parent = scene.tree.tubes[str(rng.choice(names, p=[0.35, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]))]
    count = len(parent.points)
    first = int(rng.uniform(0, 0.4) * count)
    last = min(first + max(int(rng.uniform(4, 9) / 0.8), 3), count - 1)
    if last - first < 2:
        first, last = 0, count - 1
    bulge = np.sin(np.linspace(0, np.pi, last - first + 1))[:, None] * across(parent, (first + last) // 2, rng)
    gap = float(parent.radius[first:last].mean()) * rng.uniform(0.9, 1.5)
    points, radius = parent.points.copy(), parent.radius.copy()
    points[first : last + 1] += bulge * gap
    radius[first : last + 1] *= 0.75
    twin = Tube("fenestration", parent.points[first : last + 1] - bulge * gap, radius[first : last + 1], parent.label)
    scene.tree.tubes[parent.name] = replace(parent, points=points, radius=radius)
    scene.tree.tubes["fenestration"] = twin


def _calcification(scene: Scene, rng: np.random.Generator) -> None:
    for side in "LR":
        scene.blobs += plaques(scene.tree.tubes[f"{side}_ICA_infra"], rng, int(rng.integers(1, 9)), 0.3, 1.0)
        scene.blobs += plaques(scene.tree.tubes[f"{side}_ICA_supra"], rng, int(rng.integers(0, 3)), 0.0, 0.6)
        scene.blobs += plaques(scene.tree.tubes[f"{side}_V4"], rng, int(rng.integers(0, 4)))
        if rng.uniform() < 0.3:
            scene.blobs += plaques(scene.tree.tubes[f"{side}_M1"], rng, 1)


def _touching_bone(scene: Scene, rng: np.random.Generator) -> None:
    """A spur of bone against the carotid, middle cerebral or vertebral artery."""
    for _ in range(int(rng.integers(1, 3))):
        tube = scene.tree.tubes[
            f"{rng.choice(['L', 'R'])}_{rng.choice(['ICA_supra', 'ICA_infra', 'V4'], p=[0.5, 0.3, 0.2])}"
        ]
        index = int(rng.uniform(0, 0.7) * (len(tube.points) - 1))
        out = across(tube, index, rng)
        radii = rng.uniform(1.5, 3.5, 3)
        centre = tube.points[index] + out * (tube.radius[index] + radii.min() * 0.9)
        scene.blobs.append(Blob(centre, radii, across_axes(out, rng), float(rng.uniform(700, 1400)), over=False))


def _filled(name: str) -> Callable[[Scene, np.random.Generator], None]:
    def add(scene: Scene, rng: np.random.Generator) -> None:
        wanted = rng.uniform(0.45, 0.95)
        share = wanted / max(scene.scanner.venous_fraction, 0.05)
        scene.veins[:] = [
            replace(v, filling=share * rng.uniform(0.85, 1.1)) if name in v.name else v for v in scene.veins
        ]

    return add


def _late_phase(scene: Scene, rng: np.random.Generator) -> None:
    scene.scanner = replace(scene.scanner, venous_fraction=float(rng.uniform(0.65, 1.0)))


def _site(scene: Scene, rng: np.random.Generator) -> FloatArray:
    """A place where an aneurysm might have been treated."""
    names = ("L_M1", "R_M1", "ACOM", "L_ICA_supra", "R_ICA_supra", "basilar_tip")
    tube = scene.tree.tubes[str(rng.choice(names))]
    point: FloatArray = tube.points[-1]
    return point


def _clip(scene: Scene, rng: np.random.Generator) -> None:
    start = _site(scene, rng) + rng.normal(0, 1.5, 3)
    way = rng.normal(0, 1, 3)
    way /= np.linalg.norm(way)
    length = rng.uniform(3, 6)
    for offset in (0.0, 1.5):
        axes = across_axes(way, rng)
        centre = start + way * (length + 1.5) + offset * axes[1]
        scene.blobs.append(
            Blob(
                centre,
                np.array([length, 0.8, 0.9]),
                axes,
                float(rng.uniform(3000, 6000)),
                streaks=float(rng.uniform(60, 350)),
            )
        )


def _coil(scene: Scene, rng: np.random.Generator) -> None:
    size = rng.uniform(2, 5)
    way = rng.normal(0, 1, 3)
    centre = _site(scene, rng) + way / np.linalg.norm(way) * (size + 1.2)
    scene.blobs.append(
        Blob(
            centre,
            size * rng.uniform(0.85, 1.15, 3),
            across_axes(None, rng),
            float(rng.uniform(3500, 8000)),
            streaks=float(rng.uniform(150, 700)),
        )
    )


def _meningioma(scene: Scene, rng: np.random.Generator) -> None:
    """A tumour on the wing, the planum, the clivus or the tentorium that takes up contrast."""
    side = str(rng.choice(["L", "R"]))
    spots = ((38, 18, 4), (18, 20, 4), (5, 26, 4), (14, -16, -14), (30, -28, -10), (45, 25, 15), (20, -30, 8))
    centre = np.array(mirror(side, spots[int(rng.integers(len(spots)))])) + rng.normal(0, 3, 3)
    size = float(rng.uniform(3, 13))
    scene.blobs.append(
        Blob(
            centre,
            size * rng.uniform(0.75, 1.2, 3),
            across_axes(None, rng),
            float(rng.uniform(90, 190)),
            over=False,
            edge_mm=1.2,
        )
    )


def _choroid(scene: Scene, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        for _ in range(int(rng.integers(2, 6))):
            centre = np.array([side * 16, -33, 14]) + rng.normal(0, [1.5, 4, 3])
            scene.blobs.append(
                Blob(
                    centre,
                    rng.uniform(1, 3.5, 3),
                    across_axes(None, rng),
                    float(rng.uniform(90, 200)),
                    over=False,
                    edge_mm=1.0,
                )
            )


def _ectasia(scene: Scene, rng: np.random.Generator) -> None:
    """A vessel that is wide for a stretch, spindle-shaped, without a sac."""
    names = ("L_ICA_infra", "R_ICA_infra", "L_ICA_supra", "R_ICA_supra", "basilar", "L_V4", "R_V4", "L_M1", "R_M1")
    name = str(rng.choice(names))
    tube = scene.tree.tubes[name]
    where = np.linspace(0, 1, len(tube.points))
    swell = 1 + rng.uniform(0.15, 0.4) * np.exp(-(((where - rng.uniform(0.2, 0.8)) / 0.25) ** 2))
    scene.tree.tubes[name] = replace(tube, radius=tube.radius * swell)


_Adder = Callable[[Scene, np.random.Generator], None]
_ADD: dict[str, _Adder] = {
    "infundibulum": _infundibulum,
    "loop": _loop,
    "fenestration": _fenestration,
    "wall calcification": _calcification,
    "vessel touching bone": _touching_bone,
    "cavernous sinus filling": _filled("cavernous"),
    "jugular bulb filling": _filled("jugular"),
    "clip": _clip,
    "coil": _coil,
    "meningioma": _meningioma,
    "late venous phase": _late_phase,
    "choroid plexus": _choroid,
    "ectasia": _ectasia,
}
