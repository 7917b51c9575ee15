"""What a phantom is painted on."""

import numpy as np

from training.phantom.frame import Float32Array, Grid, Pose
from training.phantom.shapes import Array, Vector, rising


class Canvas:
    """The coarse fields while they are painted; every solid is evaluated only where it can matter."""

    def __init__(self, grid: Grid, pose: Pose) -> None:
        self.grid, self.pose = grid, pose
        self.x, self.y, self.z = pose.canonical_grid(grid)
        self.fields: dict[str, Float32Array] = {}

    def window(self, low: Vector, high: Vector) -> tuple[slice, slice, slice]:
        """The part of the grid that can hold points of a canonical box."""
        corners = np.array([[(low, high)[i >> k & 1][k] for k in range(3)] for i in range(8)], float)
        lps = self.pose.to_lps(corners)
        return self.grid.box(lps.min(axis=0) - 3.0, lps.max(axis=0) + 3.0)

    def near(self, low: Vector, high: Vector) -> tuple[tuple[slice, slice, slice], Array, Array, Array]:
        """The window of a canonical box, and x, y and z in it."""
        where = self.window(low, high)
        return where, self.x[where], self.y[where], self.z[where]

    def fill(
        self, name: str, distance: Array, where: tuple[slice, slice, slice], value: float, edge_mm: float = 0.8
    ) -> None:
        """Blend `value` into a field inside the solid."""
        inside = 1 - rising(distance, -edge_mm, edge_mm)
        field = self.fields[name]
        field[where] += inside * (np.float32(value) - field[where])
