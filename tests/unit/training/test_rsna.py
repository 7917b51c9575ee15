"""The challenge's layout, made up small: a few heads of 3 mm voxels as DICOM, with tables and masks."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from pydicom import Dataset, dcmread

from ai.affine import lps_of
from ai.bundle import Bundle
from ai.circle import located_extent, steady_centre
from ai.coverage import head_extent
from ai.decode import Calibration
from ai.locations import COLUMNS, LOCATIONS, Location
from ai.preprocess import Preprocessing
from ai.unet import UNet, UNetSettings
from ai.volume import Volume, volume_from_files
from tests.support.dicom_factory import enhanced_ct
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest
from training.cases import case
from training.config import ConfigError, Data, Optimisation, Sampling, TrainConfig
from training.dataset import UNKNOWN_VESSEL, load_prepared
from training.evaluate import document_of, score_scans, scored_of, seen
from training.losses import total_loss, vessel_loss
from training.patches import cut_patch, mirrored, source_of
from training.phantom import write_series
from training.phantom.scan import PhantomScan
from training.rsna import LOCALIZERS, TRAIN, RsnaSeries, Unreadable, files_of, read_tables, segmentation_of
from training.rsna_regions import (
    LESION_RADIUS_MM,
    UNREADABLE,
    balls,
    build_rsna_cache,
    lesions_of,
    prepare_series,
    vessel_labels,
)
from training.scans import trained_on, training_scans, validation_scans
from training.train import train

SETTINGS = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))
CPU = torch.device("cpu")
SINGLE, MULTI, PLAIN, CUT, MRA = "1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.5"
AT = (26, 33, 40)  # the voxel of the aneurysm: d, h, w


def labels(*positive: Location) -> list[str]:
    return [*("1" if location in positive else "0" for location in LOCATIONS), "1" if positive else "0"]


def write_table(path: Path, titles: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([titles, *rows])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def volume() -> Volume:
    return head(spacing_mm_DHW=(3.0, 3.0, 3.0))


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory, volume: Volume) -> Path:
    """The folder; tests that change it take a copy."""
    root = tmp_path_factory.mktemp("rsna")
    nowhere = np.zeros(volume.hu_DHW.shape, np.uint8)
    sop: dict[str, str] = {}
    for number, uid in enumerate((SINGLE, PLAIN, CUT, MULTI)):
        folder = root / "series" / uid
        datasets: list[Dataset] = [
            dcmread(path)
            for path in write_series(PhantomScan(number, volume, (), nowhere, nowhere), folder, series_instance_uid=uid)
        ]
        for path in folder.iterdir():
            path.unlink()
        if uid == MULTI:
            datasets = [enhanced_ct(datasets, SeriesInstanceUID=uid)]
        for ds in datasets:
            ds.save_as(folder / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
        sop[uid] = str(datasets[min(AT[0], len(datasets) - 1)].SOPInstanceUID)
    broken = next((root / "series" / CUT).iterdir())
    broken.write_bytes(broken.read_bytes()[:-2000])
    write_table(
        root / TRAIN,
        ["SeriesInstanceUID", "PatientAge", "PatientSex", "Modality", *COLUMNS],
        [
            [SINGLE, "60", "Female", "CTA", *labels(Location.LEFT_MCA)],
            [MULTI, "50", "Male", "CTA", *labels(Location.ACOM)],
            [PLAIN, "40", "Male", "CTA", *labels()],
            [CUT, "70", "Female", "CTA", *labels()],
            [MRA, "30", "Female", "MRA", *labels()],
        ],
    )
    point = {"x": float(AT[2]), "y": float(AT[1])}
    write_table(
        root / LOCALIZERS,
        ["SeriesInstanceUID", "SOPInstanceUID", "coordinates", "location"],
        [
            [SINGLE, sop[SINGLE], str(point), Location.LEFT_MCA.value],
            [MULTI, sop[MULTI], str({"f": AT[0], **point}), Location.ACOM.value],
        ],
    )
    return root


@pytest.fixture
def root(laid_out: Path, tmp_path: Path) -> Path:
    """A copy whose tables may be changed; the series are those of the original."""
    copy = tmp_path / "data"
    copy.mkdir()
    for name in (TRAIN, LOCALIZERS):
        (copy / name).write_bytes((laid_out / name).read_bytes())
    (copy / "series").symlink_to(laid_out / "series")
    (copy / "segmentations").mkdir()
    return copy


def the(uid: str, root: Path) -> RsnaSeries:
    return next(series for series in read_tables(root) if series.series_instance_uid == uid)


def mask(volume: Volume, path: Path, values: dict[int, Any]) -> Path:
    """A NIfTI mask as the challenge has it: axes x, y, z, RAS, the values at these voxels (boolean masks in D H W)."""
    data = np.zeros(volume.hu_DHW.shape, np.uint8)
    for value, where in values.items():
        data[where] = value
    affine_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine_lps[:, [2, 1, 0, 3]]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data.transpose(2, 1, 0), affine_ras), path)
    return path


def test_the_tables_are_read_with_their_localizers_and_cta_alone_by_default(root: Path) -> None:
    series = read_tables(root)
    assert [one.series_instance_uid for one in series] == [SINGLE, MULTI, PLAIN, CUT]
    assert series[0].labels == tuple(text == "1" for text in labels(Location.LEFT_MCA))
    assert series[0].localizers[0].frame is None and series[1].localizers[0].frame == AT[0]
    assert (series[0].localizers[0].x, series[0].localizers[0].y) == (AT[2], AT[1])
    assert [one.series_instance_uid for one in read_tables(root, ("MRA",))] == [MRA]
    with pytest.raises(ConfigError, match=r"no series of XA; there are CTA, MRA"):
        read_tables(root, ("XA",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / TRAIN).unlink(), r"train\.csv cannot be read .* \[data\] rsna names the folder"),
        (lambda root: (root / LOCALIZERS).unlink(), r"train_localizers\.csv cannot be read"),
        (lambda root: edit(root / TRAIN, "Basilar Tip", "Basilar"), r"train\.csv has no column 'Basilar Tip'"),
        (
            lambda root: edit(root / LOCALIZERS, "coordinates", "xy"),
            r"train_localizers\.csv has no column 'coordinates'",
        ),
        (lambda root: edit(root / TRAIN, "30,Female,MRA,0", "30,Female,MRA,x"), r"line 6: 'Left Infra.* is 'x'"),
        (lambda root: edit(root / TRAIN, f"{MRA},", f"{CUT},"), r"line 6: series 1\.2\.3\.4 has a line already"),
        (lambda root: edit(root / LOCALIZERS, f"\n{MULTI}", "\n9.9"), r"line 3: series 9\.9 is not in train\.csv"),
        (lambda root: edit(root / LOCALIZERS, "{'x'", "{'z'"), r"line 2: coordinates .* are not of the form"),
        (lambda root: edit(root / LOCALIZERS, "'y': 33.0}", "'y': 33.0"), "line 2: coordinates"),
        (lambda root: edit(root / LOCALIZERS, "Anterior Comm", "Antic Comm"), "line 3: 'Antic .* 13 locations"),
        (lambda root: (root / TRAIN).write_text((root / TRAIN).read_text().split("\n")[0]), "no lines"),
        (lambda root: edit(root / TRAIN, "Male,CTA,0", "Male,CTA\n#"), "line 3 is cut short"),
        (lambda root: (root / TRAIN).write_bytes(b"\xff\xfe\x00S"), "not UTF-8"),
    ],
)
def test_a_table_that_is_not_the_challenge_s_is_named_with_line_and_remedy(
    root: Path, change: Callable[[Path], Any], said: str
) -> None:
    change(root)
    with pytest.raises(ConfigError, match=said):
        read_tables(root)


def test_a_localizer_is_the_point_of_the_patient_that_its_pixel_shows(root: Path, volume: Volume) -> None:
    expected = lps_of(volume.affine_lps, AT)
    for uid, location in ((SINGLE, Location.LEFT_MCA), (MULTI, Location.ACOM)):
        [lesion] = lesions_of(files_of(root, the(uid, root)), the(uid, root).localizers)
        assert lesion.location is location and lesion.diameter_mm == 2 * LESION_RADIUS_MM
        assert lesion.centre_lps_mm == pytest.approx(tuple(expected), abs=1e-4)


def test_a_series_becomes_a_region_with_a_ball_at_its_lesion_and_unknown_vessels(root: Path, volume: Volume) -> None:
    for uid in (SINGLE, MULTI):
        prepared = prepare_series(root, the(uid, root), SETTINGS)
        assert prepared.region.hu_DHW.shape == SETTINGS.size_DHW and prepared.lesion_DHW.shape == (32, 32, 32)
        cells = np.argwhere(prepared.lesion_DHW == 1)
        assert len(cells) * 8 == pytest.approx(4 / 3 * np.pi * LESION_RADIUS_MM**3, rel=0.6)  # cells of 8 mm³
        to_lps = prepared.region.affine_lps @ np.append(2 * cells.mean(axis=0) + 0.5, 1.0)
        assert to_lps[:3] == pytest.approx(prepared.lesions[0].centre_lps_mm, abs=1.0)
        assert (prepared.vessel_DHW == UNKNOWN_VESSEL).all() and not prepared.sized
    assert not prepare_series(root, the(PLAIN, root), SETTINGS).lesion_DHW.any()


def test_a_region_lies_where_an_analysis_puts_it(root: Path) -> None:
    for uid in (SINGLE, MULTI):
        read = volume_from_files(files_of(root, the(uid, root)))
        located = located_extent(read).circle_centre_lps_mm
        assert located is not None
        prepared = prepare_series(root, the(uid, root), SETTINGS).region
        assert prepared.circle_centre_lps_mm == steady_centre(read, located)
        assert prepared.circle_centre_lps_mm != head_extent(read).circle_centre_lps_mm


def test_a_series_counts_as_its_labels_say_where_its_localizer_lies_outside_the_region(
    root: Path, tmp_path: Path
) -> None:
    edit(root / LOCALIZERS, "'x': 40.0, 'y': 33.0}\",Left", "'x': 0.0, 'y': 0.0}\",Left")
    prepared = prepare_series(root, the(SINGLE, root), SETTINGS)
    assert not prepared.lesion_DHW.any() and [one.location for one in seen(prepared)] == [Location.LEFT_MCA]
    data = Data(cache=str(tmp_path / "cache"), rsna=str(root), folds=2, fold=the(SINGLE, root).fold(2))
    lines: list[str] = []
    config = TrainConfig(folder="x", device="cpu", data=data, preprocessing=SETTINGS)
    kept = validation_scans(config, lines.append)
    lesions = sum(len(one.lesions) for one in kept)
    said = f"localizers outside the region of their series: 1 of {lesions}; such a series counts as its labels say"
    assert lines[-1] == said


def test_that_a_size_is_not_known_stays_with_an_answer(root: Path) -> None:
    prepared = prepare_series(root, the(SINGLE, root), SETTINGS)
    torch.manual_seed(0)
    [scored] = score_scans(Bundle(manifest(preprocessing=SETTINGS), (UNet(TINY).eval(),)), [prepared], "cpu")
    assert not scored.sized and not scored_of(document_of(scored)).sized and not case(scored, Calibration()).sized
    [phantom] = score_scans(
        Bundle(manifest(preprocessing=SETTINGS), (UNet(TINY).eval(),)), [replace(prepared, sized=True)], "cpu"
    )
    assert phantom.sized
    before = {key: value for key, value in document_of(phantom).items() if key != "sized"}
    assert scored_of(before).sized


def test_a_phantom_has_the_lesions_that_its_region_shows(root: Path) -> None:
    prepared = replace(prepare_series(root, the(SINGLE, root), SETTINGS), sized=True)
    assert len(seen(prepared)) == 1
    assert seen(replace(prepared, lesion_DHW=np.zeros_like(prepared.lesion_DHW))) == ()


def test_overlapping_balls_belong_to_the_nearer_centre(root: Path) -> None:
    [lesion] = lesions_of(files_of(root, the(SINGLE, root)), the(SINGLE, root).localizers)
    pair = [replace(lesion, centre_lps_mm=(x, 10.0, 10.0), diameter_mm=8.0) for x in (8.0, 12.0)]
    made = balls(pair, np.eye(4)[[2, 1, 0, 3]], (20, 20, 20))
    assert set(made[10, 10, 4:10]) == {1} and set(made[10, 10, 11:17]) == {2}


@pytest.mark.parametrize("nested", [False, True])
def test_vessels_come_from_the_mask_whose_values_have_an_order_of_their_own(
    root: Path, volume: Volume, nested: bool
) -> None:
    x = (volume.affine_lps @ np.array([0, 0, 1, 0]))[0] * np.arange(volume.hu_DHW.shape[2]) + volume.affine_lps[0, 3]
    arteries = volume.hu_DHW == 350
    left, right = arteries & (x > 3.0 + 8), arteries & (x < 3.0 - 8)
    folder = root / "segmentations" / (SINGLE if nested else "")
    mask(volume, folder / f"{SINGLE}_cowseg.nii", {10: left, 9: right, 2: arteries & ~left & ~right})
    prepared = prepare_series(root, the(SINGLE, root), SETTINGS)
    found = {LOCATIONS[value - 1] for value in np.unique(prepared.vessel_DHW) if value}
    assert found == {Location.LEFT_MCA, Location.RIGHT_MCA, Location.BASILAR_TIP}
    on_left = np.argwhere(prepared.vessel_DHW == 1 + LOCATIONS.index(Location.LEFT_MCA)).mean(axis=0)
    assert on_left[2] > 16  # the patient's left is the right of the array


def test_every_value_of_a_mask_has_the_location_that_the_challenge_gives_it(root: Path, volume: Volume) -> None:
    expected = {1: "Other Posterior", 2: "Basilar", 3: "Right Post", 4: "Left Post", 5: "Right Infra", 6: "Left Infra"}
    expected |= {7: "Right Supra", 8: "Left Supra", 9: "Right Mid", 10: "Left Mid", 11: "Right Anterior Cer"}
    expected |= {12: "Left Anterior Cer", 13: "Anterior Communicating"}
    region = prepare_series(root, the(PLAIN, root), SETTINGS).region
    for value, name in expected.items():
        path = mask(volume, root / f"{value}.nii", {value: np.ones(volume.hu_DHW.shape, bool)})
        [label] = set(np.unique(vessel_labels(path, region))) - {0}
        assert LOCATIONS[label - 1].value.startswith(name)


def test_a_mask_that_cannot_be_one_is_named(root: Path, volume: Volume) -> None:
    region = prepare_series(root, the(PLAIN, root), SETTINGS).region
    whole = np.ones(volume.hu_DHW.shape, bool)
    shifted = Volume(volume.hu_DHW, volume.affine_lps + np.array([[0, 0, 0, 900.0]] + [[0.0] * 4] * 3))
    (root / "text.nii").write_text("no NIfTI")
    for path, said in (
        (root / "text.nii", "is no NIfTI file"),
        (mask(volume, root / "large.nii", {14: whole}), "more than the values 0 to 13"),
        (mask(shifted, root / "away.nii", {3: whole}), "the mask of another series"),
    ):
        with pytest.raises(Unreadable, match=f"{path.name}.*{said}"):
            vessel_labels(path, region)
    assert segmentation_of(root, the(PLAIN, root)) is None


def test_one_series_that_cannot_be_read_is_listed_and_the_others_go_on(root: Path, tmp_path: Path) -> None:
    cache, lines = tmp_path / "cache", list[str]()
    folders = list(build_rsna_cache(cache, root, read_tables(root), SETTINGS, report=lines.append))
    assert sorted(folder.name for folder in folders) == sorted([SINGLE, MULTI, PLAIN])
    assert len(lines) == 1 and lines[0].startswith(f"{CUT} is left out: ") and "pixels_truncated" in lines[0]
    assert set(json.loads((cache / UNREADABLE).read_text())) == {CUT}
    before = {folder: (folder / "hu.npy").stat().st_mtime_ns for folder in folders}
    again = list(build_rsna_cache(cache, root, read_tables(root), SETTINGS, report=lines.append))
    assert {folder: (folder / "hu.npy").stat().st_mtime_ns for folder in again} == before and len(lines) == 2
    loaded = load_prepared(cache / SINGLE)
    assert not loaded.sized and loaded.lesions[0].location is Location.LEFT_MCA


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: edit(root / TRAIN, "40,Male,CTA,0", "40,Male,CTA,1"), "positive without a localizer: Left Infra"),
        (lambda root: edit(root / TRAIN, PLAIN, "1.2.9"), r"1\.2\.9 has no \.dcm files: download the series again"),
        (lambda root: edit(root / LOCALIZERS, "'f': 26", "'f': 62"), "frame 62 of a file with 62"),
        (
            lambda root: edit(root / LOCALIZERS, "2.25.30000", "2.25.30001"),
            "slice 2.25.30001 of a localizer is not there",
        ),
    ],
)
def test_what_is_wrong_with_one_series_is_its_own_fault(root: Path, change: Callable[[Path], Any], said: str) -> None:
    change(root)
    others = [series for series in read_tables(root) if series.series_instance_uid not in (SINGLE, CUT)]
    with pytest.raises(Unreadable, match=said):
        [prepare_series(root, series, SETTINGS) for series in others]


def test_folds_keep_a_patient_together_and_never_move() -> None:
    series = [RsnaSeries(f"1.2.{n}", "CTA", (False,) * 14, patient=f"P{n // 2}") for n in range(400)]
    folds = [one.fold(5) for one in series]
    assert folds[::2] == folds[1::2]
    assert all(40 <= folds.count(fold) <= 120 for fold in range(5))
    assert [one.fold(5) for one in series[:6:2]] == [replace(one).fold(5) for one in series[:6:2]]
    assert RsnaSeries("1.2.3", "CTA", (False,) * 14).fold(5) == 3  # pinned: a fold is a promise between machines
    assert len({one.number for one in series}) == 400


def test_a_patient_column_is_used_where_somebody_has_added_one(root: Path) -> None:
    text = (root / TRAIN).read_text().splitlines()
    (root / TRAIN).write_text("\n".join([f"PatientID,{text[0]}", *(f"P7,{line}" for line in text[1:])]))
    assert {series.patient for series in read_tables(root)} == {"P7"}


def test_training_needs_only_the_path(root: Path, tmp_path: Path) -> None:
    data = Data(cache=str(tmp_path / "cache"), rsna=str(root), folds=2, fold=1)
    config = TrainConfig(
        folder=str(tmp_path / "run"),
        device="cpu",
        threads=1,
        data=data,
        network=UNetSettings(widths=(8, 16, 16), convolutions=(1, 1, 1), groups=4),
        preprocessing=SETTINGS,
        sampling=Sampling(patch=32),
        optimisation=Optimisation(steps=2, warmup_steps=1),
    )
    assert train(config, report=lambda line: None)
    learned, kept = list(training_scans(config, lambda line: None)), validation_scans(config, lambda line: None)
    assert {one.seed for one in learned}.isdisjoint({one.seed for one in kept}) and len(learned) + len(kept) == 3
    assert "RSNA" in trained_on(config) and "phantoms" in trained_on(replace(config, data=Data()))
    finer = replace(config, preprocessing=Preprocessing(spacing_mm=0.7, size_DHW=(64, 64, 64)))
    with pytest.raises(ConfigError, match=r"not at 0\.7 mm"):
        list(training_scans(finer, lambda line: None))
    with pytest.raises(ValueError, match="fold must lie"):
        Data(folds=3, fold=3)


def test_what_is_unknown_teaches_nothing(root: Path) -> None:
    prepared = prepare_series(root, the(SINGLE, root), SETTINGS)
    patch = mirrored(
        cut_patch(source_of(prepared, CPU), Sampling(patch=32), SETTINGS, np.random.default_rng(0), on_lesion=True)
    )
    assert (patch.vessel_DHW == UNKNOWN_VESSEL).all()
    assert patch.log_diameter_DHW[patch.lesion_DHW > 0].isnan().all()
    logits = torch.randn(1, 16, 4, 4, 4, requires_grad=True)
    target = torch.full((1, 4, 4, 4), UNKNOWN_VESSEL)
    assert float(vessel_loss(logits, target).detach()) == 0.0
    target[0, 0] = 3
    some = vessel_loss(logits, target)
    some.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and bool((logits.grad[0, :, 1:] == 0).all()) and bool(logits.grad[0, :, 0].any())


def test_diameters_that_are_not_known_are_no_part_of_the_loss() -> None:
    from ai.unet import Outputs
    from training.config import Loss

    lesion = torch.zeros(1, 4, 4, 4)
    lesion[0, 0, 0, 0] = 1.0
    outputs = Outputs(*(torch.zeros(1, channels, 4, 4, 4) for channels in (1, 16, 13, 1)))
    where = torch.zeros(1, 4, 4, 4).long()
    total, parts = total_loss(outputs, lesion, where, where, torch.where(lesion > 0, torch.nan, 0.0), Loss())
    assert float(parts["diameter"]) == 0.0 < float(parts["location"]) and bool(torch.isfinite(total))
