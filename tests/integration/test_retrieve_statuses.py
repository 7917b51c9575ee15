"""What answers to C-MOVE, C-GET and WADO-RS are treated as, and what is asked for: docs/conformance.md, Retrieve as SCU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, build_context, evt

from node.config.peer import Peer
from node.dicom.conformance import IMAGE_CLASSES, TRANSFER_SYNTAXES
from node.errors import Refused, Unavailable
from node.scu.dimse import Entity, Timeouts
from node.scu.query_scu import FIND, GET, MOVE, DimseSource
from node.scu.source import Listed
from node.scu.wado import ANY_SYNTAX
from node.workflow import retrieval
from node.workflow.settling import settle
from tests.support.builders import keep, series_now
from tests.support.dicom_factory import ct_series
from tests.support.site import SiteFactory
from tests.support.web_server import Said, ServerFactory

SERIES = Listed("1.2.3", "1.2.3.4")
Pacs = Callable[..., tuple[Peer, list[Any]]]


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    """Starts a peer that answers every C-MOVE, or C-GET, with this status; its settings, and the requests that came."""
    started = []

    def start(status: int, how: str = "move") -> tuple[Peer, list[Any]]:
        asked: list[Any] = []

        def on_retrieve(event: Any) -> Iterator[Any]:
            asked.append(event)
            if how == "move":
                yield "127.0.0.1", server.server_address[1], {"contexts": [build_context(CTImageStorage)]}
            yield 1 if status else 0
            if status:
                yield status, None

        def on_find(event: Any) -> Iterator[Any]:
            """Every series has one instance more than was sent."""
            found = event.identifier
            found.SOPInstanceUID = f"{found.SeriesInstanceUID}.404"
            yield 0xFF00, found

        ae = AE("PACS")
        ae.add_supported_context(FIND)
        ae.add_supported_context(MOVE)
        ae.add_supported_context(GET)
        # To a C-MOVE it is the destination too: there is one, or the answer is 0xA801.
        ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, on_find), (evt.EVT_C_MOVE, on_retrieve), (evt.EVT_C_GET, on_retrieve)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        started.append(server)
        settings = {"ae_title": "PACS", "host": "127.0.0.1", "port": server.server_address[1], "retrieve": how}
        return Peer.model_validate(settings), asked

    yield start
    for server in started:
        server.shutdown()


def retrieve(peer: Peer, wanted: list[str]) -> None:
    source = DimseSource(Entity("WILLIS", Timeouts(acse=20, dimse=20, network=20)), peer, limit_seconds=60)
    source.retrieve(SERIES, wanted, lambda *_: 0, lambda _done: None)


TRANSIENT = (0xA700, 0xA701, 0xA702, 0xFE00)
UNABLE_TO_PROCESS = (0xC000, 0xCFFF)


@pytest.mark.parametrize("how", ["move", "get"])
def test_what_is_over_is_over_though_some_instances_failed(pacs: Pacs, how: str) -> None:
    peer, asked = pacs(0xB000, how)
    retrieve(peer, ["1.1"])
    assert [event.move_destination for event in asked if how == "move"] == ["WILLIS"] * (how == "move")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("how", "status"),
    [("move", status) for status in (*TRANSIENT, *UNABLE_TO_PROCESS)] + [("get", status) for status in TRANSIENT],
)
def test_a_status_that_may_pass_is_asked_again(pacs: Pacs, how: str, status: int) -> None:
    with pytest.raises(Unavailable, match=f"0x{status:04X}"):
        retrieve(pacs(status, how)[0], ["1.1"])


@pytest.mark.parametrize("how", ["move", "get"])
def test_a_peer_that_cannot_give_one_series_now_is_asked_for_its_others(
    pacs: Pacs, site: SiteFactory, how: str
) -> None:
    peer, asked = pacs(0xA702, how)
    assert attempts_at_two_series(site, peer.model_dump(exclude_defaults=True)) == [1, 1]
    assert sorted(event.identifier.SeriesInstanceUID for event in asked) == ["2.25.1", "2.25.2"]


def test_a_server_that_fails_with_one_series_is_asked_for_its_others(web: ServerFactory, site: SiteFactory) -> None:
    one_more = Said.of([{"00080018": {"vr": "UI", "Value": ["2.25.404"]}}])
    server = web(lambda asked: Said(500) if asked.headers["Accept"] == ANY_SYNTAX else one_more)
    peer = {"ae_title": "PACS", "url": server.url, "retrieve": "wado"}
    assert attempts_at_two_series(site, peer) == [1, 1]
    given = [asked.path.split("/")[5] for asked in server.asked if asked.headers["Accept"] == ANY_SYNTAX]
    assert sorted(given) == ["2.25.1", "2.25.2"]


def attempts_at_two_series(site: SiteFactory, peer: dict[str, Any]) -> list[int]:
    """How often each was asked for, of 2.25.1 and 2.25.2, which lack an instance, in a round that brings none."""
    made = site(peers={"PACS": peer})
    for number in (1, 2):
        slices = ct_series(3, SeriesInstanceUID=f"2.25.{number}", StudyInstanceUID=f"2.25.9{number}")
        for index, ds in enumerate(slices):
            ds.SOPInstanceUID = f"2.25.{number}7{index}"
        keep(made.store, made.files, made.clock, slices)
    made.clock.advance(20)
    assert (settle(made.context), retrieval.retrieve(made.context)) == (0, 0)
    return [series_now(made.store, f"2.25.{number}").retrievals for number in (1, 2)]


@pytest.mark.parametrize(
    ("how", "status"),
    [("move", 0xA801), *((how, status) for how in ("move", "get") for status in (0xA900, 0x0122))]
    + [("get", status) for status in UNABLE_TO_PROCESS],
)
def test_any_other_failure_is_not_asked_again(pacs: Pacs, how: str, status: int) -> None:
    with pytest.raises(Refused, match=f"0x{status:04X}"):
        retrieve(pacs(status, how)[0], ["1.1"])


def test_a_c_get_proposes_to_store_every_class_in_every_syntax(pacs: Pacs) -> None:
    peer, asked = pacs(0, "get")
    retrieve(peer, ["1.1"])
    requestor = asked[0].assoc.requestor
    proposed = {(cx.abstract_syntax, *cx.transfer_syntax) for cx in requestor.requested_contexts} - {
        (GET, "1.2.840.10008.1.2.1"), (GET, "1.2.840.10008.1.2"),
    }  # fmt: skip
    assert proposed == {(kind, syntax) for kind in IMAGE_CLASSES for syntax in TRANSFER_SYNTAXES}
    roles = {uid: (role.scu_role, role.scp_role) for uid, role in requestor.role_selection.items()}
    assert roles == dict.fromkeys(IMAGE_CLASSES, (False, True))


def test_one_request_names_at_most_a_hundred_instances_and_a_whole_series_none(pacs: Pacs) -> None:
    peer, asked = pacs(0)
    wanted = [f"1.2.{number}" for number in range(1, 232)]
    retrieve(peer, wanted)
    queries = [event.identifier for event in asked]
    named = [list(query.SOPInstanceUID) for query in queries]
    assert [(query.QueryRetrieveLevel, len(uids)) for query, uids in zip(queries, named, strict=True)] == [
        ("IMAGE", 100), ("IMAGE", 100), ("IMAGE", 31)
    ]  # fmt: skip
    assert sorted(uid for uids in named for uid in uids) == sorted(wanted)
    asked.clear()
    retrieve(peer, [])
    [query] = [event.identifier for event in asked]
    assert (query.QueryRetrieveLevel, "SOPInstanceUID" in query) == ("SERIES", False)
