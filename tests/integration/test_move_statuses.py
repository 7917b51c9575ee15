"""What an answer to a C-MOVE is treated as, and how many instances one asks for: docs/conformance.md, Retrieve as SCU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, build_context, evt

from node.config import Peer
from node.errors import Refused, Unavailable
from node.query_scu import MOVE, DimseSource, Listed
from node.sender import Timeouts, entity

SERIES = Listed("1.2.3", "1.2.3.4")


@pytest.fixture
def pacs() -> Iterator[Callable[[int], tuple[Peer, list[Any]]]]:
    """Starts a peer that answers every C-MOVE with this status; its settings, and the identifiers that came."""
    started = []

    def start(status: int) -> tuple[Peer, list[Any]]:
        asked: list[Any] = []

        def on_move(event: Any) -> Iterator[Any]:
            asked.append(event.identifier)
            yield "127.0.0.1", server.server_address[1], {"contexts": [build_context(CTImageStorage)]}
            yield 1 if status else 0
            if status:
                yield status, None

        ae = AE("PACS")
        ae.add_supported_context(MOVE)
        ae.add_supported_context(CTImageStorage)  # it is the destination too: there is one, or the answer is 0xA801
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_MOVE, on_move)])
        started.append(server)
        return Peer(ae_title="PACS", host="127.0.0.1", port=server.server_address[1], retrieve="move"), asked

    yield start
    for server in started:
        server.shutdown()


def retrieve(peer: Peer, wanted: list[str]) -> None:
    source = DimseSource(entity("WILLIS", Timeouts(acse=20, dimse=20, network=20)), peer, limit_seconds=60)
    source.retrieve(SERIES, wanted, lambda *_: 0, lambda _done: None)


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA702, 0xFE00, 0xC000, 0xCFFF])
def test_a_status_that_may_pass_is_asked_again(pacs: Callable[[int], tuple[Peer, list[Any]]], status: int) -> None:
    with pytest.raises(Unavailable, match=f"0x{status:04X}"):
        retrieve(pacs(status)[0], ["1.1"])


@pytest.mark.parametrize("status", [0xA801, 0xA900, 0x0122])
def test_any_other_failure_is_not_asked_again(pacs: Callable[[int], tuple[Peer, list[Any]]], status: int) -> None:
    with pytest.raises(Refused, match=f"0x{status:04X}"):
        retrieve(pacs(status)[0], ["1.1"])


def test_one_request_names_at_most_a_hundred_instances_and_a_whole_series_none(
    pacs: Callable[[int], tuple[Peer, list[Any]]],
) -> None:
    peer, asked = pacs(0)
    wanted = [f"1.2.{number}" for number in range(1, 232)]
    retrieve(peer, wanted)
    named = [list(query.SOPInstanceUID) for query in asked]
    assert [(query.QueryRetrieveLevel, len(uids)) for query, uids in zip(asked, named, strict=True)] == [
        ("IMAGE", 100), ("IMAGE", 100), ("IMAGE", 31)
    ]  # fmt: skip
    assert sorted(uid for uids in named for uid in uids) == sorted(wanted)
    asked.clear()
    retrieve(peer, [])
    assert [(query.QueryRetrieveLevel, "SOPInstanceUID" in query) for query in asked] == [("SERIES", False)]
