"""The whole room in one call: a volume, or a folder of DICOM files, to findings."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ai.affine import lps_of, voxel_of
from ai.bundle import Bundle, load_bundle
from ai.circle import located_extent, steady_centre, window_about
from ai.contrast import enhanced_tubes
from ai.coverage import require_coverage
from ai.cube_net import SIDE, cube_odds, odds_around
from ai.decode import Candidate, candidates, findings, rescored
from ai.device import chosen_device, failures_by_type, same_answers
from ai.errors import NotAnalysable, NotShownYet, Reason
from ai.findings import Findings
from ai.inference import Maps, Progress, Tiling, infer, output_affine
from ai.locations import COLUMNS
from ai.measures import quality_of
from ai.naming import named
from ai.preprocess import Preprocessing, Region, coordinates, region_affine, region_of_interest
from ai.quality import MOST_SPREAD_MM
from ai.remembered import Remembered
from ai.second_stage import around, looked_at, measured_at, opinions
from ai.surroundings import place_scores, surroundings
from ai.volume import Volume

GROWN_VOXELS = 32
"""Added to each side of the region where the circle is placed badly: 11 mm to either side at 0.7 mm."""


@failures_by_type()
def analyse(
    volume: Volume,
    bundle: Bundle,
    device: str = "auto",
    *,
    require_contrast: bool = True,
    check_coverage: bool = True,
    open_ends: tuple[bool, bool] | None = None,
    progress: Progress | None = None,
    remembered: Remembered | None = None,
) -> Findings:
    """Return the findings of a head CT angiography.

    `device`: "auto" (a CUDA GPU when there is one, else the CPU), "cpu", "cuda" or "cuda:N".  When a GPU's memory does
    not suffice, smaller tiles are tried and then the CPU, and the findings' `note` says so.  `open_ends`: of slices that
    are not all there yet, whether more may come below the first and above the last; NotShownYet until these ends show all
    that the network will read, and neither contrast nor quality is judged.  `progress` hears of the network's share, before
    it of each step (0) and after it of each candidate (1).  `remembered`: what was answered of this series before; the
    findings are the same bit for bit without it.  Raises NotAnalysable(NOT_A_HEAD, COVERAGE or NO_CONTRAST), MemoryError,
    DeviceLost, and whatever `progress` raises.
    """
    checks = {"require_contrast": require_contrast, "check_coverage": check_coverage}
    known, heard = remembered or Remembered(), progress or _unheard
    region = prepared_region(volume, bundle, **checks, open_ends=open_ends, progress=heard)
    where = chosen_device(device)
    manifest = bundle.manifest
    lines = coordinates(region, manifest.preprocessing)
    step = ("maps", bundle.networks, manifest.tiling, manifest.preprocessing, where, bundle.precision)
    maps = known.answer(step, (region.hu_DHW, *lines), lambda: _maps(region, bundle, where, progress), _is_usual)
    maps = replace(maps, affine_lps=output_affine(region.affine_lps))
    found = looked_at_again(candidates(maps, manifest.candidates), region, volume, bundle, heard, known)
    return replace(
        calibrated_findings(found, bundle),
        note=maps.note,
        quality=region.quality,
        circle_centre_lps_mm=region.circle_centre_lps_mm,
    )


def calibrated_findings(found: tuple[Candidate, ...], bundle: Bundle) -> Findings:
    """Return what a bundle says of candidates, at its two operating points."""
    manifest = bundle.manifest
    return findings(found, manifest.calibration, manifest.threshold, manifest.notify_threshold)


def _is_usual(maps: Maps) -> bool:
    """Whether the device had the memory; another time it may."""
    return not maps.note


def _unheard(_share: float) -> None:
    """Nobody wants to know."""


def looked_at_again(
    found: tuple[Candidate, ...],
    region: Region,
    volume: Volume,
    bundle: Bundle,
    progress: Progress = _unheard,
    remembered: Remembered | None = None,
) -> tuple[Candidate, ...]:
    """Return the candidates as the second stage sees them and their places, best first; as they are where a bundle has none."""
    stage = bundle.manifest.second_stage
    if stage is None:
        return found
    seen = _looked_at(found, volume, bundle, stage.around, progress, remembered)
    first = [one.score for one in found], [one.diameter_mm for one in found]
    seconds = opinions(bundle.second, bundle.fusion, seen, *first)
    measures = surroundings(region, [one.centre_lps_mm for one in found], volume)
    places = place_scores(measures, tuple(stage.place_weights.values()), stage.place_limit)
    added = [
        place + cube
        for place, cube in zip(places, _cube_scores(found, volume, bundle, progress, remembered), strict=True)
    ]
    scored = rescored(found, seconds, stage.first_weight, stage.second_weight, added)
    return named(scored, region.circle_centre_lps_mm, bundle.naming)


def _cube_scores(
    found: tuple[Candidate, ...],
    volume: Volume,
    bundle: Bundle,
    progress: Progress,
    remembered: Remembered | None,
) -> list[float]:
    """What the networks that look at the cubes themselves add to each candidate's score; nothing where a bundle has none."""
    stage = bundle.manifest.second_stage
    if stage is None or stage.cubes is None:
        return [0.0] * len(found)
    looks = stage.cubes
    scores = []
    for one in found:
        progress(1.0)
        odds = odds_around(bundle.cubes, volume, one.centre_lps_mm, looks.views, bundle.precision, remembered)
        scores.append(looks.weight * odds)
    return scores


def _looked_at(
    found: tuple[Candidate, ...],
    volume: Volume,
    bundle: Bundle,
    around_best: int,
    progress: Progress,
    remembered: Remembered | None,
) -> list[NDArray[np.float32]]:
    """What is measured of each candidate, as `ai.second_stage.looked_at` returns it."""

    def measured(places: Sequence[tuple[float, float, float]]) -> NDArray[np.float32]:
        progress(1.0)
        return measured_at(volume, places, remembered)

    centres = [measured([one.centre_lps_mm]) for one in found]
    if not centres:
        return []
    return looked_at(
        bundle.second, np.concatenate(centres), around_best, lambda index: measured(around(found[index].centre_lps_mm))
    )


def prepared_region(
    volume: Volume,
    bundle: Bundle,
    *,
    require_contrast: bool = True,
    check_coverage: bool = True,
    open_ends: tuple[bool, bool] | None = None,
    progress: Progress = _unheard,
) -> Region:
    """Return what the network will read.

    Raises NotAnalysable (NOT_A_HEAD, COVERAGE or NO_CONTRAST), and with `open_ends` NotShownYet.
    """
    extent = located_extent(volume, sure=check_coverage)
    located = extent.circle_centre_lps_mm
    if located is None:
        require_coverage(extent)
        raise NotAnalysable(Reason.COVERAGE)
    centre = steady_centre(volume, located)
    settings = bundle.manifest.preprocessing
    if extent.spread_mm > MOST_SPREAD_MM:  # a larger region, which holds the circle wherever it lies
        d, h, w = settings.size_DHW
        settings = replace(settings, size_DHW=(d + GROWN_VOXELS, h + GROWN_VOXELS, w + GROWN_VOXELS))
    if open_ends is not None:
        lacking = zip(_missing(volume, centre, settings), window_about(volume, located).missing, strict=True)
        missing = max(max(slices) * is_open for slices, is_open in zip(lacking, open_ends, strict=True))
        if missing > 0:
            raise NotShownYet(missing * volume.spacing_mm_DHW[0])
    if check_coverage:
        require_coverage(extent)
    region = region_of_interest(volume, centre, settings)
    progress(0.0)
    if open_ends is not None:  # contrast and quality are judged by slices further up, which have not come
        return region
    tubes = enhanced_tubes(volume, centre)
    progress(0.0)
    if require_contrast and not tubes.filled:
        raise NotAnalysable(Reason.NO_CONTRAST)
    quality = quality_of(volume, centre, tubes, extent.spread_mm, extent.below_mm)
    progress(0.0)
    return replace(region, quality=quality)


def circle_region(volume: Volume, settings: Preprocessing) -> Region:
    """Return the region where an analysis puts it, of the settings' size also where that reads more; contrast is not judged.

    Raises NotAnalysable (NOT_A_HEAD or COVERAGE).
    """
    located = located_extent(volume).circle_centre_lps_mm
    if located is None:
        raise NotAnalysable(Reason.COVERAGE)
    return region_of_interest(volume, steady_centre(volume, located), settings)


def _missing(volume: Volume, centre_lps_mm: tuple[float, float, float], settings: Preprocessing) -> tuple[float, float]:
    """How many slices must still come, below and above, until all that interpolation reads for the region is shown."""
    corners = np.array(list(product(*((0, side - 1) for side in settings.size_DHW))))
    slices = voxel_of(volume.affine_lps, lps_of(region_affine(centre_lps_mm, settings), corners))[:, 0]
    beyond = 1.0 + settings.spacing_mm / volume.spacing_mm_DHW[0]
    last = len(volume.hu_DHW) - 1
    return max(0.0, float(beyond - slices.min())), max(0.0, float(slices.max() + beyond - last))


def found_candidates(
    region: Region,
    bundle: Bundle,
    device: str = "auto",
    progress: Progress | None = None,
    volume: Volume | None = None,
    most: int | None = None,
) -> tuple[Candidate, ...]:
    """Return the uncalibrated candidates.  When a GPU's memory does not suffice: smaller tiles, then the CPU.

    `volume`: where the second stage looks again; without it the candidates are those of the first stage.  `most`: in place of
    so many as the bundle looks at.
    """
    where = chosen_device(device)
    found = candidates(_maps(region, bundle, where, progress), most or bundle.manifest.candidates)
    return found if volume is None else looked_at_again(found, region, volume, bundle)


def warm(bundle: Bundle, device: str = "auto") -> None:
    """The networks are on the device and have run once, on nothing: the first scan waits for neither."""
    if bundle.cubes:
        cube_odds(bundle.cubes, np.zeros((SIDE,) * 3, np.int16), 1, bundle.precision)
    size = bundle.manifest.preprocessing.size_DHW
    _maps(Region(np.zeros(size, np.int16), np.eye(4), (0.0, 0.0, 0.0)), bundle, chosen_device(device), None)


def _maps(region: Region, bundle: Bundle, device: torch.device, progress: Progress | None) -> Maps:
    whole = bundle.manifest.tiling
    tries = [(device, whole, "")]
    if device.type != "cpu":
        tries.append((device, whole.halved, "out of GPU memory: analysed in smaller tiles"))
        tries.append((torch.device("cpu"), whole, "out of GPU memory: analysed on the CPU"))
    for where, tiling, note in tries[:-1]:
        try:
            return replace(_maps_on(where, region, bundle, tiling, progress), note=note)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    where, tiling, note = tries[-1]
    return replace(_maps_on(where, region, bundle, tiling, progress), note=note)


def _maps_on(device: torch.device, region: Region, bundle: Bundle, tiling: Tiling, progress: Progress | None) -> Maps:
    for network in bundle.networks:
        network.to(device)
    with same_answers(bundle.precision, device):
        return infer(bundle.networks, region, bundle.manifest.preprocessing, tiling, device, progress, bundle.precision)


def predict_single_scan(model: Bundle | Path | str, series_dir: Path | str, device: str = "auto") -> dict[str, float]:
    """Return the 14 probabilities, by column title, of the one series in a folder of DICOM files.

    `model`: a loaded bundle or its folder.  Raises NotAnalysable, BundleError, and FileNotFoundError for a folder
    without DICOM files.
    """
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    result = analyse(volume_in(Path(series_dir)), bundle, device)
    return dict(zip(COLUMNS, result.probabilities, strict=True))


def volume_in(series_dir: Path) -> Volume:
    """The one series in a folder of DICOM files, a directory of them (DICOMDIR) left out.

    Raises NotAnalysable, and FileNotFoundError for a folder without DICOM files.
    """
    import pydicom

    from ai.volume import is_directory, volume_from_datasets

    paths = [path for path in sorted(series_dir.rglob("*")) if path.is_file() and pydicom.misc.is_dicom(path)]
    datasets = [pydicom.dcmread(path) for path in paths]
    datasets = [ds for ds in datasets if not is_directory(ds)]
    if not datasets:
        raise FileNotFoundError(f"{series_dir} holds no DICOM files: name a folder with the slices of one series")
    return volume_from_datasets(datasets)
