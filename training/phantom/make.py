"""A phantom scan from a seed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ai.locations import Location
from ai.volume import Volume
from training.anatomy import read_arteries
from training.phantom.canvas import Canvas
from training.phantom.confounders import Blob, Scene, across_axes, add_background, add_confounders
from training.phantom.frame import Float32Array, FloatArray, Grid, Pose, covering, draw_pose, smooth_noise
from training.phantom.head import draw_head
from training.phantom.lesions import (
    Family,
    Sac,
    draw_diameter_mm,
    draw_location,
    draw_sac,
    draw_small_diameter_mm,
)
from training.phantom.painting import segments_of
from training.phantom.people import add_lookalikes, freed_from_bone, make_like_people
from training.phantom.real_skull import RealSkull, read_skull
from training.phantom.real_tree import draw_real_arteries
from training.phantom.render import Posed, render
from training.phantom.scan import PhantomScan, TrueLesion
from training.phantom.scanner import (
    HELD_OUT_TORTUOSITY,
    TORTUOSITY,
    Noise,
    Scanner,
    draw_scanner,
    noise_gain,
    resampled_noise,
    with_grainy_noise,
)
from training.phantom.tissues import COARSE_MM, draw_tissues
from training.phantom.tree import Tree
from training.phantom.veins import draw_veins
from training.phantom.vessels import draw_arteries

ROI_MM_DHW = (128.0, 112.0, 112.0)
"""Extent of a region-of-interest scan."""
NATIVE_MM_DHW = (118.0, 118.0, 130.0)
"""Extent of a box of the scanner's own slices and pixels: that of the region that a network reads, and a margin."""
Extent = Literal["full", "roi", "native"]
Spec = Sequence[tuple[Location, float]]


def make_scan(
    seed: int,
    *,
    lesions: int | Spec | None = None,
    location: Location | None = None,
    diameter_mm: float | None = None,
    positive: bool | None = None,
    extent: Extent = "full",
    spacing_mm: float | None = None,
    held_out: bool = False,
    matrix: int = 512,
    contrast: bool = True,
    cropped: bool = False,
    confounders: Sequence[str] | None = None,
    anatomy: str = "",
    unseen: bool = False,
    like_people: bool = False,
    lookalikes: bool = False,
    skull: str = "",
) -> PhantomScan:
    """A synthetic head CTA; the same arguments give the same bytes.

    `lesions`: how many, or exactly which (location, diameter in mm); by default half of all scans have at least one,
    as `positive` decides when given.  `location` and `diameter_mm` are then those of the first lesion.  `extent`:
    "full" is a series as a scanner sends it, `matrix`² pixels, slices every `spacing_mm` (drawn when None); "roi" is
    the box of 128 × 112 × 112 mm about the circle of Willis, resampled to `spacing_mm` (0.7 when None); "native" is a
    box of 118 × 118 × 130 mm about it in the slices and pixels of the scanner.
    `held_out`: head turns, tortuosity, contrast, kernel and slice spacing from ranges that False never draws.
    `contrast`: False is the head before contrast (no lesion shows, so none may be asked for).  `cropped`: a full scan
    that misses part of the circle of Willis.  `confounders`: exactly these (`KINDS` in confounders.py); None draws
    them for half of all scans.
    `anatomy`: a folder with the arteries of a real head (`training.anatomy`), which the arteries then follow; sacs, noise and
    calibre are then drawn as they are in people.  `unseen`: with it, from families that False never draws.  `like_people`: drawn
    arteries, sacs and noise are so, too; False draws what it always drew.
    `lookalikes`: infundibula, blunt carotid ends and forks of three are drawn in an `unseen` scan too, as in every other that is
    varied, and named among its confounders.
    `skull`: a folder with a real scanner's series of a dry skull (`training.phantom.real_skull`), which a "native" scan is then
    painted into, in the scanner's own voxels.
    Raises ValueError for arguments that contradict each other, and ConfigError where `anatomy` lacks a file or
    `skull` cannot be used.
    """
    varied = bool(anatomy) or like_people
    if unseen and not anatomy:
        raise ValueError("unseen=True needs the arteries of a real head: give anatomy, the folder that holds them")
    if skull and extent != "native":
        raise ValueError('a real skull has voxels of its own: give extent="native"')
    size = draw_small_diameter_mm if varied else draw_diameter_mm
    wanted = draw_lesions(
        np.random.default_rng([seed, 1]), lesions, location, diameter_mm, positive, contrast=contrast, size=size
    )
    head = draw_head(np.random.default_rng([seed, 2]))
    if not contrast:
        head = replace(head, enhancement=-0.4)
    rng = np.random.default_rng([seed, 3])
    pose = draw_pose(rng, held_out=held_out)
    scanner = draw_scanner(np.random.default_rng([seed, 4]), held_out=held_out, contrast=contrast)
    if varied:
        scanner = with_grainy_noise(scanner, np.random.default_rng([seed, 13]))
    real = None
    if skull:
        real, pose, scanner = _in_real_skull(read_skull(Path(skull)), pose, scanner, np.random.default_rng([seed, 17]))
    low, high = HELD_OUT_TORTUOSITY if held_out else TORTUOSITY
    tortuosity = float(rng.uniform(low, high))
    if anatomy:
        tree = draw_real_arteries(head, rng, read_arteries(Path(anatomy)), unseen=unseen)
    else:
        tree = draw_arteries(head, rng, tortuosity=tortuosity)
        if like_people:
            make_like_people(tree, np.random.default_rng([seed, 15]))
    if lookalikes and not unseen:
        raise ValueError("lookalikes=True is for unseen scans: the others that are varied have them without it")
    resembling = (
        add_lookalikes(tree, np.random.default_rng([seed, 16])) if varied and (lookalikes or not unseen) else ()
    )
    scene = Scene(tree, draw_veins(head, rng), scanner)
    rng = np.random.default_rng([seed, 5])
    add_background(scene, rng)
    if real:
        scene.blobs = [blob for blob in scene.blobs if blob.over]  # no drawn crumbs of bone
    elif varied:
        scene.blobs += freed_from_bone(tree, np.random.default_rng([seed, 14]))
    if confounders is not None:
        add_confounders(scene, rng, tuple(confounders))
    elif is_confounded(seed):
        add_confounders(scene, rng)
    if not contrast:  # what takes up contrast is then as bright as brain
        scene.blobs = [replace(blob, hu=48.0) if not blob.over and blob.hu < 350 else blob for blob in scene.blobs]
    scanner = scene.scanner
    blood = float(rng.uniform(38, 52))
    arterial = scanner.arterial_hu - blood
    tubes = [tube.posed(pose) for tube in tree.tubes.values()]
    arteries = segments_of(tubes, [blood + arterial * _opacity(tube.name, rng) for tube in tubes])
    veins = [tube.posed(pose) for tube in scene.veins]
    venous = [blood + min(arterial * scanner.venous_fraction * tube.filling, 1.05 * arterial) for tube in veins]
    drawn: list[tuple[Sac, TrueLesion]] = []
    lesion_rng = np.random.default_rng([seed, 6])
    family: Family = "plain" if not varied else "unseen" if unseen else "varied"
    for where, diameter in wanted:
        drawn.append(draw_sac(where, diameter, tree, arteries, pose, lesion_rng, family))
    pixel = scanner.field_of_view_mm / 512
    spacing = spacing_mm if extent == "roi" and spacing_mm else 0.7
    if extent == "full":
        if spacing_mm:
            scanner = replace(
                scanner, slice_spacing_mm=spacing_mm, slice_thickness_mm=max(spacing_mm, scanner.slice_thickness_mm)
            )
        grid = _full_grid(pose, scanner, matrix, cropped, np.random.default_rng([seed, 7]))
    else:
        rng = np.random.default_rng([seed, 8])
        if extent == "native":
            centre = _native_centre(tree, pose, rng)
            steps = (scanner.slice_spacing_mm, pixel, pixel)
            grid = real.box(centre, NATIVE_MM_DHW) if real else _box(centre, NATIVE_MM_DHW, steps)
        else:
            grid = _roi_grid(pose, spacing, rng)
    low_lps = np.array([grid.axis(2)[0], grid.axis(1)[0], grid.axis(0)[0]])
    high_lps = np.array([grid.axis(2)[-1], grid.axis(1)[-1], grid.axis(0)[-1]])
    drawn = [one for one in drawn if np.all((low_lps <= one[1].centre_lps_mm) & (high_lps >= one[1].centre_lps_mm))]
    coarse = covering(low_lps, high_lps, COARSE_MM)
    posed = Posed(
        draw_tissues(head, pose, coarse),
        _shade(coarse, pose, scanner, np.random.default_rng([seed, 9])),
        arteries,
        segments_of(veins, venous),
        tuple(sac for sac, _ in drawn),
        blood + arterial * float(lesion_rng.uniform(0.92, 1.02)),
        (*(blob.posed(pose) for blob in scene.blobs), *_calcified([sac for sac, _ in drawn], lesion_rng)),
        seed,
    )
    interpolated = (scanner.slice_spacing_mm, pixel) if extent == "roi" else (0.0, 0.0)
    rendered = render(posed, grid, scanner, interpolated, real.within(grid) if real else None)
    _add_noise(rendered.hu_DHW, grid, scanner, pose, extent, pixel, np.random.default_rng([seed, 10]))
    truth = tuple(lesion for _, lesion in drawn)
    settings: dict[str, float | str] = {
        **asdict(scanner),
        "tortuosity": tortuosity,
        "blood_hu": blood,
        "variants": "; ".join(tree.variants),
    }
    return PhantomScan(
        seed,
        Volume(rendered.hu_DHW, grid.affine_lps()),
        truth,
        rendered.lesion_DHW,
        rendered.vessel_DHW,
        (*scene.names, *(resembling if lookalikes else ())),
        settings,
    )


def is_confounded(seed: int) -> bool:
    """Whether a seed's scan gets confounders when none are asked for: half of all, with lesions or without."""
    return bool(np.random.default_rng([seed, 11]).uniform() < 0.5)


def _calcified(sacs: list[Sac], rng: np.random.Generator) -> list[Blob]:
    """Calcium in the wall of some of the larger sacs, in LPS mm."""
    found = []
    for sac in sacs:
        if sac.radii.min() < 3 or rng.uniform() > 0.12:
            continue
        for _ in range(int(rng.integers(1, 4))):
            way = rng.normal(0, 1, 3)
            way = np.array([way[0], way[1], abs(way[2])]) / np.linalg.norm(way)
            size = np.array([0.45, rng.uniform(0.6, 2.0), rng.uniform(0.6, 2.0)])
            axes = across_axes(way @ sac.axes, rng)
            found.append(Blob(sac.centre + (way * sac.radii) @ sac.axes, size, axes, float(rng.uniform(400, 1000))))
    return found


def draw_lesions(
    rng: np.random.Generator,
    lesions: int | Spec | None,
    location: Location | None,
    diameter_mm: float | None,
    positive: bool | None,
    *,
    contrast: bool,
    size: Callable[[np.random.Generator], float] = draw_diameter_mm,
) -> list[tuple[Location, float]]:
    """Location and diameter of each lesion to paint; half of all scans get some unless more is said."""
    if lesions is not None and not isinstance(lesions, int):
        found = [(where, float(diameter)) for where, diameter in lesions]
    else:
        asked = location is not None or diameter_mm is not None
        if positive is False and asked:
            raise ValueError("positive=False contradicts a location or a diameter")
        if lesions is None:
            some = contrast and rng.uniform() < 0.5 if positive is None else positive
            lesions = int(rng.choice([1, 2, 3], p=[0.88, 0.09, 0.03])) if some or asked else 0
        found = []
        for _ in range(lesions):
            where, diameter = draw_location(rng), size(rng)
            if not found:
                where, diameter = location or where, diameter_mm or diameter
            while any(where is other for other, _ in found):
                where = draw_location(rng)
            found.append((where, diameter))
    if positive is not None and positive != bool(found):
        raise ValueError(f"positive={positive} contradicts {len(found)} lesions")
    if found and not contrast:
        raise ValueError("a scan without contrast shows no aneurysm: leave out the lesions")
    return found


def _opacity(name: str, rng: np.random.Generator) -> float:
    """How full of contrast an artery is; small and extracranial ones vary more."""
    return float(np.clip(rng.normal(0.99, 0.03 if "ICA" in name or name[-2:] in ("M1", "A1") else 0.06), 0.75, 1.1))


def _roi_grid(pose: Pose, spacing_mm: float, rng: np.random.Generator) -> Grid:
    """The box about the circle of Willis, placed as imprecisely as a finder places it."""
    centre = pose.to_lps(np.array([0.0, 2.0, -4.0])) + np.clip(rng.normal(0, 5, 3), -12, 12)
    return _box(centre, ROI_MM_DHW, (spacing_mm,) * 3)


def _native_centre(tree: Tree, pose: Pose, rng: np.random.Generator) -> FloatArray:
    """The middle of a box of the scanner's slices and pixels: that of the two supraclinoid carotids, placed likewise."""
    supra = [pose.to_lps(tree.tubes[f"{side}_ICA_supra"].points).mean(axis=0) for side in "LR"]
    centre: FloatArray = (supra[0] + supra[1]) / 2 + [0.0, 1.0, -6.0] + np.clip(rng.normal(0, 3, 3), -8, 8)
    return centre


def _in_real_skull(
    skull: RealSkull, pose: Pose, scanner: Scanner, rng: np.random.Generator
) -> tuple[RealSkull, Pose, Scanner]:
    """The skull, in half of all scans mirrored, the pose of arteries about its circle of Willis, and the scanner with its voxels.

    The circle lies as far off as it is found badly: 3 mm an axis, one standard deviation.
    """
    skull = skull.mirrored() if rng.integers(2) else skull
    slices, pixel, _ = skull.grid.spacing_DHW
    pose = replace(pose, centre_lps=skull.circle_lps + rng.normal(0, 3, 3))
    scanner = replace(scanner, slice_spacing_mm=slices, slice_thickness_mm=slices, field_of_view_mm=512 * pixel)
    return skull, pose, scanner


def _box(centre_lps: FloatArray, size_mm_DHW: tuple[float, ...], steps_mm_DHW: tuple[float, float, float]) -> Grid:
    shape = tuple(round(extent / step) for extent, step in zip(size_mm_DHW, steps_mm_DHW, strict=True))
    origin = tuple(float(centre_lps[2 - axis] - steps_mm_DHW[axis] * (shape[axis] - 1) / 2) for axis in range(3))
    return Grid((origin[0], origin[1], origin[2]), steps_mm_DHW, (shape[0], shape[1], shape[2]))


def _full_grid(pose: Pose, scanner: Scanner, matrix: int, cropped: bool, rng: np.random.Generator) -> Grid:
    """The series: off-centre within the field of view, from the neck to the vertex unless it is cropped."""
    pixel = scanner.field_of_view_mm / matrix
    middle = pose.to_lps(np.array([0.0, -14.0, 10.0])) + rng.normal(0, [4, 6, 0])
    low, high = -float(rng.uniform(60, 125)), float(rng.uniform(84, 110))
    if cropped:
        low, high = (low, float(rng.uniform(-28, -6))) if rng.uniform() < 0.5 else (float(rng.uniform(0, 18)), high)
    base = float(pose.to_lps(np.zeros(3))[2])
    count = int((high - low) / scanner.slice_spacing_mm) + 1
    half = pixel * (matrix - 1) / 2
    return Grid(
        (base + low, float(middle[1] - half), float(middle[0] - half)),
        (scanner.slice_spacing_mm, pixel, pixel),
        (count, matrix, matrix),
    )


def _shade(coarse: Grid, pose: Pose, scanner: Scanner, rng: np.random.Generator) -> Float32Array:
    """Cupping, and the dark bands and streaks between the petrous bones, as HU to add."""
    x, y, z = Canvas(coarse, pose).x, Canvas(coarse, pose).y, Canvas(coarse, pose).z
    out = np.float32(scanner.cupping_hu) * (((x / 75) ** 2 + ((y + 18) / 95) ** 2) - 0.5)
    stripes = smooth_noise(
        Grid((0, 0, 0), (COARSE_MM, COARSE_MM, COARSE_MM), (coarse.shape_DHW[0], coarse.shape_DHW[1], 4)), 5.0, rng
    )[:, :, :1]
    level = np.exp(-(((z + 26) / 12) ** 2))
    between = 1 / (1 + np.exp((np.abs(x) - 42) / 5))
    band = -1.0 * np.exp(-(((y + 26) / 9) ** 2)) + 0.45 * stripes
    out += np.float32(scanner.petrous_band_hu) * level * between * band
    out += np.float32(rng.uniform(0, 5)) * smooth_noise(coarse, 40.0, rng)
    return np.clip(out, -60, 60).astype(np.float32)


def _add_noise(
    hu: FloatArray | np.ndarray,
    grid: Grid,
    scanner: Scanner,
    pose: Pose,
    extent: Extent,
    pixel: float,
    rng: np.random.Generator,
) -> None:
    """Add the scanner's noise in place."""
    along, radial = noise_gain(grid, pose.to_lps(np.zeros(3)))
    if extent == "roi":
        noise = resampled_noise(scanner, pixel, grid, rng)
        noise *= along[:, None, None] * radial
        np.clip(hu + noise, -1024, 8000, out=noise)
        hu[:] = noise
        return
    source = Noise(scanner, grid.spacing_DHW[1], grid.shape_DHW[1:], rng)
    for first in range(0, grid.shape_DHW[0], 16):
        last = min(first + 16, grid.shape_DHW[0])
        noise = source.slices(first, last)
        noise *= along[first:last, None, None] * radial
        noise += hu[first:last]
        hu[first:last] = np.clip(noise, -1024, 8000)
