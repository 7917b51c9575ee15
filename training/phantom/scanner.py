"""The scanner: what was drawn for it, its blur, its noise and its artefacts."""

from dataclasses import dataclass, replace

import numpy as np

from training.phantom.frame import Float32Array, FloatArray, Grid, linear_matrix, resample


@dataclass(frozen=True)
class Scanner:
    """A scanner's settings and the moment of the scan."""

    kvp: int
    kernel: str
    fwhm_mm: float
    edge_enhancement: float
    slice_spacing_mm: float
    slice_thickness_mm: float
    field_of_view_mm: float
    noise_hu: float
    noise_grain: float
    arterial_hu: float
    venous_fraction: float
    cupping_hu: float
    petrous_band_hu: float
    ghost_mm: float


KERNELS: tuple[tuple[str, float, float], ...] = (
    ("H20s", 0.95, 0.0),
    ("H31s", 0.85, 0.0),
    ("FC43", 0.78, 0.1),
    ("STANDARD", 0.8, 0.0),
    ("UB", 0.7, 0.15),
    ("H40f", 0.65, 0.2),
    ("DETAIL", 0.6, 0.3),
)
"""Name, FWHM in mm and overshoot at edges of the kernels that training sees."""
HELD_OUT_KERNEL = ("HR44", 0.55, 0.45)
SPACINGS_MM = (0.5, 0.6, 0.625, 0.625, 0.7, 0.75, 0.8, 1.0, 1.0, 1.25)
HELD_OUT_SPACING_MM = 0.9
TORTUOSITY = (0.5, 1.5)
HELD_OUT_TORTUOSITY = (1.5, 1.75)
ARTERIAL_HU = (220.0, 480.0)
HELD_OUT_ARTERIAL_HU = ((195.0, 220.0), (480.0, 520.0))


def draw_scanner(rng: np.random.Generator, *, held_out: bool, contrast: bool = True) -> Scanner:
    """Settings of one scan; held-out scans come from a kernel, spacing and contrast that training never sees."""
    kvp = int(rng.choice([80, 100, 120], p=[0.2, 0.45, 0.35]))
    middle = {80: 400.0, 100: 355.0, 120: 305.0}[kvp]
    arterial = float(np.clip(rng.normal(middle, 70), *ARTERIAL_HU))
    name, fwhm, edge = KERNELS[int(rng.integers(len(KERNELS)))]
    spacing = float(rng.choice(SPACINGS_MM))
    if held_out:
        low, high = HELD_OUT_ARTERIAL_HU[int(rng.integers(2))]
        kvp, arterial = 90, float(rng.uniform(low, high))
        name, fwhm, edge = HELD_OUT_KERNEL
        spacing = HELD_OUT_SPACING_MM
    else:
        fwhm *= float(rng.uniform(0.9, 1.1))
    venous = float(np.clip(rng.lognormal(np.log(0.32), 0.55), 0.05, 0.95))
    return Scanner(
        kvp=kvp,
        kernel=name,
        fwhm_mm=fwhm,
        edge_enhancement=edge,
        slice_spacing_mm=spacing,
        slice_thickness_mm=float(max(spacing, rng.choice([spacing, 0.6, 0.75, 1.0, 1.25]))),
        field_of_view_mm=float(rng.uniform(180, 250)),
        noise_hu=float(np.clip(rng.lognormal(np.log(16), 0.38), 6, 34)),
        noise_grain=float(rng.uniform(0.5, 1.1)),
        arterial_hu=arterial if contrast else 45.0,
        venous_fraction=venous,
        cupping_hu=float(rng.normal(0, 6)),
        petrous_band_hu=float(rng.uniform(0, 28)),
        ghost_mm=float(rng.uniform(0.5, 1.6)) if rng.uniform() < 0.1 else 0.0,
    )


def with_grainy_noise(scanner: Scanner, rng: np.random.Generator) -> Scanner:
    """The scanner with noise as measured on a real one: coarser than the image is blurred, and of a dose drawn anew."""
    noise = float(np.clip(rng.lognormal(np.log(11), 0.45), 4, 34))
    return replace(scanner, noise_hu=noise, noise_grain=float(rng.uniform(0.9, 2.1)))


def taps(sigma_mm: float, step_mm: float, edge: float = 0.0) -> FloatArray:
    """A symmetric filter of unit sum: a Gaussian of `sigma_mm`, sharpened by `edge` against one 2.2 times as wide."""
    half = max(int(np.ceil(2.4 * sigma_mm * (2.2 if edge else 1.0) / step_mm)), 1)
    at = np.arange(-half, half + 1) * step_mm

    def gaussian(sigma: float) -> FloatArray:
        values: FloatArray = np.exp(-0.5 * (at / max(sigma, 1e-3)) ** 2)
        return np.asarray(values / values.sum())

    return (1 + edge) * gaussian(sigma_mm) - edge * gaussian(2.2 * sigma_mm)


def filtered(field: Float32Array, weights: FloatArray, axis: int) -> Float32Array:
    """`field` convolved along an axis with a symmetric filter; edges repeat."""
    half = len(weights) // 2
    if half == 0 or abs(weights[half] - 1) < 1e-3:
        return field
    out = field * np.float32(weights[half])
    count = field.shape[axis]
    moved_out, moved_in = np.moveaxis(out, axis, 0), np.moveaxis(field, axis, 0)
    for k in range(1, min(half + 1, count)):
        weight = np.float32(weights[half + k])
        if abs(weight) < 1e-3:
            continue
        moved_out[k:] += weight * moved_in[:-k]
        moved_out[:k] += weight * moved_in[:1]
        moved_out[:-k] += weight * moved_in[k:]
        moved_out[-k:] += weight * moved_in[-1:]
    return out


class Noise:
    """Correlated noise of a scanner on its native grid, slice by slice; the block of slices repeats, turned over.

    A tile of the native plane serves every slice: real noise has no long-range order for a network to learn either.
    """

    def __init__(self, scanner: Scanner, pixel_mm: float, shape_HW: tuple[int, int], rng: np.random.Generator) -> None:
        self.shape, self.rng = shape_HW, rng
        block = rng.standard_normal((40, shape_HW[0] + 16, shape_HW[1] + 16), dtype=np.float32)
        sigma = scanner.noise_grain * scanner.fwhm_mm / 2.355
        weights = taps(sigma, pixel_mm, scanner.edge_enhancement * 0.6)
        block = filtered(filtered(block, weights, 1), weights, 2)
        overlap = scanner.slice_thickness_mm / scanner.slice_spacing_mm
        if overlap > 1.05:
            block = filtered(block, taps(0.3 * overlap, 1.0), 0)
        block *= np.float32(scanner.noise_hu) / block.std()
        self.block: Float32Array = block
        self.plan: list[tuple[int, int, int, bool]] = []

    def slices(self, first: int, last: int) -> Float32Array:
        """Noise of native slices first..last-1, (d, h, w) float32; call with growing `first`."""
        depth = len(self.block)
        out = np.empty((last - first, *self.shape), np.float32)
        for i in range(first, last):
            lap, at = divmod(i, depth)
            while len(self.plan) <= lap:
                self.plan.append(
                    (
                        int(self.rng.integers(16)),
                        int(self.rng.integers(16)),
                        int(self.rng.integers(4)),
                        bool(self.rng.integers(2)),
                    )
                )
            top, left, flips, negate = self.plan[lap]
            at = depth - 1 - at if lap % 2 else at
            plane = self.block[at, top : top + self.shape[0], left : left + self.shape[1]]
            if flips & 1:
                plane = plane[::-1]
            if flips & 2:
                plane = plane[:, ::-1]
            np.multiply(plane, np.float32(-1 if negate else 1), out=out[i - first])
        return out


def resampled_noise(scanner: Scanner, pixel_mm: float, grid: Grid, rng: np.random.Generator) -> Float32Array:
    """A scanner's noise as it is after linear interpolation from its native grid onto `grid`."""
    native, matrices = [], []
    for axis, step in enumerate((scanner.slice_spacing_mm, pixel_mm, pixel_mm)):
        length = grid.spacing_DHW[axis] * (grid.shape_DHW[axis] - 1)
        count = int(length / step) + 3
        native.append(count)
        start = -rng.uniform(0, 1) * step
        coarse = start + step * np.arange(count, dtype=np.float64)
        fine = grid.spacing_DHW[axis] * np.arange(grid.shape_DHW[axis], dtype=np.float64)
        matrices.append(linear_matrix(coarse, fine))
    noise = Noise(scanner, pixel_mm, (native[1], native[2]), rng).slices(0, native[0])
    return resample(noise, (matrices[0], matrices[1], matrices[2]))


def noise_gain(grid: Grid, isocentre_lps: FloatArray) -> tuple[Float32Array, Float32Array]:
    """How noise grows: (d,) toward the dense base of the skull, (h, w) toward the middle of the head; mean about 1."""
    x, y, z = grid.axis(2) - isocentre_lps[0], grid.axis(1) - isocentre_lps[1], grid.axis(0) - isocentre_lps[2]
    along = 0.85 + 0.35 / (1 + np.exp((z + 18) / 9))
    radial = np.exp(-((x[None, :] / 75) ** 2) - ((y[:, None] - 18) / 90) ** 2)
    return along.astype(np.float32), (0.75 + 0.4 * radial).astype(np.float32)
