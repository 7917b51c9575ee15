"""`willis explain` on a made-up head in a real store, with a network that has learned nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storage.files.instances import Files
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, finish, keep, series_now
from tests.support.command_line import Run, one_line
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest

HEAD = head(spacing_mm_DHW=(3.0, 3.0, 3.0))


def head_series(planes: Sequence[np.ndarray] = tuple(HEAD.hu_DHW)) -> list:  # type: ignore[type-arg]
    x, y, z = HEAD.affine_lps[:3, 3]
    return ct_series(
        len(planes),
        spacing_mm=3.0,
        rows=planes[0].shape[0],
        columns=planes[0].shape[1],
        pixel_spacing_mm=(3.0, 3.0),
        origin_mm=(x, y, z),
        hu=lambda index: planes[index],
    )


@pytest.fixture
def case(config: Path, store: Store, clock: FakeClock, tmp_path: Path) -> Path:
    """A case of a head in the store behind `config`, whose bundle's threshold everything reaches."""
    keep(store, Files(tmp_path / "var"), clock, head_series())
    use_bundle(config, threshold=1e-6)
    return config


def use_bundle(config: Path, threshold: float) -> None:
    from ai.bundle import save_bundle
    from ai.unet import UNet

    torch.manual_seed(0)
    folder = config.parent / f"bundle-{threshold}"
    save_bundle(folder, manifest(threshold=threshold), (UNet(TINY),))
    config.write_text(config.read_text().partition("\n[ai]")[0] + f"\n[ai]\nbundle = {str(folder)!r}\n")


def test_a_case_s_findings_become_one_picture_with_a_row_for_each(run: Run, case: Path, tmp_path: Path) -> None:
    picture = tmp_path / "why.png"
    result = run("explain", "1", "--out", picture, "--config", case)
    assert result.exit_code == 0, result.output
    assert "case 1: 10 findings" in result.stdout
    with Image.open(picture) as image:
        assert image.width == 1240 and image.height > 10 * 800
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((red > 150) & (blue < 100) & (red - green > 60)).sum() > 500  # heat
    circles = (red == 90) & (green == 220) & (blue == 255)
    assert circles.sum() > 500
    plain, hot = np.s_[100:500, 10:410], np.s_[510:910, 10:410]  # axial planes of the first finding
    assert (red[plain] == green[plain]).all() and (green[plain] == blue[plain]).all()
    assert not circles[plain].any() and circles[hot].any()


def test_a_case_without_findings_shows_the_best_candidate_and_says_so(run: Run, case: Path) -> None:
    use_bundle(case, threshold=0.999)
    result = run("explain", "1", "--config", case)
    assert result.exit_code == 0, result.output
    assert "no finding; the best candidate below the threshold, case-1.png" in result.stdout
    assert Path("case-1.png").exists()


def test_a_case_that_does_not_exist_is_one_line(run: Run, config: Path) -> None:
    assert "no case '77'" in one_line(run("explain", "77", "--config", config), 1)


def test_files_that_are_gone_are_counted(run: Run, case: Path, tmp_path: Path) -> None:
    held = sorted(path for path in (tmp_path / "var").rglob("*") if path.is_file() and path.stat().st_size > 10_000)
    instances = [path for path in held if "willis.db" not in path.name]
    for path in instances[:3]:
        path.unlink()
    assert "case 1 lacks 3 of its 62 image files in the storage folder" in one_line(
        run("explain", "1", "--config", case), 1
    )


def test_a_series_that_cannot_be_analysed_says_why(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    keep(store, Files(config.parent / "var"), clock, head_series([np.full((40, 40), -1000, np.int16)] * 60))
    use_bundle(config, threshold=0.5)
    assert "No head was recognised" in one_line(run("explain", "1", "--config", config), 1)


def test_a_case_that_another_model_reported_says_so(run: Run, case: Path, store: Store, clock: FakeClock) -> None:
    assert store.settling.leave(series_now(store, "2.25.1002"), Event.SETTLED, "count", clock())
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None and finish(store, clock, claim, model="0.0.9")
    assert "reported by model 0.0.9, explained by 0.1" in run("explain", "1", "--config", case).stdout


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(run: Run, case: Path) -> None:
    assert "--out" in one_line(run("explain", "1", "--out", "nowhere/why.png", "--config", case), 2)
    assert "--out" in one_line(run("explain", "1", "--out", "why.jpg", "--config", case), 2)


def test_a_bundle_that_cannot_be_used_is_one_line(run: Run, case: Path) -> None:
    case.write_text(case.read_text().replace("bundle-", "no-bundle-"))
    assert "[ai] bundle" in one_line(run("explain", "1", "--config", case), 2)


def test_the_command_has_help_with_an_example(run: Run) -> None:
    result = run("explain", "--help")
    assert result.exit_code == 0 and "Example: willis explain 7" in " ".join(result.stdout.split())
