"""A bundle is judged as it ships, on scans that nothing is fitted to."""

from dataclasses import replace
from pathlib import Path

import pytest

from ai.bundle import Bundle
from ai.unet import UNet
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.training.test_combine import SCANS, SECOND, SECONDS
from training import judge
from training.candidates import Marked, save_marked
from training.cases import case
from training.combine import joined
from training.judge import NONE, main, shipped_cases, specificities, thresholds_of
from training.phantom.people import LOOKALIKES

BLUNT = LOOKALIKES[3]
BUNDLE, SHIPPED = joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.2", SCANS, SECONDS)


def with_lookalike(scan: Marked) -> Marked:
    """Every fourth scan, with an aneurysm or without, has a blunt carotid end."""
    return replace(scan, scored=replace(scan.scored, confounders=(BLUNT,) if scan.scored.seed % 4 < 2 else ()))


def test_a_bundle_of_two_stages_answers_as_it_ships() -> None:
    stage = BUNDLE.manifest.second_stage
    assert stage is not None
    alone = replace(BUNDLE, manifest=replace(BUNDLE.manifest, second_stage=replace(stage, around=0)))
    wanted = [case(one, alone.manifest.calibration, alone.manifest.threshold) for one in SHIPPED]
    assert [one.present for one in shipped_cases(alone, SCANS)] == pytest.approx([one.present for one in wanted])


def test_one_of_one_stage_answers_by_its_own_scores() -> None:
    bundle = Bundle(manifest(), (UNet(TINY),))
    said = bundle.manifest
    wanted = [case(scan.scored, said.calibration, said.threshold).present for scan in SCANS]
    assert [one.present for one in shipped_cases(bundle, SCANS)] == wanted
    assert thresholds_of(said) == {"report": said.threshold}


def test_so_many_candidates_count_as_the_bundle_looks_at() -> None:
    stage = BUNDLE.manifest.second_stage
    assert stage is not None
    fewer = replace(BUNDLE, manifest=replace(BUNDLE.manifest, second_stage=replace(stage, candidates=2)))
    assert {len(one.marks or ()) for one in shipped_cases(fewer, SCANS)} == {2}
    cut = SCANS[0].best(2)
    assert cut.scored.candidates == SCANS[0].scored.candidates[:2]
    assert [len(each) for each in (cut.measures, cut.places, cut.around, cut.hits)] == [2, 2, 2, 2]


def test_specificity_is_told_apart_by_what_a_scan_without_an_aneurysm_holds() -> None:
    cases = shipped_cases(BUNDLE, [with_lookalike(scan) for scan in SCANS])
    found = specificities(cases, {"report": 2.0, "notify": 0.0})
    assert found == {BLUNT: (15, {"report": 1.0, "notify": 0.0}), NONE: (15, {"report": 1.0, "notify": 0.0})}


def test_the_command_prints_the_figures_and_those_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for scan in SCANS:
        save_marked(tmp_path, with_lookalike(scan))
    monkeypatch.setattr(judge, "load_bundle", lambda folder: BUNDLE)
    monkeypatch.setattr(judge, "DRAWS", 20)
    assert main(["bundle", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("0.2 on 60 scans, 30 with an aneurysm; report from ")
    for name in (
        "auc_present",
        "sensitivity_at_half_all",
        "report_specificity",
        "notify_sensitivity",
        "right_location",
    ):
        [line] = [line for line in said.splitlines() if line.split()[0] == name]
        assert " to " in line
    [line] = [line for line in said.splitlines() if BLUNT in line]
    assert "15 scans: report" in line and "; notify" in line and line.count(" to ") == 2


def test_an_empty_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "load_bundle", lambda folder: BUNDLE)
    assert main(["bundle", str(tmp_path)]) == 2
    assert "holds no marked scans" in capsys.readouterr().err
