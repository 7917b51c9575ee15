import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.bundle import Bundle, load_bundle
from ai.decode import Calibration, Candidate
from ai.locations import Location
from ai.second_stage import ShapeSettings, fused, log_odds
from ai.shape import NAMES
from ai.surroundings import NAMES as PLACES
from ai.surroundings import place_scores
from ai.unet import UNet
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.training.test_cubes import made_up_shapes
from training import combine, scoring
from training.candidates import Marked, load_marked, save_marked
from training.cases import Scored
from training.combine import (
    cross_fitted,
    fused_out_of_fold,
    joined,
    operating_points,
    require_unseen,
)
from training.config import ConfigError
from training.drawn_candidates import FIRST_SEEDS
from training.fusion import learned
from training.metrics import auc
from training.phantom.scan import TrueLesion
from training.scoring import Weights, combined, fitted_weights
from training.second_stage import save_trained, train

SECOND = train(made_up_shapes(400, 0), ShapeSettings(hidden=8), 0, epochs=200)


def marked(seed: int) -> Marked:
    """The first stage knows nothing; the second sees the sac of every other scan."""
    rng = np.random.default_rng(seed)
    lesions = (TrueLesion(Location.ACOM, (0.0, 0.0, 0.0), 5.0),) if seed % 2 == 0 else ()
    found = tuple(
        Candidate(float(rng.normal(0, 2)), (20.0 * i, 0.0, 0.0), 5.0, np.eye(13)[6] * 0.9 + 0.1 / 13) for i in range(3)
    )
    measures = rng.normal(0, 1, (3, len(NAMES))).astype(np.float32)
    if lesions:
        measures[0, 0] += 2.0
        measures[0, 1] -= 30.0
    places = rng.uniform(0, 1, (3, len(PLACES))).astype(np.float32)
    return Marked(Scored(seed, lesions, found), measures, places, np.repeat(measures[:, None], 4, axis=1))


SCANS = [marked(seed) for seed in range(60)]
SECONDS = scoring.seconds_of((SECOND,), SCANS, 0)


def test_the_best_candidates_count_by_the_mean_of_five_places() -> None:
    around = SCANS[0].around.copy()
    around[:, :, 1] += 300.0
    seen_otherwise = replace(SCANS[0], around=around)
    [alone], [all_five] = (scoring.seconds_of((SECOND,), [seen_otherwise], count) for count in (0, 1))
    assert alone.tolist() == SECONDS[0].tolist()
    best = int(alone.argmax())
    odds = log_odds((SECOND,), around[best])
    assert all_five[best] == pytest.approx((alone[best] + sum(odds)) / 5) and all_five[best] != pytest.approx(
        alone[best]
    )
    assert np.delete(all_five, best).tolist() == np.delete(alone, best).tolist()


def test_the_stage_that_knows_more_weighs_more() -> None:
    weights = fitted_weights(SCANS, SECONDS)
    assert 0.0 < weights.first < 0.2 < weights.second
    assert fitted_weights(SCANS, SECONDS, with_place=False).place == ()


def test_a_place_where_no_aneurysm_lies_counts_against_a_candidate() -> None:
    fat = PLACES.index("fat_near")
    scans = [replace(scan, places=scan.places.copy()) for scan in SCANS]
    for scan in scans:
        scan.places[:, fat] = np.where(scan.hits, 0.0, np.arange(3) / 4)
    weights = fitted_weights(scans, SECONDS)
    assert weights.place[PLACES.index("fat_near")] == min(weights.place) < -1.0
    hits = np.concatenate([scan.hits for scan in scans])
    scores = np.concatenate([place_scores(scan.places, weights.place, weights.limit) for scan in scans])
    assert (
        scores.max() == 0.0 and np.mean(scores[hits] == 0.0) >= 0.85
    )  # nothing counts for a candidate, little against a sac
    assert np.mean(scores[~hits]) < np.mean(scores[hits]) - 0.3
    scored = combined(scans[:2], SECONDS[:2], weights)
    alone = combined(scans[:2], SECONDS[:2], replace(weights, place=()))
    lost = [one.score for one in alone[1].candidates], [one.score for one in scored[1].candidates]
    assert sum(lost[0]) - sum(lost[1]) == pytest.approx(
        -sum(place_scores(scans[1].places, weights.place, weights.limit))
    )


def test_every_scan_is_judged_by_what_others_fitted() -> None:
    cases, report, notify = cross_fitted(SCANS, SECONDS)
    assert [one.seed for one in cases] == [one.scored.seed for one in SCANS]
    assert all(low <= high for low, high in zip(report, notify, strict=True))
    called = [one.present >= limit for one, limit in zip(cases, report, strict=True)]
    assert np.mean([flag for flag, one in zip(called, cases, strict=True) if one.positive]) > 0.6


def test_the_bundle_has_both_operating_points_and_both_stages() -> None:
    made, scored = joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.2", SCANS, SECONDS)
    said = made.manifest
    assert said.version == "0.2" and said.second_stage is not None
    assert said.threshold <= said.notify_from < 1.0
    assert tuple(said.second_stage.place_weights) == PLACES
    place = tuple(said.second_stage.place_weights.values())
    stage = said.second_stage
    weights = Weights(stage.first_weight, stage.second_weight, place, stage.place_limit)
    assert scored[0].candidates[0].score == combined(SCANS, SECONDS, weights)[0].candidates[0].score


def test_candidates_come_back_as_they_were_written(tmp_path: Path) -> None:
    save_marked(tmp_path, SCANS[1])
    save_marked(tmp_path, SCANS[0])
    first, second = load_marked(tmp_path)
    assert (first.scored.seed, second.scored.seed) == (0, 1)
    np.testing.assert_allclose(first.measures, SCANS[0].measures, atol=1e-5)
    np.testing.assert_allclose(first.places, SCANS[0].places, atol=1e-5)
    np.testing.assert_allclose(first.around, SCANS[0].around, atol=1e-5)
    assert first.hits.tolist() == [True, False, False] and not second.hits.any()


def test_a_scan_without_candidates_comes_back_too_and_one_of_before_is_refused(tmp_path: Path) -> None:
    nothing = Marked(
        Scored(7, (), ()),
        np.zeros((0, len(NAMES)), np.float32),
        np.zeros((0, len(PLACES)), np.float32),
        np.zeros((0, 4, len(NAMES)), np.float32),
    )
    save_marked(tmp_path, nothing)
    assert load_marked(tmp_path)[0].around.shape == (0, 4, len(NAMES))
    document = json.loads((tmp_path / "7.json").read_text())
    del document["around"]
    (tmp_path / "7.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="mark the scans anew"):
        load_marked(tmp_path)


def test_a_bundle_is_judged_with_as_many_candidates_as_it_looks_at() -> None:
    made, _ = joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.1", SCANS, SECONDS)
    stage = made.manifest.second_stage
    assert stage is not None and stage.candidates == 3
    fewer = replace(made, manifest=replace(made.manifest, second_stage=replace(stage, candidates=2)))
    cut, seconds = scoring.seen_by(fewer, SCANS)
    assert {len(scan.hits) for scan in cut} == {len(odds) for odds in seconds} == {2}
    assert cut[0].scored.candidates == SCANS[0].scored.candidates[:2]
    cases, *_ = cross_fitted(cut, seconds)
    assert {len(one.marks or ()) for one in cases} == {2}


def test_one_of_one_stage_is_judged_with_ten() -> None:
    twelve = replace(
        SCANS[0],
        scored=replace(SCANS[0].scored, candidates=SCANS[0].scored.candidates * 4),
        measures=np.tile(SCANS[0].measures, (4, 1)),
        places=np.tile(SCANS[0].places, (4, 1)),
        around=np.tile(SCANS[0].around, (4, 1, 1)),
    )
    [cut], [odds] = scoring.seen_by(Bundle(manifest(), (UNet(TINY),)), [twelve])
    assert len(cut.hits) == len(odds) == 10 and not odds.any()


def test_a_fusion_learns_what_neither_stage_knows() -> None:
    """Candidates of more than 5 mm are on an aneurysm, whatever both stages say of them."""
    rng = np.random.default_rng(0)
    read = rng.normal(0, 1, (4000, 5 + 2 * len(NAMES))).astype(np.float32)
    read[:, 2] = 5.0 + rng.normal(0, 2, 4000)
    hits = read[:, 2] > 5.0
    fusion = learned([read[:1500], read[1500:3000]], [hits[:1500], hits[1500:3000]])
    assert len(fusion) == 4
    assert float(auc(fused(fusion, read[3000:]), hits[3000:].tolist())) > 0.95


def test_a_scan_is_fused_by_what_learned_from_others() -> None:
    hidden = replace(SCANS[0], scored=replace(SCANS[0].scored, lesions=()))
    told, untold = (fused_out_of_fold((SECOND,), [first, *SCANS[1:]]) for first in (SCANS[0], hidden))
    assert np.abs(told[1][1][0] - untold[1][1][0]).max() < 0.01  # what the others were read by has seen it
    assert np.abs(told[1][1][1] - untold[1][1][1]).max() > 0.01
    with_it, without = (scoring.seconds_of((SECOND,), SCANS[:1], 0, fusion)[0] for fusion in (told[0], untold[0]))
    assert np.abs(with_it - without).max() > 0.02


def test_a_scan_without_a_candidate_has_none_to_fuse() -> None:
    none = replace(
        SCANS[0],
        scored=replace(SCANS[0].scored, candidates=()),
        measures=SCANS[0].measures[:0],
        around=SCANS[0].around[:0],
    )
    fusion, (_, seconds) = fused_out_of_fold((SECOND,), [none, *SCANS[:20]])
    assert len(seconds[0]) == 0
    assert [len(each) for each in scoring.seconds_of((SECOND,), [none], 0, fusion)] == [0]


def test_what_is_judged_is_not_learned_from() -> None:
    bundle, _ = joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.1", SCANS, SECONDS)
    require_unseen(bundle, SCANS[:5], SCANS[5:])
    with pytest.raises(ConfigError, match=r"scan 4 is learned from and judged \(1 such scans\): name other folders"):
        require_unseen(bundle, SCANS[:5], SCANS[6:], SCANS[4:6])
    fusion, learnt = fused_out_of_fold((SECOND,), SCANS[:10])
    again, _ = joined(bundle, (SECOND,), "0.2", SCANS, SECONDS, learnt, fusion)
    with pytest.raises(ConfigError, match="0.2 has learned from drawn scans already"):
        require_unseen(again, SCANS[:5], SCANS[5:])


@pytest.mark.parametrize("learnt", [False, True])
def test_the_command_says_what_is_gained_and_writes_the_bundle(
    learnt: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marked").mkdir()
    (tmp_path / "drawn").mkdir()
    for scan in SCANS:
        save_marked(tmp_path / "marked", scan)
        save_marked(tmp_path / "drawn", replace(scan, scored=replace(scan.scored, seed=scan.scored.seed + 100)))
    save_trained(tmp_path / "second.safetensors", [SECOND])
    before, _ = joined(Bundle(manifest(), (UNet(TINY),)), (SECOND,), "0.1", SCANS, SECONDS)
    if not learnt:
        before = Bundle(manifest(), (UNet(TINY),))
    monkeypatch.setattr(combine, "load_bundle", lambda folder: before)
    monkeypatch.setattr(combine, "DRAWS", 20)
    arguments = ["bundle", str(tmp_path / "second.safetensors"), str(tmp_path / "marked"), "0.2", str(tmp_path / "new")]
    assert combine.main([*arguments, "--learnt", str(tmp_path / "drawn")] if learnt else arguments) == 0
    assert "gain of auc_present" in capsys.readouterr().out
    written = load_bundle(tmp_path / "new")
    assert written.manifest.version == "0.2" and len(written.fusion) == (4 if learnt else 0)


def test_the_thresholds_keep_what_they_aim_at_on_each_kind_of_scans() -> None:
    def healthy(scores: list[float]) -> list[Scored]:
        return [
            Scored(seed, (), (Candidate(score, (0.0, 0.0, 0.0), 5.0, np.full(13, 1 / 13)),))
            for seed, score in enumerate(scores)
        ]

    calm, wild = healthy([-3.0] * 400), healthy([0.0] * 30 + [1.5] * 10)
    together, _ = operating_points(calm + wild, Calibration())
    plain = [replace(scan, seed=FIRST_SEEDS["plain"] + scan.seed) for scan in wild]
    apart, alerts = operating_points(calm + plain, Calibration())
    assert together < 0.6 < Calibration().present(1.5) < apart == alerts
