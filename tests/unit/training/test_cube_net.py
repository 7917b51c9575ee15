"""The cube network learns, goes on after a kill, and joins a bundle."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ai.bundle import Bundle, load_bundle
from ai.cube_net import SIDE, CubeNet, CubeSettings
from ai.decode import Candidate
from ai.parts import Cubes, SecondStage
from ai.predict import looked_at_again
from ai.preprocess import Region
from ai.surroundings import NAMES as PLACES
from ai.unet import UNet, UNetSettings
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.ai.test_second_stage import REGION
from tests.unit.training.test_combine import SCANS, SECOND, SECONDS
from training import combine, cube_join, cube_net, scoring
from training.candidates import Marked, load_marked, mark, save_marked
from training.cases import Scored
from training.config import ConfigError
from training.cube_net import Lessons, begun, is_left_out, load_network, save_network
from training.dataset import Prepared
from training.evaluate import ScanSet
from training.judge import shipped_cases

KEPT = SIDE + 8


def cube(rng: np.random.Generator, sac: bool) -> np.ndarray:
    """Noise, and in the middle of one of a sac a bright ball."""
    hu = rng.normal(40.0, 10.0, (KEPT,) * 3)
    if sac:
        line = np.arange(KEPT) - (KEPT - 1) / 2
        hu[line[:, None, None] ** 2 + line[:, None] ** 2 + line**2 < 36.0] += 300.0
    return hu.astype(np.int16)


def with_cubes(scan: Marked) -> Marked:
    rng = np.random.default_rng(scan.scored.seed)
    cubes = np.stack([cube(rng, bool(hit)) for hit in scan.hits])
    return replace(scan, cubes=cubes, circle_lps_mm=(0.0, 0.0, 0.0))


SEEN = [with_cubes(scan) for scan in SCANS]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A bundle, drawn cubes, a run, and a folder of drawn scans."""
    (tmp_path / "cubes").mkdir()
    rng = np.random.default_rng(1)
    kinds = ["sac", "bend"] * 6
    np.save(tmp_path / "cubes" / "0000000.npy", np.stack([cube(rng, kind == "sac") for kind in kinds]))
    (tmp_path / "cubes" / "0000000.json").write_text(json.dumps([[kind, "made up", 5.0] for kind in kinds]))
    (tmp_path / "drawn").mkdir()
    for scan in SEEN[:40]:
        assert scan.cubes is not None
        np.save(tmp_path / "drawn" / f"{scan.scored.seed}.sacs.npy", scan.cubes[scan.hits])
        save_marked(tmp_path / "drawn", scan)
    bundle, _ = combine.joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.1", SCANS, SECONDS)
    for module in (cube_net, cube_join):
        monkeypatch.setattr(module, "load_bundle", lambda _folder, **_: bundle)
    monkeypatch.setattr(cube_net, "EVERY", 2)
    return ["bundle", str(tmp_path / "cubes"), str(tmp_path / "run.safetensors"), str(tmp_path / "drawn")]


def test_a_run_that_was_killed_ends_as_one_that_was_not(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cube_net.main([*folders, "--steps", "4"]) == 0
    said = capsys.readouterr().out
    assert "step 2 of 4, loss" in said and f"on {sum(map(is_left_out, SEEN[:40]))} scans left out, AUC: cubes" in said
    broken = [*folders[:2], str(tmp_path / "broken.safetensors"), *folders[3:], "--steps", "4"]
    looked, batch = iter(range(4)), Lessons.batch
    with monkeypatch.context() as until_killed:
        until_killed.setattr(
            Lessons, "batch", lambda one, rng: batch(one, rng) if next(looked) < 3 else pytest.fail("killed")
        )
        with pytest.raises(pytest.fail.Exception, match="killed"):
            cube_net.main(broken)
    capsys.readouterr()
    assert cube_net.main(broken) == 0
    assert "step 2 of 4" not in capsys.readouterr().out
    (one, learned), (other, _) = (load_network(Path(run)) for run in (folders[2], broken[2]))
    whole, pieces = one.state_dict(), other.state_dict()
    assert learned == {scan.scored.seed for scan in SEEN[:40] if not is_left_out(scan)}
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_what_is_random_at_a_step_is_drawn_from_its_number(folders: list[str]) -> None:
    lessons = Lessons.of(
        Path(folders[1]), [(scan, scan.cubes[scan.hits]) for scan in SEEN[:10] if scan.cubes is not None]
    )
    one, other = (lessons.batch(np.random.default_rng([0, 7])) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    hu, is_sac, kinds = one
    assert hu.shape == (20, SIDE, SIDE, SIDE) and len(is_sac) == 20 and len(kinds) == cube_net.OF_CUBES
    bright = hu[:, 12:20, 12:20, 12:20].mean(dim=(1, 2, 3)) > 150.0
    assert torch.equal(bright, is_sac > 0)


def test_a_network_begins_with_what_the_first_stage_sees() -> None:
    torch.manual_seed(0)
    first = UNet(UNetSettings(in_channels=6, widths=(16, 32, 64, 96, 128), convolutions=(1, 2, 2, 2, 2)))
    network = begun(CubeNet(CubeSettings()), Bundle(manifest(network=first.settings), (first,)))
    own, theirs = network.state_dict(), first.state_dict()
    assert torch.equal(own["blocks.0.0.weight"][:, :3], theirs["levels.0.0.0.weight"][:, :3])
    assert torch.equal(own["blocks.6.0.weight"], theirs["levels.3.1.0.weight"])
    other = begun(CubeNet(CubeSettings()), Bundle(manifest(), (UNet(TINY),)))  # of other widths: as it was made
    assert torch.isfinite(other.state_dict()["blocks.0.0.weight"]).all()


def test_a_cube_network_joins_a_bundle_and_is_what_decides(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(combine, "DRAWS", 20)
    monkeypatch.setattr(scoring, "cube_odds", lambda _networks, hu, _views, _precision: 8.0 if hu.max() > 250 else -8.0)
    learned = [scan.scored.seed for scan in SEEN[:40] if not is_left_out(scan)]
    save_network(tmp_path / "net.safetensors", CubeNet(CubeSettings()), learned)
    (tmp_path / "judged").mkdir()
    for scan in SEEN[40:]:
        save_marked(tmp_path / "judged", scan)
    asked = ["bundle", str(tmp_path / "net.safetensors"), str(tmp_path / "judged"), "0.2", str(tmp_path / "joined")]
    assert cube_join.main([*asked, "--learnt", folders[3], "--views", "3"]) == 0
    said = capsys.readouterr().out
    assert "0.2 at about" in said and "gain of auc_present" in said and ", cubes " in said
    assert "candidates on aneurysms that are named right: 1.000, now 1.000" in said
    made = load_bundle(tmp_path / "joined")
    stage = made.manifest.second_stage
    assert stage is not None and stage.cubes is not None
    assert stage.cubes.weight > 0.1 and stage.cubes.views == 3 and made.manifest.version == "0.2"
    assert len(made.cubes) == 1 and made.cubes[0].settings == CubeSettings() and len(made.naming) == 1
    with pytest.raises(ConfigError, match=r"0.2 looks at cubes or names locations already: name the bundle"):
        cube_join.looking_at(made, None, None)
    assert cube_join.main([*asked[:2], str(tmp_path / "drawn"), "0.2", "--learnt", folders[3]]) == 2
    assert "is learned from and judged" in capsys.readouterr().err

    assert stage.candidates > 2
    assert cube_join.main([*asked[:4], "--learnt", folders[3], "--most", "2", "--around", "3"]) == 2
    assert "3 candidates cannot be measured from around where 2 are looked at: name a" in capsys.readouterr().err
    few = ["--most", "2", "--around", "1", "--no-naming"]
    assert cube_join.main([*asked[:4], str(tmp_path / "few"), "--learnt", folders[3], *few]) == 0
    made = load_bundle(tmp_path / "few")
    stage = made.manifest.second_stage
    assert stage is not None and (stage.candidates, stage.around, stage.naming, made.naming) == (2, 1, None, ())


def test_runs_from_one_start_are_averaged_and_all_that_they_learned_from_is_known(tmp_path: Path) -> None:
    networks = [CubeNet(CubeSettings()), CubeNet(CubeSettings())]
    for number, one in enumerate(networks):
        save_network(tmp_path / f"{number}.safetensors", one, [number, 5])
    mean, seeds = cube_join.mean_of([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    assert seeds == {0, 1, 5}
    save_network(tmp_path / "2.safetensors", networks[0], [2], "something else")
    with pytest.raises(ConfigError, match=r"1.safetensors, .*2.safetensors did not begin with the same weights"):
        cube_join.mean_of([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
    later = tmp_path / "later.safetensors"
    save_network(later, networks[1], [7], cube_net.digest_of(tmp_path / "1.safetensors"))
    assert cube_join.mean_of([tmp_path / "0.safetensors", tmp_path / "1.safetensors", later])[1] == {0, 1, 5, 7}
    with pytest.raises(ConfigError, match="name runs of one --start, or that one and runs of it"):
        cube_join.mean_of([tmp_path / "0.safetensors", later])
    for name, values in mean.state_dict().items():
        both = [one.state_dict()[name].double() for one in networks]
        torch.testing.assert_close(values.double(), (both[0] + both[1]) / 2, rtol=0, atol=1e-6)


def test_a_run_goes_on_with_what_another_learned(folders: list[str], tmp_path: Path) -> None:
    assert cube_net.main([*folders, "--steps", "2"]) == 0
    longer = [*folders[:2], str(tmp_path / "longer.safetensors"), *folders[3:], "--start", folders[2]]
    (first, seeds), start = load_network(Path(folders[2])), Path(folders[2])
    save_network(start, first, [*seeds, 999])
    assert cube_net.main([*longer, "--steps", "1", "--rate", "1e-9"]) == 0
    second, learned = load_network(Path(longer[2]))
    assert learned == {*seeds, 999}  # what the other learned from is learned from
    assert cube_net.start_of(Path(longer[2])) not in ("", cube_net.start_of(start))
    name = "kinds.weight"
    torch.testing.assert_close(first.state_dict()[name], second.state_dict()[name], rtol=0, atol=1e-6)


def test_a_run_that_is_not_there_is_named(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cube_net.main([*folders, "--start", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors is missing or no file of python -m training.cube_net" in capsys.readouterr().err
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other.safetensors is missing or no file of .*: name another RUN"):
        load_network(tmp_path / "other.safetensors")


def test_a_cube_that_is_bent_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    line = np.arange(KEPT, dtype=np.float32)
    hu = torch.from_numpy(10.0 * line[:, None, None] + 3.0 * line[:, None] + line)  # straight lines stay straight
    off, low = np.array([1, -2, 0]), (KEPT - SIDE) // 2
    monkeypatch.setattr(cube_net, "MOST_TURNED", 0.0)
    monkeypatch.setattr(cube_net, "STRETCHED", (1.0, 1.0))
    expected = hu[low + 1 : low + 1 + SIDE, low - 2 : low - 2 + SIDE, low : low + SIDE]
    torch.testing.assert_close(cube_net.bent(hu, off, np.random.default_rng(0)), expected, rtol=0, atol=0.01)
    monkeypatch.setattr(cube_net, "STRETCHED", (1.1, 1.1))
    larger = cube_net.bent(hu, off, np.random.default_rng(0))
    middle = slice(SIDE // 2 - 1, SIDE // 2 + 1)
    torch.testing.assert_close(larger[(middle,) * 3].mean(), expected[(middle,) * 3].mean(), rtol=0, atol=0.01)
    assert float(larger[20, 16, 16] - larger[12, 16, 16]) == pytest.approx(1.1 * 80.0, abs=0.1)


def test_other_kernels_blur_and_sharpen_and_keep_what_is_even() -> None:
    hu = torch.full((40, SIDE, SIDE, SIDE), 100.0)
    hu[:, 10] = 300.0
    changed = cube_net.otherwise(hu, np.random.default_rng(3)).mean(dim=(2, 3))
    beside = (changed[:, 11] - changed[:, 20]) / (changed[:, 10] - changed[:, 20])
    assert float(beside.min()) < -0.04 and float(beside.max()) > 0.3
    assert 0.2 < float((beside.abs() < 0.02).float().mean()) < 0.8  # the others are as they were
    assert changed[:, 20].sub(100.0).abs().max() < 55.0


def test_folders_without_cubes_say_what_to_do(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "older").mkdir()
    save_marked(tmp_path / "older", SCANS[0])
    assert cube_net.main([*folders, str(tmp_path / "older")]) == 2
    assert "kept no cubes: draw the scans anew, into another folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="marked without cubes: mark the scans anew"):
        scoring.looked_into(SCANS[0], (CubeNet(CubeSettings()),), 1)
    (tmp_path / "old").mkdir()
    save_marked(tmp_path / "old", replace(SEEN[0], circle_lps_mm=None))
    np.save(tmp_path / "old" / "0.sacs.npy", np.zeros((0, KEPT, KEPT, KEPT), np.int16))
    assert cube_net.main([*folders, str(tmp_path / "old")]) == 2
    assert "scan 0 was marked without the place of the circle" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cube_net.main([folders[0], str(tmp_path / "empty"), *folders[2:]]) == 2
    assert "must hold cubes, aneurysms and other candidates" in capsys.readouterr().err


def test_a_checkpoint_is_gone_on_with_by_its_own_run_alone(
    folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cube_net.main([*folders, "--steps", "2"]) == 0
    assert cube_net.main([*folders, "--steps", "2", "--seed", "1"]) == 2
    assert "run.safetensors.checkpoint is of a run with other scans" in capsys.readouterr().err


def test_nothing_is_learned_from_what_is_judged(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cube_net, "held_out_set", lambda: ScanSet("held out", (SEEN[1].scored.seed,)))
    assert cube_net.main([*folders, "--steps", "1"]) == 2
    assert "scan 1 is one of the held-out ones" in capsys.readouterr().err
    save_network(tmp_path / "net.safetensors", CubeNet(CubeSettings()), [1, 2])
    (tmp_path / "other").mkdir()
    save_marked(tmp_path / "other", SEEN[50])
    asked = ["bundle", str(tmp_path / "net.safetensors"), folders[3], "0.2", "--learnt", str(tmp_path / "other")]
    assert cube_join.main(asked) == 2
    assert "scan 1 was learned from (2 such scans): name other CANDIDATES" in capsys.readouterr().err


def test_marked_scans_are_scored_as_an_analysis_scores_them(tmp_path: Path) -> None:
    cta, places = head(), [(0.0, 0.0, 0.0), (9.0, 3.0, 2.0)]
    found = tuple(Candidate(2.0 - place[0], place, 5.0, np.full(13, 1 / 13)) for place in places)
    torch.manual_seed(3)
    cubes = CubeNet(CubeSettings()).requires_grad_(False).eval()
    stage = SecondStage(
        SECOND.settings, 0.5, 0.25, {"unsaved.safetensors": ""},
        dict.fromkeys(PLACES, 0.1), 5.0, around=1, cubes=Cubes(cubes.settings, 0.7, 3, {"unsaved.safetensors": ""}),
    )  # fmt: skip
    bundle = Bundle(manifest(second_stage=stage), (UNet(TINY),), (SECOND,), cubes=(cubes,))
    box = Prepared(
        1, Region(cta.hu_DHW, cta.affine_lps, (0.0, 0.0, 0.0)), (), np.zeros(1, np.uint8), np.zeros(1, np.uint8), ()
    )
    save_marked(tmp_path, mark(box, REGION, Scored(1, (), found)))
    [case] = shipped_cases(bundle, load_marked(tmp_path, bundle))
    scored = looked_at_again(found, REGION, cta, bundle)
    assert case.marks is not None and len(scored) == 2
    expected = {one.centre_lps_mm: bundle.manifest.calibration.present(one.score) for one in scored}
    assert {mark.centre_lps_mm: mark.probability for mark in case.marks} == pytest.approx(expected, abs=1e-5)
