"""Tubes become signed distances on a grid, so that a lumen's edge is as sharp as its scanner and no sharper."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.phantom.frame import Float32Array, FloatArray, Grid
from training.phantom.tubes import Tube

FAR_MM = 4.0
"""Distance given to every voxel that no vessel is near to."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Tapering straight pieces of vessels in LPS mm, N of them.

    `start`, `end`: (N, 3).  `r_start`, `r_end`: (N,).  `label`: uint8 (N,).  `hu`: float32 (N,), HU of the lumen.
    """

    start: FloatArray
    end: FloatArray
    r_start: FloatArray
    r_end: FloatArray
    label: NDArray[np.uint8]
    hu: Float32Array

    def within(self, low_lps: FloatArray, high_lps: FloatArray, margin_mm: float) -> "Segments":
        """The pieces that come within a margin of a box."""
        reach = np.maximum(self.r_start, self.r_end)[:, None] + margin_mm
        keep = np.all(np.minimum(self.start, self.end) - reach <= high_lps, axis=1)
        keep &= np.all(np.maximum(self.start, self.end) + reach >= low_lps, axis=1)
        return Segments(
            self.start[keep], self.end[keep], self.r_start[keep], self.r_end[keep], self.label[keep], self.hu[keep]
        )


def segments_of(tubes: Sequence[Tube], hu: Sequence[float], stride: int = 2) -> Segments:
    """The pieces of tubes in LPS mm, every `stride` centreline points, each tube with its HU."""
    start, end, r_start, r_end, label, value = [], [], [], [], [], []
    for tube, level in zip(tubes, hu, strict=True):
        index = np.arange(0, len(tube.points), stride)
        if index[-1] != len(tube.points) - 1:
            index = np.append(index, len(tube.points) - 1)
        start.append(tube.points[index[:-1]])
        end.append(tube.points[index[1:]])
        r_start.append(tube.radius[index[:-1]])
        r_end.append(tube.radius[index[1:]])
        label.append(np.full(len(index) - 1, tube.label, np.uint8))
        value.append(np.full(len(index) - 1, level, np.float32))
    return Segments(
        np.concatenate(start),
        np.concatenate(end),
        np.concatenate(r_start),
        np.concatenate(r_end),
        np.concatenate(label),
        np.concatenate(value),
    )


def voxel_points(grid: Grid, where: tuple[slice, slice, slice] | None = None) -> FloatArray:
    """LPS mm of voxel centres, (d, h, w, 3)."""
    axes = [grid.axis(axis)[where[axis]] if where else grid.axis(axis) for axis in range(3)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.stack([x, y, z], axis=-1)


def paint(grid: Grid, segments: Segments) -> tuple[Float32Array, NDArray[np.int32]]:
    """Distance in mm to the nearest wall (negative in a lumen, at most FAR_MM), and the nearest piece's index or −1."""
    distance = np.full(grid.shape_DHW, FAR_MM, np.float32)
    nearest = np.full(grid.shape_DHW, -1, np.int32)
    margin = 1.2 * max(grid.spacing_DHW)
    zs, ys, xs = (grid.axis(axis).astype(np.float32) for axis in range(3))
    low = np.array([xs[0], ys[0], zs[0]])
    high = np.array([xs[-1], ys[-1], zs[-1]])
    reach = np.maximum(segments.r_start, segments.r_end)[:, None] + margin
    lows = np.minimum(segments.start, segments.end) - reach
    highs = np.maximum(segments.start, segments.end) + reach
    origin, step = np.array(grid.origin_DHW[::-1]), np.array(grid.spacing_DHW[::-1])
    shape = np.array(grid.shape_DHW[::-1])
    first = np.clip(np.ceil((lows - origin) / step), 0, shape).astype(int)
    last = np.clip(np.floor((highs - origin) / step) + 1, 0, shape).astype(int)
    hit = np.all(lows <= high, axis=1) & np.all(highs >= low, axis=1) & np.all(last > first, axis=1)
    along = (segments.end - segments.start).astype(np.float32)
    squared = np.maximum((along * along).sum(axis=1), np.float32(1e-6))
    for i in np.flatnonzero(hit):
        (x0, y0, z0), (x1, y1, z1) = first[i], last[i]
        ax, ay, az = along[i]
        sx, sy, sz = segments.start[i].astype(np.float32)
        px, py, pz = xs[x0:x1] - sx, (ys[y0:y1] - sy)[:, None], (zs[z0:z1] - sz)[:, None, None]
        t = ((px * (ax / squared[i]) + py * (ay / squared[i])) + pz * (az / squared[i])).clip(0, 1)
        qx, qy, qz = px - t * ax, py - t * ay, pz - t * az
        near = np.sqrt(qx * qx + qy * qy + qz * qz)
        r0, r1 = np.float32(segments.r_start[i]), np.float32(segments.r_end[i])
        near -= r0 + t * (r1 - r0)
        view = distance[z0:z1, y0:y1, x0:x1]
        closer = near < view
        np.copyto(view, near, where=closer)
        np.copyto(nearest[z0:z1, y0:y1, x0:x1], np.int32(i), where=closer)
    return distance, nearest


def visibility(segments: Segments, voxel_mm: float) -> Float32Array:
    """Per piece, what its edge coverage is multiplied by so that a vessel thinner than a voxel keeps its mass."""
    radius = (segments.r_start + segments.r_end) / 2
    wide = radius**2 / (radius**2 + voxel_mm**2 / 12)
    thin = radius**2 * 3 * voxel_mm / (radius + voxel_mm / 2) ** 3
    return np.where(radius >= voxel_mm / 2, wide, np.minimum(thin, 1)).astype(np.float32)
