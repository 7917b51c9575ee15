"""What the analysis must survive, from pixels and weights to the case: each bad thing is named, or changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

import ai
from ai import predict
from ai.bundle import Bundle, save_bundle
from ai.coverage import head_extent
from ai.inference import Tiling
from ai.preprocess import Preprocessing
from ai.unet import UNet
from ai.volume import Volume, volume_from_datasets
from node.analysis.analysis import AnalysisContext, analyse
from node.analysis.worker import Worker
from node.config.loading import load
from node.config.sections import Config
from node.errors import ConfigError
from node.results.document import Algorithm
from storage.files.instances import Files
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, keep
from tests.support.command_line import Run, config, one_line, run  # noqa: F401  fixtures
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.node.cli.test_explain import HEAD, head_series

LARGE = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle(manifest(), (UNet(TINY).eval(),))


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
def test_padding_around_the_field_of_view_changes_no_probability(bundle: Bundle, padding: int) -> None:
    _, h, w = np.indices(HEAD.hu_DHW.shape)
    beyond = np.hypot(h - HEAD.hu_DHW.shape[1] / 2, w - HEAD.hu_DHW.shape[2] / 2) > HEAD.hu_DHW.shape[1] / 2
    padded = Volume(np.where(beyond, padding, HEAD.hu_DHW).astype(np.int16), HEAD.affine_lps)
    assert beyond.any() and ai.analyse(padded, bundle) == ai.analyse(HEAD, bundle)


def test_a_clip_that_overflows_int16_counts_as_dense_and_not_as_air(bundle: Bundle) -> None:
    clipped = HEAD.hu_DHW.copy()
    clipped[40:42, 40:42, 40:42] = 32767
    dense = np.where(clipped == 32767, 3071, clipped).astype(np.int16)
    assert ai.analyse(Volume(clipped, HEAD.affine_lps), bundle) == ai.analyse(Volume(dense, HEAD.affine_lps), bundle)


def test_an_intercept_of_0_and_of_minus_1024_give_the_same_volume() -> None:
    signed = ct_series(6, intercept=0.0, signed=True, hu=lambda index: HEAD.hu_DHW[index])
    unsigned = ct_series(6, intercept=-1024.0, hu=lambda index: HEAD.hu_DHW[index])
    one, other = (volume_from_datasets(series).hu_DHW for series in (signed, unsigned))
    assert np.array_equal(one, other) and np.array_equal(one[:, :8, :9], HEAD.hu_DHW[:6, :8, :9])


@pytest.mark.parametrize("slice_mm", [0.2, 3.0])
def test_slices_of_any_spacing_show_the_same_circle_and_are_analysed(bundle: Bundle, slice_mm: float) -> None:
    volume = head(spacing_mm_DHW=(slice_mm, 3.0, 3.0), low_mm=-50.0)
    found, usual = (head_extent(each).circle_centre_lps_mm for each in (volume, HEAD))
    assert found is not None and usual is not None and np.linalg.norm(np.subtract(found, usual)) < 6.0
    assert np.isfinite(ai.analyse(volume, bundle, require_contrast=False).probabilities).all()


class FullGpu(UNet):
    """A network on a GPU, made up, that holds tiles of less than `fits` voxels a side; on the CPU everything fits."""

    fits = 0

    def to(self, *args: object, **_: object) -> "FullGpu":
        return self

    def finding_maps(self, channels: torch.Tensor, bfloat16: bool = False) -> torch.Tensor:
        if channels.device.type == "meta":
            if channels.shape[2] >= self.fits:
                raise torch.OutOfMemoryError("full")
            channels = torch.zeros(channels.shape)
        return super().finding_maps(channels, bfloat16)


@pytest.mark.parametrize(
    ("fits", "noted"),
    [
        (65, ""),
        (33, "out of GPU memory: analysed in smaller tiles"),
        (0, "out of GPU memory: analysed on the CPU"),
    ],
)
def test_a_gpu_out_of_memory_is_noted_on_the_case_and_in_the_log(
    fits: int,
    noted: str,
    sqlite_store: Store,
    files: Files,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(predict, "chosen_device", lambda _name: torch.device("meta"))
    torch.manual_seed(0)
    network = FullGpu(TINY).eval()
    network.fits = fits
    full = Bundle(manifest(tiling=Tiling(size=64, overlap=16), preprocessing=LARGE), (network,))
    algorithm = Algorithm("Willis", "0.1.0", "0.1.0", "2.25.5")
    context = AnalysisContext(Config(), files, full, algorithm, clock, store=sqlite_store)
    series = keep(sqlite_store, files, clock, head_series())
    assert sqlite_store.settling.leave(series, Event.SETTLED, "count", clock())
    claim = sqlite_store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None and analyse(context, claim)
    row = sqlite_store.worklist.case("1")
    assert row is not None and (row["stage"], row["detail"]) == ("reported", noted)
    assert row["outcome"] in ("positive", "negative")
    logged = "".join(capsys.readouterr())
    assert (noted in logged) if noted else ("GPU" not in logged)


@pytest.mark.parametrize(("fault", "named"), [("nan", "not finite"), ("bit", "sha256")])
def test_weights_that_cannot_be_trusted_stop_the_node_with_one_line(
    run: Run,  # noqa: F811
    config: Path,  # noqa: F811
    tmp_path: Path,
    fault: str,
    named: str,
) -> None:
    network = UNet(TINY)
    if fault == "nan":
        torch.nn.init.constant_(network.lesion.weight, float("nan"))
    save_bundle(tmp_path / "bundle", manifest(), (network,))
    if fault == "bit":
        (weights,) = (tmp_path / "bundle").glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    config.write_text(config.read_text() + f"\n[ai]\nbundle = {str(tmp_path / 'bundle')!r}\n")
    assert named in one_line(run("config", "check", "--config", config), 2)
    with pytest.raises(ConfigError, match=named):
        Worker(load(config))


@pytest.mark.parametrize(("flip", "precision"), [(False, "auto"), (True, "float32")])
def test_the_region_is_read_mirrored_and_in_the_precision_that_the_configuration_says(
    tmp_path: Path, flip: bool, precision: str
) -> None:
    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    settings = {"bundle": tmp_path / "bundle", "flip": flip, "precision": precision}
    worker = Worker(Config.model_validate({"storage": {"directory": tmp_path}, "ai": settings}))
    assert worker._context.bundle.manifest.tiling.flip is flip
    assert worker._context.bundle.precision == precision
    worker._store.close()
