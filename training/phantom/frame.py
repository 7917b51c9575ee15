"""Frames of reference: where a canonical head lies in the patient's LPS frame, and the grids it is sampled on.

The canonical frame has x to the patient's left, y anterior, z superior, in mm, with its origin in the middle of the
circle of Willis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.separable import along_axes

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxel centres with axes along z (d), y (h) and x (w) of the LPS frame, in mm."""

    origin_DHW: tuple[float, float, float]
    spacing_DHW: tuple[float, float, float]
    shape_DHW: tuple[int, int, int]

    def axis(self, which: int) -> FloatArray:
        """Positions in mm along axis 0 (z), 1 (y) or 2 (x)."""
        return self.origin_DHW[which] + self.spacing_DHW[which] * np.arange(self.shape_DHW[which], dtype=np.float64)

    def affine_lps(self) -> FloatArray:
        """The 4×4 matrix from (d, h, w, 1) to LPS mm."""
        affine = np.zeros((4, 4))
        for column, row in enumerate((2, 1, 0)):
            affine[row, column] = self.spacing_DHW[column]
            affine[row, 3] = self.origin_DHW[column]
        affine[3, 3] = 1.0
        return affine

    def box(self, low_lps: FloatArray, high_lps: FloatArray) -> tuple[slice, slice, slice]:
        """The slices of the voxels between two corners in LPS mm; empty slices where they miss the grid."""
        found = []
        for axis in range(3):
            origin, step, count = self.origin_DHW[axis], self.spacing_DHW[axis], self.shape_DHW[axis]
            first = int(np.ceil((low_lps[2 - axis] - origin) / step))
            last = int(np.floor((high_lps[2 - axis] - origin) / step)) + 1
            first = min(max(first, 0), count)
            found.append(slice(first, min(max(last, first), count)))
        return found[0], found[1], found[2]

    def slab(self, first: int, last: int) -> "Grid":
        """The grid of slices first..last-1."""
        z, y, x = self.origin_DHW
        return Grid((z + first * self.spacing_DHW[0], y, x), self.spacing_DHW, (last - first, *self.shape_DHW[1:]))


def covering(low_lps: FloatArray, high_lps: FloatArray, step_mm: float) -> Grid:
    """The isotropic grid that covers a box in LPS mm."""
    counts = [int(np.ceil((high_lps[2 - axis] - low_lps[2 - axis]) / step_mm)) + 2 for axis in range(3)]
    z, y, x = (float(low_lps[2 - axis]) - step_mm / 2 for axis in range(3))
    return Grid((z, y, x), (step_mm, step_mm, step_mm), (counts[0], counts[1], counts[2]))


def linear_matrix(coarse: FloatArray, fine: FloatArray) -> Float32Array:
    """The (fine × coarse) matrix of linear interpolation between evenly spaced positions, clamped at the ends."""
    position = np.clip((fine - coarse[0]) / (coarse[1] - coarse[0]), 0, len(coarse) - 1.001)
    low = position.astype(int)
    matrix = np.zeros((len(fine), len(coarse)), np.float32)
    rows = np.arange(len(fine))
    matrix[rows, low] = 1 - (position - low)
    matrix[rows, low + 1] = position - low
    return matrix


def resample(field_DHW: Float32Array, matrices: tuple[Float32Array, Float32Array, Float32Array]) -> Float32Array:
    """A field interpolated along d, h and w by one matrix each; float32."""
    return along_axes(field_DHW, *matrices)


def smooth_noise(grid: Grid, scale_mm: float, rng: np.random.Generator) -> Float32Array:
    """Noise of unit variance on `grid` whose features are about `scale_mm` wide (cubic B-splines on a lattice)."""
    matrices = []
    counts = []
    for axis in range(3):
        position = np.arange(grid.shape_DHW[axis]) * grid.spacing_DHW[axis] / scale_mm + rng.uniform(0, 1)
        count = int(position[-1]) + 4
        low = position.astype(int)
        t = position - low
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        matrix = np.zeros((len(position), count), np.float32)
        for offset, weight in enumerate(weights):
            matrix[np.arange(len(position)), low + offset] = weight / 6
        matrices.append(matrix)
        counts.append(count)
    lattice = rng.standard_normal(counts, dtype=np.float32)
    return resample(lattice, (matrices[0], matrices[1], matrices[2])) * np.float32(2.94)


@dataclass(frozen=True, eq=False)
class Pose:
    """How a canonical head is scaled, bent, turned and placed: canonical mm ↔ LPS mm.

    `bends`: (amplitude 3, wave vector 3, phase) of each sinusoid that bends the head, at most a few mm.
    """

    scale: FloatArray
    rotation: FloatArray
    centre_lps: FloatArray
    bends: tuple[tuple[FloatArray, FloatArray, float], ...]

    def _bend(self, points: FloatArray) -> FloatArray:
        moved = np.zeros_like(points)
        for amplitude, wave, phase in self.bends:
            moved += np.sin(points @ wave + phase)[..., None] * amplitude
        return moved

    def to_lps(self, points: FloatArray) -> FloatArray:
        """LPS mm of canonical points (..., 3)."""
        scaled = points * self.scale
        turned: FloatArray = (scaled + self._bend(scaled)) @ self.rotation.T
        placed: FloatArray = turned * np.array([1.0, -1.0, 1.0]) + self.centre_lps
        return placed

    def to_canonical(self, points_lps: FloatArray) -> FloatArray:
        """Canonical mm of LPS points (..., 3); the bend is inverted to first order."""
        turned = (points_lps - self.centre_lps) * np.array([1.0, -1.0, 1.0])
        scaled = turned @ self.rotation
        once = scaled - self._bend(scaled)
        canonical: FloatArray = (scaled - self._bend(once)) / self.scale
        return canonical

    def canonical_grid(self, grid: Grid) -> tuple[Float32Array, Float32Array, Float32Array]:
        """Canonical x, y and z at every voxel of `grid`: the affine part exact, the bend interpolated from 8 mm."""
        low = np.array([grid.axis(2)[0], grid.axis(1)[0], grid.axis(0)[0]])
        high = np.array([grid.axis(2)[-1], grid.axis(1)[-1], grid.axis(0)[-1]])
        sparse = covering(low - 1.0, high + 1.0, 8.0)
        z, y, x = np.meshgrid(sparse.axis(0), sparse.axis(1), sparse.axis(2), indexing="ij")
        canonical = self.to_canonical(np.stack([x, y, z], axis=-1)).astype(np.float32)
        matrices = tuple(linear_matrix(sparse.axis(axis), grid.axis(axis)) for axis in range(3))
        parts = [
            resample(np.ascontiguousarray(canonical[..., i]), (matrices[0], matrices[1], matrices[2])) for i in range(3)
        ]
        return parts[0], parts[1], parts[2]


def rotation_matrix(degrees_xyz: tuple[float, float, float]) -> FloatArray:
    """Rotation about x, then y, then z, by the angles given in degrees."""
    ax, ay, az = np.deg2rad(degrees_xyz)
    about_x = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    about_y = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    about_z = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    product: FloatArray = about_z @ about_y @ about_x
    return product


def draw_pose(rng: np.random.Generator, *, held_out: bool) -> Pose:
    """A head's size, asymmetry and position; a held-out head is turned by angles that training never sees."""
    turn = rng.normal(0, [6.0, 3.0, 4.0])
    if held_out:  # nod beyond what training draws, in either direction
        turn[0] = rng.choice([-1.0, 1.0]) * rng.uniform(13.0, 17.0)
    else:
        turn = np.clip(turn, -12.5, 12.5)
    bends = []
    for _ in range(3):
        wave = rng.normal(0, 1, 3)
        wave *= 2 * np.pi / (rng.uniform(90, 220) * np.linalg.norm(wave))
        bends.append((rng.normal(0, 1.1, 3), wave, float(rng.uniform(0, 2 * np.pi))))
    overall = rng.normal(1.0, 0.035)
    return Pose(
        overall * rng.normal(1.0, 0.025, 3),
        rotation_matrix((float(turn[0]), float(turn[1]), float(turn[2]))),
        np.array([rng.normal(0, 6), rng.normal(0, 10), rng.uniform(-300, 300)]),
        tuple(bends),
    )
