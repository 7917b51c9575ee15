"""Asking for a `NotAnalysable` and looking at it."""

from typing import Any

import pytest

from ai.errors import NotAnalysable
from ai.volume import volume_from_datasets


def refusal(*args: Any, of: Any = volume_from_datasets, **kwargs: Any) -> NotAnalysable:
    with pytest.raises(NotAnalysable) as caught:
        of(*args, **kwargs)
    return caught.value
