"""The table of what each part is worth."""

from pathlib import Path

import pytest

from ai.bundle import Bundle
from ai.unet import UNet
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.training.test_combine import SCANS, SECOND, SECONDS, marked
from training import ablate, combine
from training.ablate import Parts
from training.candidates import save_marked
from training.figures import headline
from training.second_stage import save_trained

HELD_OUT = [marked(seed) for seed in range(100, 140)]


def test_without_the_stage_that_knows_more_less_is_known() -> None:
    parts = Parts((SECOND,), (SECOND,), SCANS, HELD_OUT, {"tree": [marked(seed) for seed in range(200, 240)]})
    with_it, without = (
        [headline(cases, 0.5)["auc_present"] for cases in judged]
        for judged in (parts.without_fusion(), parts.without_second_stage())
    )
    assert min(with_it) > 0.9 and max(without) < 0.8


def test_the_table_has_a_row_for_each_part_and_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, scans in {"candidates": SCANS[:20], "held": HELD_OUT, "tree": SCANS[20:40], "plain": SCANS[40:]}.items():
        (tmp_path / name).mkdir()
        for scan in scans:
            save_marked(tmp_path / name, scan)
    save_trained(tmp_path / "run.safetensors", [SECOND])
    bundle, _ = combine.joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.1", SCANS, SECONDS)
    monkeypatch.setattr(ablate, "load_bundle", lambda _folder: bundle)
    monkeypatch.setattr(combine, "DRAWS", 20)
    named = [str(tmp_path / name) for name in ("run.safetensors", "candidates", "held")]
    assert ablate.main(["bundle", *named, "--learnt", str(tmp_path / "tree"), str(tmp_path / "plain")]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "nothing",
        "the tissue around",
        "the drawn scans of kind tree",
        "the drawn scans of kind plain",
        "the fusion",
        "the fusion and the four places about a centre",
        "all drawn scans, and with them the fusion",
        "the second stage and the tissue around",
    ]
    lost = float(rows[-1].split("|")[2].split(";")[1].split("(")[0])
    assert lost < -0.2
