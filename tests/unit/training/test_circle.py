"""What the network for the circle of Willis learns from: heads that are painted once, and turned at every step."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ai.circle import CELL_MM
from training import circle_paint, circle_train
from training.circle_heads import CircleHead
from training.circle_paint import painted, save_head
from training.circle_train import SIDE, Base, drawn, target_of
from training.phantom.frame import FloatArray
from training.phantom.head import Head, draw_head, with_drawn_base

STEP_MM = 3.0
CENTRE = np.array([2.0, -3.0, 1.0])


def ball(_seed: int = 0) -> CircleHead:
    """A ball of tissue in a shell of bone, with something bright at its centre after contrast."""
    affine = np.zeros((4, 4))
    for column, row in enumerate((2, 1, 0)):
        affine[row, column], affine[row, 3] = STEP_MM, -105.0
    affine[3, 3] = 1.0
    away = np.linalg.norm(np.stack(np.meshgrid(*(np.arange(71) * STEP_MM - 105.0,) * 3)), axis=0)
    plain = np.where(away < 80, 35, np.where(away < 88, 1000, -1000)).astype(np.int16)
    filled = np.where(away < 15, 300, plain).astype(np.int16)
    return CircleHead(plain, filled, affine, CENTRE)


def test_a_head_that_was_painted_is_what_training_reads(tmp_path: Path) -> None:
    save_head(tmp_path / "1.npz", ball())
    base = Base(tmp_path / "1.npz")
    assert (base.centre == CENTRE).all() and base.shares.shape == (2, 3, 71, 71, 71)
    assert (base.shares[0] != base.shares[1]).any()
    assert [path.name for path in tmp_path.iterdir()] == ["1.npz"]


def test_what_is_there_is_not_painted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circle_paint, "draw_circle_head", ball)
    assert list(painted(tmp_path, 2, None)) == ["1000", "1001"]
    assert list(painted(tmp_path, 3, None)) == ["1002"]


def test_the_cell_that_training_asks_for_is_where_the_circle_is_drawn(tmp_path: Path) -> None:
    save_head(tmp_path / "1.npz", ball())
    base, rng = Base(tmp_path / "1.npz"), np.random.default_rng(1)
    shown = [drawn(base, rng) for _ in range(12)]
    assert all(shares.shape == (4, SIDE, SIDE, SIDE) for shares, _ in shown)
    assert {centre is None for _, centre in shown} == {True, False}
    for _, centre in shown:
        target = target_of(centre)
        assert float(target.sum()) == pytest.approx(1.0, abs=1e-5)
        assert (float(target[-1]) == 1.0) == (centre is None)


def test_what_lies_at_the_circle_is_shown_in_the_cell_that_training_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along each axis to a fifth of half a voxel, on average over heads turned, scaled and mirrored."""
    head = ball()
    at = np.stack(np.meshgrid(*(np.arange(71) * STEP_MM - 105.0,) * 3, indexing="ij"), axis=-1)  # z, y, x
    blob = np.where(np.linalg.norm(at - CENTRE[::-1], axis=-1) < 15, 150, -50).astype(np.int16)
    save_head(tmp_path / "1.npz", CircleHead(blob, blob, head.affine_lps, CENTRE))
    monkeypatch.setattr(circle_train, "_bend", lambda rng: np.zeros((SIDE, SIDE, SIDE, 3), np.float32))
    base, rng = Base(tmp_path / "1.npz"), np.random.default_rng(2)
    cells, errors = np.indices((SIDE,) * 3).reshape(3, -1), list[FloatArray]()
    while len(errors) < 40:
        shares, centre = drawn(base, rng)
        weight = np.clip(shares[2].numpy().ravel() - 0.3, 0, None)
        if centre is not None and weight.max() > 0.4:  # not a dry skull
            errors.append((cells * weight).sum(axis=1) / weight.sum() - centre)
    off_mm = CELL_MM * np.mean(errors, axis=0)
    assert np.abs(off_mm[:2]).max() < 0.3 and CELL_MM * np.abs(errors).mean() < 0.5


def test_a_head_has_an_ordinary_base_unless_a_varied_one_is_asked_for() -> None:
    plain = draw_head(np.random.default_rng(3))
    given = {"base_shift_mm", "dorsum_mm", "sinus_wall_hu", "recesses", "wing_marrow_hu", "roof_hu"}
    assert all(getattr(plain, field.name) == field.default for field in fields(Head) if field.name in given)
    varied = with_drawn_base(plain)
    changed = {field.name for field in fields(Head) if getattr(plain, field.name) != getattr(varied, field.name)}
    assert {"base_shift_mm", "dorsum_mm", "sinus_wall_hu"} <= changed <= given
    assert with_drawn_base(plain) == varied
