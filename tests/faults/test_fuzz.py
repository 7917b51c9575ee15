"""A short run of the fuzzer; the long one is `python -m tests.faults.fuzz`."""

from collections import Counter
from random import Random

import pytest

from node.dicom import dataset_walker
from tests.faults.fuzz import parsers, sockets

pytestmark = pytest.mark.faults


def test_mutated_bytes_are_read_or_malformed_and_nothing_else() -> None:
    said = Counter[str]()
    parsers(Random(2), 4000, said)
    assert set(said) == {"read", "no value", "ProtocolViolation", "Malformed", "UnreadableDataset", "MismatchedDataset"}


def test_mutated_streams_through_a_socket_harm_nobody_else() -> None:
    said = Counter[str]()
    sockets(Random(3), 60, said)
    assert sum(said.values()) > 40


def test_the_fuzzer_finds_a_parser_that_forgets_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_walker.Elements, "_delimit", lambda self, *_: self._inside.pop() and 8)
    with pytest.raises(IndexError):
        parsers(Random(2), 4000, Counter())
