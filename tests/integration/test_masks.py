"""The masks of the model that comes with Willis, on a whole synthetic study."""

from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

import ai
from ai.findings import Findings
from ai.volume import Volume, volume_from_datasets
from node.results.document import encode
from node.results.segmentation import build_segmentation
from tests.support.reports import document
from tests.support.segments import painted_lps_mm

CELL_MM = 1.4


@pytest.fixture(scope="module")
def images(positive_series: list[Path]) -> list[Dataset]:
    return sorted((dcmread(path) for path in positive_series), key=lambda ds: float(ds.ImagePositionPatient[2]))


@pytest.fixture(scope="module")
def volume(images: list[Dataset]) -> Volume:
    return volume_from_datasets(images)


@pytest.fixture(scope="module")
def findings(volume: Volume) -> Findings:
    return ai.analyse(volume, ai.load_bundle(), "cpu")


@pytest.fixture(scope="module")
def seg(images: list[Dataset], findings: Findings) -> highdicom.seg.Segmentation:
    """As highdicom reads it."""
    ds = build_segmentation(document(images, "segmentation"), findings)
    return highdicom.seg.segread(BytesIO(encode(ds)))


def test_a_mask_is_made_of_cells_of_two_voxels_over_the_finding(findings: Findings) -> None:
    assert ai.load_bundle().manifest.preprocessing.spacing_mm == CELL_MM / 2
    assert findings.lesions
    for lesion in findings.lesions:
        mask = lesion.mask
        assert mask is not None
        np.testing.assert_allclose(mask.affine_lps[:3, :3], np.eye(3)[::-1] * CELL_MM, atol=1e-6)
        assert mask.contains(np.asarray(lesion.centre_lps_mm))
        assert np.linalg.norm(mask.centre_lps_mm - lesion.centre_lps_mm) < CELL_MM


def test_the_segmentation_states_the_spacing_and_the_planes_of_the_images(
    seg: highdicom.seg.Segmentation, images: list[Dataset]
) -> None:
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    heights = np.array([float(ds.ImagePositionPatient[2]) for ds in images])
    assert list(measures.PixelSpacing) == list(images[0].PixelSpacing)
    assert measures.SpacingBetweenSlices == pytest.approx(np.median(np.diff(heights)))
    positions = {tuple(ds.ImagePositionPatient): ds.SOPInstanceUID for ds in images}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        position = tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert positions[position] == source.ReferencedSOPInstanceUID


def test_what_the_segmentation_paints_lies_over_the_finding_and_is_as_large_as_its_cells(
    seg: highdicom.seg.Segmentation, findings: Findings
) -> None:
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    pixel_mm3 = float(np.prod([float(value) for value in measures.PixelSpacing])) * measures.SpacingBetweenSlices
    for number, lesion in enumerate(findings.lesions, start=1):
        assert lesion.mask is not None
        points = painted_lps_mm(seg, number)
        assert np.linalg.norm(points.mean(axis=0) - lesion.centre_lps_mm) < CELL_MM
        assert len(points) * pixel_mm3 == pytest.approx(lesion.mask.cells_DHW.sum() * CELL_MM**3, rel=0.1)


def test_what_the_segmentation_paints_is_brighter_where_it_lies_than_a_cell_beside(
    seg: highdicom.seg.Segmentation, volume: Volume
) -> None:
    points = painted_lps_mm(seg)
    to_voxels = np.linalg.inv(volume.affine_lps)

    def mean_hu(moved_mm: NDArray[np.float64]) -> float:
        index = np.rint((points + moved_mm) @ to_voxels[:3, :3].T + to_voxels[:3, 3]).astype(int)
        return float(volume.hu_DHW[tuple(index.T)].mean())

    there = mean_hu(np.zeros(3))
    assert there > 200.0
    assert all(mean_hu(sign * CELL_MM * axis) < there for axis in np.eye(3) for sign in (-1.0, 1.0))
