"""The base of the skull, the face and the upper neck: bone, air cells, orbits."""

from typing import TYPE_CHECKING

import numpy as np

from training.phantom.head import Head
from training.phantom.shapes import Array, Vector, box, cone, ellipsoid

if TYPE_CHECKING:
    from training.phantom.canvas import Canvas


class _Painter:
    """Adds and carves solids on a canvas; the sides are drawn slightly unlike."""

    def __init__(self, canvas: "Canvas", rng: np.random.Generator, fine: Array, wobble: Array) -> None:
        self.canvas, self.rng, self.fine, self.wobble = canvas, rng, fine, wobble
        self.shift: Vector = (0.0, 0.0, 0.0)

    def shape(
        self, points: tuple[Vector, ...], size: tuple[float, ...], kind: str, nod: float, rough: float
    ) -> tuple[tuple[slice, slice, slice], Array]:
        """The window of a solid and its signed distance there, its surface roughened by `rough` mm."""
        margin = max(size) * (1.75 if kind != "cone" else 1.0) + 4
        low = tuple(min(p[k] for p in points) - margin for k in range(3))
        high = tuple(max(p[k] for p in points) + margin for k in range(3))
        where, x, y, z = self.canvas.near((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        if kind == "cone":
            distance = cone(x, y, z, points[0], points[1], size[0], size[-1])
        elif kind == "box":
            distance = box(x, y, z, points[0], (size[0] - 1.5, size[1] - 1.5, size[2] - 1.5), nod) - np.float32(1.5)
        else:
            distance = ellipsoid(x, y, z, points[0], (size[0], size[1], size[2]))
        if rough:
            distance = distance + np.float32(rough) * (0.5 * self.fine[where] + self.wobble[where])
        return where, distance

    def bone(
        self,
        points: tuple[Vector, ...],
        size: tuple[float, ...],
        *,
        kind: str = "cone",
        nod: float = 0.0,
        hu: float | None = None,
        marrow: float | None = None,
        rough: float = 0.5,
        both: bool = False,
    ) -> None:
        """Add bone; with `marrow`, its inside holds that HU under a cortex of about 1.5 mm."""
        for each in self._sides(points, both):
            where, distance = self.shape(each, size, kind, nod, rough)
            fields = self.canvas.fields
            if hu is not None:
                self.canvas.fill("bone_hu", distance, where, hu, 1.2)
            if marrow is not None:
                self.canvas.fill("bone_hu", distance + 2.0, where, marrow, 1.2)
            fields["bone"][where] = np.minimum(fields["bone"][where], distance)

    def carve(
        self,
        points: tuple[Vector, ...],
        size: tuple[float, ...],
        *,
        kind: str = "cone",
        nod: float = 0.0,
        hu: float | None = None,
        wall: float = 0.0,
        rough: float = 0.3,
        both: bool = False,
    ) -> None:
        """Take bone away, leaving a wall of the given thickness around the hole, and fill it with soft tissue."""
        for each in self._sides(points, both):
            where, distance = self.shape(each, size, kind, nod, rough)
            bone = self.canvas.fields["bone"]
            if wall:
                bone[where] = np.minimum(bone[where], np.abs(distance - np.float32(wall / 2)) - np.float32(wall / 2))
            bone[where] = np.maximum(bone[where], -distance)
            if hu is not None:
                self.canvas.fill("soft", distance, where, hu)

    def air(
        self,
        points: tuple[Vector, ...],
        size: tuple[float, ...],
        *,
        kind: str = "ellipsoid",
        wall: float = 1.2,
        wall_hu: float | None = None,
        lining: float = 0.0,
        lining_hu: float = 55.0,
        rough: float = 1.0,
        both: bool = False,
    ) -> None:
        """A hollow with a bony wall, a lining of mucosa and air inside; a wall thinner than a voxel has few HU."""
        for each in self._sides(points, both):
            where, distance = self.shape(each, size, kind, 0.0, rough)
            bone, air = self.canvas.fields["bone"], self.canvas.fields["air"]
            if wall_hu is not None:
                self.canvas.fill("bone_hu", distance - np.float32(wall), where, wall_hu)
            if wall:
                bone[where] = np.minimum(bone[where], np.abs(distance - np.float32(wall / 2)) - np.float32(wall / 2))
            bone[where] = np.maximum(bone[where], -distance)
            self.canvas.fill("soft", distance, where, lining_hu)
            air[where] = np.minimum(air[where], distance + np.float32(lining))

    def _sides(self, points: tuple[Vector, ...], both: bool) -> list[tuple[Vector, ...]]:
        found: list[tuple[Vector, ...]] = []
        for sign in (1.0, -1.0) if both else (1.0,):
            move = self.rng.normal(0, 0.6, 3) + self.shift
            found.append(tuple((sign * p[0] + move[0], p[1] + move[1], p[2] + move[2]) for p in points))
        return found

    def cells(self, centre: Vector, radii: Vector, amount: float, *, both: bool = True) -> None:
        """Air cells scattered in bone: the more, the larger `amount` (about −1..1)."""
        for each in self._sides((centre,), both):
            where, distance = self.shape(each, radii, "ellipsoid", 0.0, 0.5)
            cell = np.maximum(distance, (np.float32(0.45 - 0.6 * amount) - self.fine[where]) * np.float32(1.1))
            air, bone = self.canvas.fields["air"], self.canvas.fields["bone"]
            cell = np.maximum(cell, bone[where] + np.float32(1.0))  # the bone keeps its surface
            air[where] = np.minimum(air[where], cell)


def paint(canvas: "Canvas", head: Head, rng: np.random.Generator, fine: Array, wobble: Array) -> None:
    """Paint bone, air and orbits below and in front of the brain onto the coarse fields."""
    painter = _Painter(canvas, rng, fine, wobble)
    painter.shift = (0.0, *head.base_shift_mm)
    _middle_base(painter, head, rng)
    painter.shift = (0.0, 0.0, 0.0)
    _temporal(painter, head, rng)
    _orbits(painter, rng)
    _face(painter, head, rng)
    _neck(painter)
    _central_air(painter, head, rng)
    if head.roof_hu:
        for side in (-1.0, 1.0):
            where, distance = painter.shape(((side * 32, 28, 4),), (27, 30, 12), "ellipsoid", 0.0, 1.0)
            canvas.fill("bone_hu", distance, where, head.roof_hu, 3.0)


def _middle_base(p: _Painter, head: Head, rng: np.random.Generator) -> None:
    """Sphenoid body, sella, clinoids, wings and clivus."""
    marrow = float(rng.uniform(150, 450))
    p.bone(((0, 9, -22),), (14.5, 14, 9.5), kind="box", marrow=marrow, rough=1.3)
    p.bone(((0, -4, -27),), (11.5, 6.5, 18), kind="box", nod=24, marrow=marrow, rough=1.1)
    p.bone(((0, -12, -41),), (14, 7, 6), kind="ellipsoid", marrow=marrow)
    p.carve(((0, 2, -11.5),), (6.5, 5.5, 4.8), kind="ellipsoid", hu=float(rng.uniform(60, 95) + 70 * head.enhancement))
    p.carve(((12.5, 3, -14.5),), (4.5, 10, 6.5), kind="ellipsoid", hu=float(rng.uniform(40, 70)), both=True)
    p.bone(((0, -5.5, -10),), (7, head.dorsum_mm, 5.5), kind="box", rough=0.3)
    p.bone(((4, -5, -6), (7.5, -4.5, -5 + 0.5 * head.clinoid_mm)), (1.8, 1.3), both=True, rough=0.2)
    tip = (15.5 + 0.3 * head.clinoid_mm, 5.5 - head.clinoid_mm, -4.5)
    p.bone(((22, 18, -2.5), tip), (3.6, 2.0), both=True, rough=0.3)
    if head.wing_marrow_hu:
        p.bone(((22, 18, -4), (50, 27, 1)), (4.5, 5.5), both=True, marrow=head.wing_marrow_hu)
    else:
        p.bone(((20, 18, -2.5), (50, 27, 2)), (2.8, 2.2), both=True)
    p.bone(((0, 17, -3.5), (20, 18, -2.5)), (2.0, 2.4), both=True)
    p.bone(((0, 9, -8), (7, 9, -8)), (1.2, 1.2), both=True, rough=0.2)
    p.bone(((20, 12, -30), (30, 20, -22)), (4, 3), both=True, marrow=marrow)
    p.bone(((15, 13, -32), (16, 10, -60)), (3.0, 1.2), both=True)
    p.carve(((37, -4, -30), (37, -4, -38)), (1.4, 1.4), hu=40.0, both=True)
    p.carve(((22, 0, -30), (23, 2, -38)), (2.6, 2.6), hu=40.0, both=True)  # oval and lacerated foramina
    p.carve(((17, -7, -25), (18, -8, -33)), (3.2, 3.2), hu=40.0, both=True)


def _temporal(p: _Painter, head: Head, rng: np.random.Generator) -> None:
    """Petrous pyramids with ear, canals and air cells; mastoids; jugular foramina; occipital base."""
    marrow = float(rng.uniform(350, 900))
    p.bone(((14, -9, -23), (38, -27, -25)), (4.5, 9.5), both=True, hu=float(rng.uniform(1000, 1500)), rough=0.8)
    p.bone(((36, -26, -25), (54, -38, -32)), (9.5, 13), both=True, marrow=marrow, rough=1.0)
    p.bone(((54, -34, -40), (52, -30, -58)), (10, 5), both=True, marrow=marrow, rough=0.8)
    p.bone(((33, -25, -24),), (8, 5.5, 5.5), kind="ellipsoid", both=True, hu=float(rng.uniform(1700, 2300)), rough=0.4)
    p.carve(((15, -21, -23), (27, -23, -23.5)), (2.8, 2.2), hu=10.0, both=True, rough=0.2)
    p.air(((40, -20, -30),), (3.5, 4.5, 6), both=True, wall=0, rough=0.5)
    p.air(((45, -21, -33), (64, -22, -34)), (2.6, 3.6), kind="cone", both=True, wall=1.5, rough=0.4)
    amount = head.mastoid_cells
    p.cells((51, -38, -34), (15, 14, 18), amount)
    if amount > 0.5:
        p.cells((26, -17, -25), (12, 8, 6), amount - 0.5)
    p.carve(((27, -25, -34), (28, -24, -52)), (5.0, 5.0), hu=45.0, both=True)
    p.carve(((25, -17, -34), (26, -18, -52)), (3.0, 3.4), hu=45.0, both=True)
    p.bone(((17, -24, -50),), (6, 11, 5.5), kind="ellipsoid", both=True, marrow=marrow * 0.7)
    p.bone(((0, -98, -12), (0, -104, -14)), (5, 4))
    p.bone(((24, -22, -46), (42, -28, -46)), (4, 5), both=True, marrow=marrow)
    p.carve(((0, -33, -30), (0, -38, -130)), (14, 8.5), hu=None, rough=0.0)
    p.bone(((46, -22, -48), (42, -16, -72)), (1.8, 1.0), both=True)  # styloid process


def _orbits(p: _Painter, rng: np.random.Generator) -> None:
    fat, muscle = float(rng.uniform(-110, -80)), float(rng.uniform(55, 95))
    p.carve(((18, 22, -11), (30, 58, -14)), (4, 19), hu=fat, wall=1.6, both=True)
    p.carve(((30, 62, -14), (31, 90, -14)), (19, 24), hu=50.0, both=True)
    p.carve(((30, 50, -14),), (17, 16, 16), kind="ellipsoid", hu=fat, both=True)
    p.carve(((16, 20, -11), (19, 26, -11)), (3.5, 4.5), hu=muscle - 15, both=True)  # apex and superior fissure
    for dx, dz in ((9, 0), (-9, 0), (0, 9), (0, -9)):
        p.carve(((19, 25, -11), (30 + dx, 52, -14 + dz)), (1.4, 2.4), hu=muscle, both=True, rough=0.2)
    p.carve(
        (
            (10, 17, -7),
            (19, 26, -10),
        ),
        (2.0, 2.0),
        hu=30.0,
        both=True,
        rough=0.1,
    )
    p.carve(((19, 26, -10), (29, 46, -13)), (2.1, 2.1), hu=32.0, both=True, rough=0.1)
    p.carve(((30, 57, -14),), (12, 12, 12), kind="ellipsoid", hu=14.0, both=True, rough=0.0)
    p.carve(((30, 65, -14),), (4, 2, 4), kind="ellipsoid", hu=95.0, both=True, rough=0.0)


def _face(p: _Painter, head: Head, rng: np.random.Generator) -> None:
    """Cheekbones, jaws, nose, ethmoid, frontal and maxillary sinuses."""
    lining = head.sinus_mucosa
    p.bone(((50, 46, -32), (66, 20, -34)), (4, 2.8), both=True)
    p.bone(((66, 20, -34), (64, -8, -34)), (2.8, 2.8), both=True)
    p.bone(((46, 54, -6), (50, 46, -32)), (3, 4), both=True)
    p.bone(((48, -2, -44), (50, 2, -88)), (5, 6), both=True, marrow=400.0)
    p.bone(((50, 2, -88), (12, 62, -108)), (6, 7), both=True, marrow=400.0)
    p.bone(((30, 30, -72), (10, 60, -74)), (5, 6), both=True, marrow=500.0)
    p.bone(((28, 32, -80), (10, 62, -82)), (3.5, 3.5), both=True, hu=2000.0, rough=1.5)
    p.bone(((0, 30, -66), (0, 55, -66)), (1.8, 1.8))
    p.air(((28, 42, -42),), (13, 17, 15), both=True, wall=1.5, lining=lining if rng.uniform() < 0.5 else 0.0)
    if rng.uniform() < 0.85:
        p.air(((9, 66, 6 + rng.uniform(-4, 4)),), (9, 5, 9), both=True, wall=2.5, lining=min(lining, 3.0))
    for number in range(int(rng.integers(7, 12))):
        along = (number + 0.5) / 10
        p.air(
            ((7 + rng.normal(0, 1), 20 + 38 * along, -13 + rng.normal(0, 4)),),
            (5.5, 4.5, 7.5),
            both=True,
            wall=1.1,
            lining=min(lining, 1.5),
            rough=0.8,
        )


def _neck(p: _Painter) -> None:
    """Atlas, axis and the vertebrae below, with a canal."""
    p.bone(((0, -14, -52), (0, -17, -82)), (4.8, 6.5), marrow=350.0)
    p.bone(((0, -8, -62), (16, -18, -63)), (3.2, 4), both=True)
    p.bone(((19, -23, -63),), (8, 8, 8), kind="ellipsoid", both=True, marrow=400.0)
    p.bone(((24, -28, -64), (0, -54, -66)), (3.4, 3.4), both=True)
    for level in range(4):
        z = -86.0 - 19 * level
        p.bone(((0, -15, z),), (10, 8, 7.5), kind="box", marrow=320.0)
        p.bone(((14, -22, z), (17, -32, z - 3)), (4.5, 5), both=True, marrow=350.0)
        p.bone(((17, -32, z - 3), (0, -54, z - 7)), (3, 3.5), both=True)
    p.carve(((0, -35, -50), (0, -37, -160)), (10, 9.5), rough=0.0)


def _central_air(p: _Painter, head: Head, rng: np.random.Generator) -> None:
    """Sphenoid sinus, nasal cavity with turbinates, and throat."""
    size = head.pneumatised
    if size > 0:
        lining = head.sinus_mucosa if rng.uniform() < 0.5 else 0.0
        shift = float(rng.normal(0, 2.5))
        for sign in (1, -1):
            width = (8 - sign * shift * 0.6) * size
            centre = (shift + sign * (width * 0.95), 11 - 2.0 * size + rng.normal(0, 1), -22.5 + rng.normal(0, 0.8))
            p.shift = (0.0, *head.base_shift_mm)
            size_mm = (width, 10.5 * size, 8.0 * min(size, 1.05))
            p.air((centre,), size_mm, wall=1.2, wall_hu=head.sinus_wall_hu, lining=lining, rough=1.0)
        if head.recesses:
            _recesses(p, head, lining)
        p.shift = (0.0, 0.0, 0.0)
    p.air(((0, 42, -42),), (12, 26, 17), wall=1.2, rough=1.0)
    for z in (-34, -44, -54):
        where, distance = p.shape(((7.0, 28.0, float(z)), (7.5, 58.0, float(z))), (2.8, 2.4), "cone", 0.0, 1.0)
        other, mirrored = p.shape(((-7.0, 28.0, float(z)), (-7.5, 58.0, float(z))), (2.8, 2.4), "cone", 0.0, 1.0)
        for part, inside in ((where, distance), (other, mirrored)):
            p.canvas.fields["air"][part] = np.maximum(p.canvas.fields["air"][part], -inside)
            p.canvas.fill("soft", inside, part, float(rng.uniform(60, 140)))
    p.bone(((0, 42, -40),), (2.2, 26, 16), kind="box", rough=0.4)
    p.air(((0, 12, -52),), (10, 9, 15), wall=0)
    p.air(((0, 6, -60), (0, 2, -170)), (6, 8), kind="cone", wall=0)
    p.air(((0, 40, -82),), (14, 20, 3), wall=0)


def _recesses(p: _Painter, head: Head, lining: float) -> None:
    """Air cells that the sphenoid sinus sends under the sella, into clivus, dorsum, clinoids and lesser wings."""
    hollows: tuple[tuple[tuple[Vector, ...], tuple[float, float], bool], ...] = (
        (((0, 8, -24), (0, -3, -26)), (7.0, 5.5), False),
        (((0, -2, -24), (0, -7, -34)), (5.5, 3.5), False),
        (((0, -4, -20), (0, -5.5, -9)), (3.0, 1.6), False),
        (((9, 12, -17), (17, 14, -5)), (4.5, 2.2), True),
        (((12, 12, -26), (28, 18, -24)), (5.0, 3.5), True),
    )
    for points, size, both in hollows:
        p.air(
            points,
            size,
            kind="cone",
            wall=1.0,
            wall_hu=head.sinus_wall_hu,
            lining=min(lining, 1.5),
            rough=0.6,
            both=both,
        )
