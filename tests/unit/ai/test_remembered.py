"""A step is done once for the same input, and again for any other."""

import numpy as np
import pytest

from ai.remembered import Remembered


def test_the_same_step_with_the_same_bytes_is_done_once() -> None:
    known, done = Remembered(), list[int]()
    one = np.arange(12, dtype=np.int16).reshape(3, 4)

    def compute() -> int:
        done.append(1)
        return len(done)

    assert [known.answer("a", (one,), compute), known.answer("a", (one.copy(),), compute)] == [1, 1]
    other = one.copy()
    other[2, 3] += 1
    others = [
        ("b", (one,)),
        ("a", (other,)),
        ("a", (one.reshape(4, 3),)),
        ("a", (one.astype(">i2"),)),
        ("a", (one, one)),
    ]
    assert [known.answer(step, inputs, compute) for step, inputs in others] == [2, 3, 4, 5, 6]
    assert known.answer("a", (np.asfortranarray(one),), compute) == 1
    assert Remembered().answer("a", (one,), compute) == 7


def test_what_could_not_be_computed_is_tried_again() -> None:
    known, one = Remembered(), np.zeros(3)
    with pytest.raises(ZeroDivisionError):
        known.answer("a", (one,), lambda: 1 // 0)
    assert known.answer("a", (one,), lambda: 7) == 7


def test_an_answer_that_is_not_worth_keeping_is_given_and_not_kept() -> None:
    known, one = Remembered(), np.zeros(3)
    assert known.answer("a", (one,), lambda: 7, lambda answer: answer > 7) == 7
    assert known.answer("a", (one,), lambda: 8, lambda answer: answer > 7) == 8
    assert known.answer("a", (one,), lambda: 9) == 8
