"""For tests whose subject is measured elsewhere: coverage doubles what Python costs, and a killed process leaves none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from coverage import Coverage

IN_CHILDREN = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")


@contextmanager
def children_unmeasured() -> Iterator[None]:
    """No line counts as covered by the processes that are started."""
    kept = {name: os.environ.pop(name) for name in IN_CHILDREN if name in os.environ}
    yield
    os.environ.update(kept)


@pytest.fixture
def unmeasured_children() -> Iterator[None]:
    """No line counts as covered by the processes that the test starts."""
    with children_unmeasured():
        yield


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> Iterator[None]:
    """No line counts as covered by the module's tests, nor by the processes that they start."""
    measuring = Coverage.current()
    if measuring is not None:
        measuring.stop()
    with children_unmeasured():
        yield
    if measuring is not None:
        measuring.start()
