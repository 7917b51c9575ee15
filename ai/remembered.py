"""What a costly step answered, by what went into it: the same bytes give the same answer.

So work done on the part of a series that has come is used for the whole of it exactly where it would be the same work.
"""

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Answer = TypeVar("Answer")


class Remembered:
    """The answers given for one series.  Belongs to one thread."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, Any] = {}

    def answer(
        self,
        step: Hashable,
        inputs: tuple[NDArray[Any], ...],
        compute: Callable[[], Answer],
        keeps: Callable[[Answer], bool] = lambda _answer: True,
    ) -> Answer:
        """What `compute` returns, which it is asked once for the same step and inputs, bit for bit.

        `step` names all else that the answer depends on.  Whatever `compute` raises is raised and not kept, nor is an
        answer that `keeps` says no to.
        """
        digest = hashlib.sha256()
        for array in inputs:
            digest.update(f"{array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        key = step, digest.digest()
        if key in self._answers:
            known: Answer = self._answers[key]
            return known
        answer = compute()
        if keeps(answer):
            self._answers[key] = answer
        return answer
