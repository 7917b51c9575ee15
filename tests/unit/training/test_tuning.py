"""The second stage goes on to learn from candidates of drawn scans, and what is wrong with it is shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ai.bundle import load_bundle
from ai.findings import Lesion
from ai.locations import Location
from ai.second_stage import KINDS, ShapeNet, ShapeSettings
from tests.unit.training.test_combine import SCANS
from training import mistakes, tuning
from training.candidates import save_marked
from training.cases import Case
from training.drawn_candidates import options_of, seeds_of
from training.held_out import held_out_set
from training.phantom.scan import TrueLesion
from training.second_stage import trained
from training.tuning import Learnt, tuned


def test_a_network_goes_on_to_learn_what_the_candidates_show() -> None:
    torch.manual_seed(1)
    network, learnt = ShapeNet(ShapeSettings(hidden=8)), Learnt.of(SCANS)
    assert learnt.measures.shape[:2] == (180, 5)
    assert np.unique(learnt.scans).tolist() == list(range(60))
    before = learnt.auc_of([network])
    after = tuned(network, learnt, seed=0, epochs=60)
    assert before < 0.8 < 0.95 < learnt.auc_of([after])
    assert learnt.auc_of([network]) == before  # it is a copy that learned
    assert not any(parameter.requires_grad for parameter in after.parameters())


def test_a_scan_without_a_candidate_teaches_nothing() -> None:
    scan = SCANS[0]
    none = replace(scan, scored=replace(scan.scored, candidates=()), measures=scan.measures[:0], around=scan.around[:0])
    assert Learnt.of([none, SCANS[1]]).scans.tolist() == [0, 0, 0]


def test_tuning_writes_the_networks_of_a_bundle_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for scan in SCANS:
        save_marked(tmp_path, scan)
    shipped = Path("ai/models/willis")
    assert tuning.main([str(shipped), str(tmp_path / "run.safetensors"), str(tmp_path)]) == 0
    written, before = trained(tmp_path / "run.safetensors"), load_bundle(shipped).second
    weights, old = ([one.state_dict() for one in networks] for networks in (written, before))
    assert [len(one["kinds.4.bias"]) for one in weights] == [len(KINDS)] * len(old)
    assert not torch.equal(weights[0]["kinds.0.weight"], old[0]["kinds.0.weight"])
    assert torch.equal(weights[0]["mean"], old[0]["mean"])
    said = capsys.readouterr().out
    assert "180 candidates of 60 scans, 30 on an aneurysm" in said
    assert said.count("AUC") == 2


def test_a_third_of_the_drawn_scans_has_no_aneurysm_and_a_third_several() -> None:
    drawn = [options_of("tree", seed, "there") for seed in range(9)]
    assert [one.get("positive") for one in drawn] == [False, True, None] * 3
    assert all(2 <= len(one["lesions"]) <= 4 for one in drawn[2::3])
    assert {one["anatomy"] for one in drawn} == {"there"}
    assert options_of("people", 0, "there") == {"like_people": True, "positive": False}


def test_held_out_scans_are_marked_as_they_are_known() -> None:
    held_out = held_out_set()
    seeds = seeds_of("held-out", 2, 3)
    assert tuple(seeds) == held_out.seeds[2:5] and tuple(seeds_of("tree", 2, 3)) == (8_000_002, 8_000_003, 8_000_004)
    assert options_of("held-out", seeds[0], "there") == held_out.drawn[seeds[0]]


def case(seed: int, marks: list[tuple[float, float]], lesions: list[tuple[float, float]]) -> Case:
    """Marks (mm along x, probability), lesions (mm along x, diameter)."""
    return Case(
        seed,
        tuple(TrueLesion(Location.ACOM, (x, 0.0, 0.0), diameter) for x, diameter in lesions),
        (),
        (0.5,) * 14,
        tuple(Lesion(Location.ACOM, p, (x, 0.0, 0.0), 4.0) for x, p in marks),
    )


def test_mistakes_are_judged_by_the_threshold_of_their_scan_and_put_in_order() -> None:
    cases = [
        case(1, [(50.0, 0.7), (0.0, 0.65)], [(0.0, 6.0), (90.0, 3.0)]),
        case(2, [(50.0, 0.9), (80.0, 0.2)], [(0.0, 2.5)]),
    ]
    assert [(seed, x) for seed, (x, *_), _ in mistakes.false_positives(cases, [0.6, 0.6])] == [(2, 50.0), (1, 50.0)]
    assert [seed for seed, *_ in mistakes.false_positives(cases, [0.8, 0.8])] == [2]
    missed = mistakes.misses(cases, [0.6, 0.6])
    assert [(seed, words.partition(" mm")[2]) for seed, _, words in missed] == [
        (2, ", no candidate"),
        (1, ", no candidate"),
    ]
    assert [words.partition(" mm, ")[2] for *_, words in mistakes.misses(cases, [0.7, 0.7])][-1] == "P 0.65"
