import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.fileset import FileSet

import ai
from ai import predict
from ai.bundle import Bundle, save_bundle
from ai.errors import NotAnalysable, Reason
from ai.locations import COLUMNS
from ai.unet import UNet
from ai.volume import Volume
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import affine, head
from tests.unit.ai.test_bundle import TINY, manifest


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle(manifest(), (UNet(TINY).eval(),))


@pytest.fixture(scope="module")
def cta() -> Volume:
    return head()


def test_a_head_cta_gives_fourteen_probabilities(bundle: Bundle, cta: Volume) -> None:
    shares: list[float] = []
    result = ai.analyse(cta, bundle, progress=shares.append)
    assert len(result.probabilities) == 14 and shares[-1] == 1.0
    assert result.quality is not None and result.circle_centre_lps_mm is not None
    assert np.linalg.norm(np.subtract(result.circle_centre_lps_mm, (3.0, -12.0, 40.0))) < 15.0


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (Volume(np.full((60, 80, 80), -1000, np.int16), affine((2, 2, 2), (0, 0, 0))), Reason.NOT_A_HEAD),
        (head(low_mm=20.0), Reason.COVERAGE),
        (head(contrast_hu=None), Reason.NO_CONTRAST),
    ],
)
def test_what_cannot_be_analysed_is_never_called_negative(bundle: Bundle, volume: Volume, reason: Reason) -> None:
    with pytest.raises(NotAnalysable) as caught:
        ai.analyse(volume, bundle)
    assert caught.value.reason is reason


def test_contrast_and_coverage_may_be_waived(bundle: Bundle) -> None:
    ai.analyse(head(contrast_hu=None), bundle, require_contrast=False)
    ai.analyse(head(low_mm=20.0), bundle, require_contrast=False, check_coverage=False)


def test_waiving_coverage_cannot_place_a_circle_that_nothing_shows(
    bundle: Bundle, cta: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai.coverage import HeadExtent

    monkeypatch.setattr(predict, "located_extent", lambda volume, sure: HeadExtent(None, vertex_inside=False))
    with pytest.raises(NotAnalysable) as caught:
        ai.analyse(cta, bundle, check_coverage=False)
    assert caught.value.reason is Reason.COVERAGE


def test_a_folder_of_slices_gives_the_fourteen_columns(
    bundle: Bundle, cta: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bundle(tmp_path / "model", bundle.manifest, bundle.networks)
    monkeypatch.setattr(predict, "volume_in", lambda folder: cta)
    for model in (bundle, tmp_path / "model", str(tmp_path / "model")):
        columns = ai.predict_single_scan(model, tmp_path, "cpu")
        assert tuple(columns) == COLUMNS and all(0 <= value <= 1 for value in columns.values())


def test_a_directory_of_files_among_the_slices_is_none_of_them(tmp_path: Path) -> None:
    series = ct_series(4)
    for number, ds in enumerate(series):
        ds.save_as(tmp_path / f"I{number}", enforce_file_format=True)
    directory = FileSet()
    directory.add(series[0])
    directory.write(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "DICOMDIR", tmp_path / "DIRFILE")
    shutil.rmtree(tmp_path / "other")
    assert predict.volume_in(tmp_path).hu_DHW.shape[0] == 4


def test_a_folder_without_dicom_files_is_named(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(FileNotFoundError, match="no DICOM files"):
        ai.predict_single_scan(bundle, tmp_path)


def test_an_unknown_name_is_not_in_the_room() -> None:
    with pytest.raises(AttributeError, match="nothing_here"):
        ai.nothing_here  # noqa: B018
