"""Drawn arteries as in people: what changes, what does not, and which scans of a training run are so."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.made_up_tree import write_arteries
from training.config import Data, TrainConfig
from training.phantom.frame import FloatArray
from training.phantom.head import draw_head
from training.phantom.lesions import _varied_form
from training.phantom.people import add_lookalikes, folded, freed_from_bone, make_like_people, uneven
from training.phantom.tree import Tree
from training.phantom.vessels import draw_arteries
from training.scans import LIKE_PEOPLE_SEEDS, REAL_TREE_SEEDS, drawn_scans


def _tree(seed: int) -> Tree:
    """A tree of the test's own: what follows changes it."""
    return deepcopy(_drawn(seed))


@cache
def _drawn(seed: int) -> Tree:
    head = draw_head(np.random.default_rng(seed))
    return draw_arteries(head, np.random.default_rng(seed), tortuosity=1.0)


def _arc_over_chord(tree: Tree, side: str) -> float:
    infra = tree.tubes[f"{side}_ICA_infra"].points
    course: FloatArray = np.concatenate([infra[len(infra) // 2 :], tree.tubes[f"{side}_ICA_supra"].points])
    arc = np.linalg.norm(np.diff(course, axis=0), axis=1).sum()
    return float(arc / np.linalg.norm(course[-1] - course[0]))


def test_arteries_are_thinner_and_siphons_folded_more_and_less() -> None:
    thinner, before, after = [], [], []
    for seed in range(12):
        plain, like = _tree(seed), _tree(seed)
        make_like_people(like, np.random.default_rng(seed))
        thinner.append(like.tubes["L_M1"].radius.mean() / plain.tubes["L_M1"].radius.mean())
        before += [_arc_over_chord(plain, side) for side in "LR"]
        after += [_arc_over_chord(like, side) for side in "LR"]
    assert np.mean(thinner) == pytest.approx(0.82, abs=0.03)
    assert np.std(after) > 1.3 * np.std(before) and np.median(after) > np.median(before)


def test_what_leaves_a_folded_siphon_still_touches_it() -> None:
    for seed in range(6):
        tree = _tree(seed)
        make_like_people(tree, np.random.default_rng(seed))
        add_lookalikes(tree, np.random.default_rng(seed))
        supra = tree.tubes["L_ICA_supra"]
        for name in ("L_choroidal", "L_M1", "L_A1", "L_ophthalmic"):
            assert np.linalg.norm(supra.points - tree.tubes[name].points[0], axis=1).min() < 1.0, name


def test_a_course_folded_once_stays() -> None:
    course = np.array([[0.0, 0, 0], [1, 2, 0], [2, 0, 0]])
    assert not folded(course, 1.0).any()
    assert folded(course, 2.0) == pytest.approx(np.array([[0, 0, 0], [0, 2, 0], [0, 0, 0]]))


def test_radii_vary_along_a_vessel_as_in_people() -> None:
    spread = [uneven(30, np.random.default_rng(seed)).std() for seed in range(40)]
    assert 0.06 < np.median(spread) < 0.10


def test_sacs_are_longer_than_wide_as_in_people() -> None:
    long = [
        (lambda shape: shape.max() / shape.min())(_varied_form(2.0, "varied", np.random.default_rng(seed))[0])
        for seed in range(300)
    ]
    assert np.median(long) == pytest.approx(1.63, abs=0.15)
    assert np.percentile(long, 95) == pytest.approx(2.35, abs=0.3)


def test_carotids_are_free_of_bone_in_some_heads_and_not_in_others() -> None:
    tree = _tree(1)
    counts = [len(freed_from_bone(tree, np.random.default_rng(seed))) for seed in range(40)]
    assert 0 in counts and max(counts) > 20


def test_every_other_scan_of_a_run_follows_the_real_tree_and_has_a_seed_of_its_own(tmp_path: Path) -> None:
    folder = write_arteries(tmp_path)
    data = Data(scans=4, first_seed=10, anatomy=str(folder), like_people=True)
    drawn = drawn_scans(TrainConfig(folder="x", data=data), range(10, 14), validation=False)
    assert [seed - 10 for seed in drawn] == [
        LIKE_PEOPLE_SEEDS, 1 + REAL_TREE_SEEDS, 2 + LIKE_PEOPLE_SEEDS, 3 + REAL_TREE_SEEDS
    ]  # fmt: skip
    assert [one.get("anatomy", "") for one in drawn.values()] == ["", str(folder), "", str(folder)]
    assert not any("unseen" in one for one in drawn.values())
    mixed = TrainConfig(folder="x", data=replace(data, plain_every=4))
    assert list(drawn_scans(mixed, range(10, 14), validation=False)) == [
        10 + LIKE_PEOPLE_SEEDS, 11 + REAL_TREE_SEEDS, 12, 13 + REAL_TREE_SEEDS
    ]  # fmt: skip
    older = drawn_scans(TrainConfig(folder="x"), range(10, 12), validation=False)
    assert older == {10: {}, 11: {}}
