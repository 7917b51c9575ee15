"""What a test needs and this machine may lack: in CI that is a failure, elsewhere a skip with its reason."""

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """The test cannot be run here."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
