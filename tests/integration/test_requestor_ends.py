"""How an association that we opened ends: by release, by an abort, in time."""

import struct
import time

import pytest
from pynetdicom.dimse_primitives import C_ECHO, C_FIND
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    Verification,
)

from node.errors import Unavailable
from node.scu.dimse import Entity, Timeouts
from tests.support.asking import FIND, ask, associated, listed
from tests.support.raw_scp import ABORT, RELEASE_RP, RELEASE_RQ, RawScp
from tests.support.raw_scu import COMMAND, LAST, p_data, pdv


def test_a_release_that_both_ask_for_at_once_is_answered_by_us_first() -> None:
    def script(scp: RawScp) -> None:
        assert scp.pdu()[0] == 5
        scp.send(RELEASE_RQ)
        assert scp.pdu()[0] == 6
        scp.send(RELEASE_RP)
        assert scp.pdu()[0] == 0

    start = time.monotonic()
    with RawScp(script, Verification) as scp, associated(scp, Verification):
        pass
    assert time.monotonic() - start < 4


def test_data_that_comes_when_we_have_asked_for_release_is_passed_over() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        scp.answer(asked, 0x0000)
        assert scp.pdu()[0] == 5
        scp.answer(asked, 0x0000)
        scp.send(RELEASE_RP)
        assert scp.pdu()[0] == 0

    with RawScp(script, Verification) as scp, associated(scp, Verification) as assoc:
        assert ask(assoc, C_ECHO(), Verification) == [0x0000]


@pytest.mark.parametrize("how", ["abort", "release", "close"])
def test_an_association_that_the_peer_ends_is_noticed_before_the_next_request(how: str) -> None:
    def script(scp: RawScp) -> None:
        scp.send({"abort": ABORT, "release": RELEASE_RQ, "close": b""}[how])
        if how == "release":
            assert scp.pdu()[0] == 6
        scp.socket.close()

    with RawScp(script, Verification) as scp, associated(scp, Verification) as assoc:
        deadline = time.monotonic() + 5
        while assoc.is_established and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(Unavailable, match="the association ended"):
            ask(assoc, C_ECHO(), Verification)


@pytest.mark.parametrize("wrong", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    p_data(pdv(99, COMMAND | LAST, b"")),
    p_data(pdv(1, LAST, b"data first")),
    struct.pack(">BBL", 4, 0, 3) + b"abc",
    struct.pack(">BBL", 2, 0, 4) + b"\0" * 4,
    struct.pack(">BBL", 7, 0, 0xFFFFFFFF),
])  # fmt: skip
def test_what_a_peer_may_not_send_ends_the_association_with_an_abort(wrong: bytes) -> None:
    seen = list[int]()

    def script(scp: RawScp) -> None:
        scp.message()
        scp.send(wrong)
        seen.append(scp.pdu()[0])

    with (
        RawScp(script, Verification) as scp,
        associated(scp, Verification) as assoc,
        pytest.raises(Unavailable, match="no answer: the association ended or timed out"),
    ):
        ask(assoc, C_ECHO(), Verification)
    assert seen == [7]


def test_a_peer_that_does_not_answer_in_time_is_aborted() -> None:
    seen = list[int]()

    def script(scp: RawScp) -> None:
        scp.message()
        seen.append(scp.pdu()[0])

    impatient = Entity("WILLIS", Timeouts(acse=5, dimse=0.2, network=5))
    with (
        RawScp(script, Verification) as scp,
        associated(scp, Verification, impatient) as assoc,
        pytest.raises(Unavailable, match="no answer"),
    ):
        ask(assoc, C_ECHO(), Verification)
    assert seen == [7]


def test_what_is_under_way_at_the_deadline_ends_though_answers_keep_coming() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        try:
            while True:
                scp.answer(asked, 0xFF00, encode(listed(1), True, True) or b"")
                time.sleep(0.01)
        except OSError:
            pass

    with RawScp(script, FIND) as scp, associated(scp, FIND) as assoc:
        start = time.monotonic()
        assoc.deadline = start + 0.5
        with pytest.raises(Unavailable, match="no answer"):
            ask(assoc, C_FIND(), FIND, listed(0))
        assert 0.4 < time.monotonic() - start < 4
