"""For tests whose subject is measured elsewhere: coverage doubles what Python costs, and a killed process leaves none."""

import os
from collections.abc import Iterator

import pytest
from coverage import Coverage

IN_CHILDREN = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> Iterator[None]:
    """No line counts as covered by the module's tests, nor by the processes that they start."""
    measuring = Coverage.current()
    kept = {name: os.environ.pop(name) for name in IN_CHILDREN if name in os.environ}
    if measuring is not None:
        measuring.stop()
    yield
    os.environ.update(kept)
    if measuring is not None:
        measuring.start()
