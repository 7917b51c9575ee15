"""Fragments become messages, and what is held of them is bounded."""

import struct
import tracemalloc

import pytest

from node.net.dimse_messages import Messages, OtherMessage, ProtocolViolation, Sink, StoreRequest
from tests.support.raw_scu import COMMAND, LAST, echo_command

WITH_DATASET = echo_command()[:-2] + b"\x01\x00"  # Command Data Set Type is its last element


def other(messages: Messages, *fragments: tuple[int, bytes]) -> OtherMessage | None:
    """What the last of the fragments (flags, data) completes."""
    whole: OtherMessage | None = None
    for flags, data in fragments:
        messages.begin_fragment(1, flags)
        if data:
            messages.data(memoryview(data))
        ended = messages.end_fragment()
        assert ended is None or isinstance(ended, OtherMessage)
        whole = ended
    return whole


def begin(_request: StoreRequest) -> Sink:
    raise AssertionError("no C-STORE request")


def test_the_fragments_of_a_dataset_are_put_together() -> None:
    messages = Messages(begin)
    begins = (COMMAND, WITH_DATASET[:9]), (COMMAND | LAST, WITH_DATASET[9:])
    for parts in (b"ab", b"cd", b"ef"), (b"gh",), (b"ij", b""):
        rest = [(0, part) for part in parts[:-1]] + [(LAST, parts[-1])]
        assert other(messages, *begins, *rest) == OtherMessage(1, WITH_DATASET, b"".join(parts))


def test_fragments_without_a_byte_take_no_memory() -> None:
    messages = Messages(begin)
    other(messages, (COMMAND | LAST, WITH_DATASET))
    tracemalloc.start()
    for _ in range(20_000):
        other(messages, (0, b""))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10_000


def test_an_element_of_another_group_in_a_command_set_is_read_only_by_who_asks_for_that() -> None:
    with_another = echo_command() + struct.pack("<HHL", 0x0008, 0x0058, 6) + b"2.25.1"
    with pytest.raises(ProtocolViolation, match="command set malformed"):
        other(Messages(begin), (COMMAND | LAST, with_another))
    tolerant = Messages(begin, takes_other_groups=True)
    assert other(tolerant, (COMMAND | LAST, with_another)) == OtherMessage(1, with_another, None)
