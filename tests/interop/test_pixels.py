"""One CT in every transfer syntax gives the same volume: bit for bit where the syntax is lossless."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, JPEGLSLossless

from ai.volume import Volume, volume_from_datasets
from node.dicom.conformance import TRANSFER_SYNTAXES
from tests.interop.test_peers import program, run
from tests.support.compressed import CODECS, DCMTK, LOSSY, by_codec, by_dcmtk
from tests.support.dicom_factory import ct_series, enhanced_ct, save
from tests.support.node_fixtures import SHIPPED, NodeFactory

pytestmark = pytest.mark.interop
ROWS, COLUMNS, SLICES = 40, 48, 3


def head_like(index: int) -> NDArray[np.int16]:
    """Air, skull, brain and noise in 12 bits."""
    h, w = np.mgrid[:ROWS, :COLUMNS]
    radius = np.hypot(h - ROWS / 2, w - COLUMNS / 2)
    hu = np.where(radius < 15, 40.0, np.where(radius < 18, 1200.0, -1000.0))
    noise = np.random.default_rng(index).normal(0.0, 8.0, hu.shape)
    return np.clip(hu + noise, -1024, 3071).astype(np.int16)


def single_frames() -> list[Dataset]:
    return ct_series(SLICES, rows=ROWS, columns=COLUMNS, hu=head_like, BitsStored=12, HighBit=11)


def signed_frames() -> list[Dataset]:
    return ct_series(SLICES, rows=ROWS, columns=COLUMNS, hu=head_like, signed=True, intercept=0.0)


def multi_frame() -> list[Dataset]:
    return [enhanced_ct(single_frames(), shared=False, BitsStored=12, HighBit=11)]


def tilted_frames() -> list[Dataset]:
    leaning = (0.0, float(np.tan(np.radians(12.0))), 1.0)
    return ct_series(SLICES, rows=ROWS, columns=COLUMNS, hu=head_like, step_mm=leaning, BitsStored=12, HighBit=11)


SERIES: dict[str, Callable[[], list[Dataset]]] = {
    "single frames": single_frames,
    "signed": signed_frames,
    "multi-frame": multi_frame,
    "tilted": tilted_frames,
}
every_series = pytest.mark.parametrize("series", SERIES.values(), ids=SERIES.keys())


def check_same(made: Volume, plain: Volume, within_hu: int = 0) -> None:
    np.testing.assert_allclose(made.hu_DHW.astype(int), plain.hu_DHW.astype(int), rtol=0, atol=within_hu)
    np.testing.assert_array_equal(made.affine_lps, plain.affine_lps)
    assert made.sop_instance_uids[0] == plain.sop_instance_uids[0] or within_hu  # a lossy image has a UID of its own


@every_series
@pytest.mark.parametrize("name", DCMTK)
def test_what_dcmtk_encodes_without_loss_gives_the_same_volume(
    name: str, series: Callable[[], list[Dataset]], tmp_path: Path
) -> None:
    syntax, command = DCMTK[name]
    program(command[0])
    datasets = series()
    encoded = by_dcmtk(datasets, command, tmp_path)
    assert encoded[0].file_meta.TransferSyntaxUID == syntax
    check_same(volume_from_datasets(encoded), volume_from_datasets(datasets))


@every_series
@pytest.mark.parametrize("name", CODECS)
def test_jpeg_2000_and_htj2k_give_the_same_volume(name: str, series: Callable[[], list[Dataset]]) -> None:
    datasets = series()
    check_same(volume_from_datasets(by_codec(datasets, CODECS[name])), volume_from_datasets(datasets))


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_syntaxes_give_nearly_the_same_volume(name: str, tmp_path: Path) -> None:
    syntax, command = LOSSY[name]
    program(command[0])
    datasets = single_frames()
    encoded = by_dcmtk(datasets, command, tmp_path)
    assert encoded[0].file_meta.TransferSyntaxUID == syntax
    check_same(volume_from_datasets(encoded), volume_from_datasets(datasets), within_hu=40)


def test_every_compressed_syntax_that_is_accepted_is_one_of_these() -> None:
    tried = {syntax for syntax, _ in (DCMTK | LOSSY).values()} | set(CODECS.values())
    assert {UID(syntax).name for syntax in TRANSFER_SYNTAXES} - {syntax.name for syntax in tried} == {
        "Explicit VR Little Endian",
        "JPEG Baseline (Process 1)",  # 8 bits: test_codestream
    }


def test_a_jpeg_ls_study_is_received_and_gives_the_findings_of_its_uncompressed_original(
    node_in: NodeFactory, positive_series: list[Path], tmp_path: Path
) -> None:
    import torch
    from pydicom import dcmread

    import ai
    from ai.bundle import load_bundle

    datasets = [dcmread(path) for path in positive_series]
    node = node_in(
        ai__threads=torch.get_num_threads(), **SHIPPED
    )  # as many as here: floats are added in the same order
    expected = ai.analyse(volume_from_datasets(datasets), load_bundle(precision=node.config.ai.precision))
    save(by_codec(datasets, JPEGLSLossless), tmp_path)
    run(program("dcmsend"), "+sd", "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), tmp_path)
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["instance_count"]) == ("positive", len(positive_series))
    centres = [lesion["centre_lps_mm"] for lesion in row["lesions"]]
    np.testing.assert_allclose(centres, [lesion.centre_lps_mm for lesion in expected.lesions], atol=1e-3)
    assert row["p_present"] == pytest.approx(expected.present, abs=1e-4)
