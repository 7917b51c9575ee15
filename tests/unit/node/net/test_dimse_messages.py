"""Fragments become messages, and what is held of them is bounded."""

import struct
import tracemalloc
from io import BytesIO

import pytest

from node.net import dimse_messages
from node.net.dimse_messages import Messages, OtherMessage, ProtocolViolation, Sink, StoreRequest, message_pdus
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


@pytest.mark.parametrize("maximum_bytes", [0, 16, 17, 4097, 65_535])
def test_every_fragment_has_an_even_number_of_bytes_and_fits(maximum_bytes: int) -> None:
    """PS3.8 annex E.1, also where the peer's maximum is odd; the whole is what was sent."""
    sent = bytes(range(256)) * 800
    fragments, most = [], maximum_bytes or dimse_messages.LARGEST_DATASET_PDU_BYTES
    for pdu in message_pdus(1, b"", BytesIO(sent), maximum_bytes):
        assert len(pdu) - 6 <= most
        fragments.append(pdu[12:])
    assert {len(each) % 2 for each in fragments} == {0}
    assert b"".join(fragments) == sent


def test_what_a_sender_leaves_behind_the_end_of_a_uid_is_none_of_it() -> None:
    requests: list[StoreRequest] = []

    def begins(request: StoreRequest) -> Sink:
        requests.append(request)
        raise ProtocolViolation("enough is known")

    uid = b"1.2.840.10008.5.1.4.1.1.2\0\0left behind\0"
    elements = (
        (0x0002, uid),
        (0x0100, b"\x01\x00"),
        (0x0110, b"\x07\x00"),
        (0x0800, b"\x00\x00"),
        (0x1000, b"2.25.7\0\0x\0"),
    )
    command = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    with pytest.raises(ProtocolViolation, match="enough"):
        other(Messages(begins), (COMMAND | LAST, command))
    assert (requests[0].sop_class_uid, requests[0].sop_instance_uid) == ("1.2.840.10008.5.1.4.1.1.2", "2.25.7")


@pytest.mark.parametrize(("field", "is_taken"), [(b"\x30\x01", True), (b"\x20\x00", False)])
def test_a_list_of_many_instances_is_taken_where_other_datasets_are_bounded(field: bytes, is_taken: bool) -> None:
    elements = (0x0100, field), (0x0110, b"\x07\x00"), (0x0800, b"\x00\x00")
    command = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    messages, half = Messages(begin), bytes(1 << 20)
    other(messages, (COMMAND | LAST, command), (0, half))
    if is_taken:
        whole = other(messages, (LAST, half))
        assert whole is not None and whole.dataset is not None and len(whole.dataset) == 2 << 20
    else:
        with pytest.raises(ProtocolViolation, match="too long"):
            other(messages, (LAST, half))
