"""Our side as SCU on real sockets: every answer comes to whoever asked, and the association ends as the Standard says."""

import io
import struct
import threading
import time
from contextlib import closing
from typing import Any

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_STORE, N_ACTION
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    Verification,
)

from node.errors import Unavailable
from node.net import requestor
from node.scu import dimse
from node.scu.dimse import Entity, Timeouts
from node.scu.query_scu import ask_count
from tests.faults.answers import lost_answers
from tests.support.asking import FIND, GET, IMPLICIT, US, ask, associated, listed, request
from tests.support.raw_scp import HAS_DATASET, NO_DATASET, RawScp
from tests.support.raw_scu import COMMAND, LAST, command, p_data, pdv, store_command, uid_bytes


def test_a_busy_machine_loses_no_answer() -> None:
    assert lost_answers(requests=2_000, busy_threads=1) == []


def test_an_answer_to_something_else_is_not_taken_for_ours() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        scp.answer(asked, 0x0000, message_id=999)
        scp.answer(asked, 0x0122)
        scp.answer_release()

    with RawScp(script, Verification) as scp, associated(scp, Verification) as assoc:
        assert ask(assoc, C_ECHO(), Verification) == [0x0122]


def test_an_answer_that_came_too_late_is_not_taken_for_that_to_the_next_request() -> None:
    def script(scp: RawScp) -> None:
        first, _ = scp.message()
        scp.answer(first, 0x0000)
        scp.answer(first, 0x0000)
        second, _ = scp.message()
        scp.answer(second, 0x0110)
        scp.answer_release()

    with RawScp(script, Verification) as scp, associated(scp, Verification) as assoc:
        assert ask(assoc, C_ECHO(), Verification) == [0x0000]
        assert ask(assoc, C_ECHO(), Verification) == [0x0110]


def test_all_pending_answers_come_each_with_its_identifier() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        for number in range(50):
            scp.answer(asked, 0xFF01 if number % 2 else 0xFF00, encode(listed(number), True, True) or b"")
        scp.answer(asked, 0x0000)
        scp.answer_release()

    with RawScp(script, FIND) as scp, associated(scp, FIND) as assoc:
        context = assoc.contexts_of(FIND)[0]
        answers = list(assoc.ask(request(C_FIND(), FIND), context, listed(0)))
    assert [ds.StudyInstanceUID for _, ds in answers if ds] == [f"2.25.{number}" for number in range(50)]
    assert answers[-1][0].Status == 0x0000


def test_who_takes_no_more_answers_cancels_the_request_and_goes_on() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        scp.answer(asked, 0xFF00, encode(listed(1), True, True) or b"")
        cancelled, _ = scp.message()
        assert cancelled[0x0100] == struct.pack("<H", 0x0FFF)
        assert cancelled[0x0120] == asked[0x0110]
        scp.answer(asked, 0xFF00, encode(listed(2), True, True) or b"")
        scp.answer(asked, 0xFE00)
        again, _ = scp.message()
        scp.answer(again, 0x0000)
        scp.answer_release()

    with RawScp(script, FIND) as scp, associated(scp, FIND) as assoc:
        context = assoc.contexts_of(FIND)[0]
        with closing(assoc.ask(request(C_FIND(), FIND), context, listed(0))) as answers:
            assert next(answers)[0].Status == 0xFF00
        assert ask(assoc, C_FIND(), FIND, listed(0)) == [0x0000]


@pytest.mark.parametrize("maximum_bytes", [64, 4096, 0])
def test_a_file_goes_out_as_it_is_in_pieces_as_long_as_the_peer_takes_them(maximum_bytes: int) -> None:
    content, longest, got = bytes(range(256)) * 40 + b"!!", list[int](), list[bytes]()

    def script(scp: RawScp) -> None:
        read = scp.pdu

        def measured() -> tuple[int, bytes]:
            kind, body = read()
            longest.append(len(body))
            return kind, body

        scp.pdu = measured  # type: ignore[method-assign]
        asked, dataset = scp.message()
        got.append(dataset)
        scp.pdu = read  # type: ignore[method-assign]
        scp.answer(asked, 0x0000)
        scp.answer_release()

    with RawScp(script, CTImageStorage, maximum_bytes=maximum_bytes) as scp, associated(scp, CTImageStorage) as assoc:
        context = assoc.contexts_of(CTImageStorage)[0]
        asked = request(C_STORE(), CTImageStorage, "1.2")
        [(answer, _)] = assoc.ask(asked, context, file=io.BytesIO(content))
    assert (answer.Status, got) == (0x0000, [content])
    assert max(longest) <= (maximum_bytes or 131_072)


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("disk"), KeyboardInterrupt("disk")])
def test_a_file_that_cannot_be_read_to_its_end_ends_the_association_and_says_why(error: BaseException) -> None:
    class Torn(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            if self.tell() > 200:
                raise error
            return super().read(count)

    seen = list[int]()

    def script(scp: RawScp) -> None:
        kind, body = scp.pdu()
        while kind == 4:
            seen.append(body[5] & COMMAND)
            kind, body = scp.pdu()
        seen.append(kind)

    with RawScp(script, CTImageStorage, maximum_bytes=64) as scp, associated(scp, CTImageStorage) as assoc:
        asked = request(C_STORE(), CTImageStorage, "1.2")
        with pytest.raises(type(error), match="disk"):
            list(assoc.ask(asked, assoc.contexts_of(CTImageStorage)[0], file=Torn(b"x" * 500)))
        assert not assoc.is_established
    assert seen[-1] == 7
    assert 0 in seen
    assert COMMAND not in seen[seen.index(0) :], "no C-CANCEL in the midst of a message"


def test_whatever_is_raised_in_the_midst_of_what_comes_ends_the_association() -> None:
    seen = list[int]()

    def script(scp: RawScp) -> None:
        scp.message()
        scp.send(p_data(pdv(3, COMMAND | LAST, store_command(CTImageStorage, "1.2.3")), pdv(3, LAST, b"dataset")))
        seen.append(scp.pdu()[0])

    def keep(*_: Any) -> int:
        raise KeyboardInterrupt

    contexts = [(str(GET), IMPLICIT), (str(CTImageStorage), IMPLICIT)]
    with (
        RawScp(script, GET, CTImageStorage) as scp,
        dimse.associate(US, scp.peer, contexts, [CTImageStorage], keep) as assoc,
    ):
        with pytest.raises(KeyboardInterrupt):
            ask(assoc, C_GET(), GET, listed(1))
        assert not assoc.is_established
    assert seen == [7]


def test_an_answer_that_lists_in_its_command_set_what_failed_is_read() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        answer = command({0x0100: b"\x10\x80", 0x0120: asked[0x0110], 0x0800: b"\x01\x01", 0x0900: b"\0\xb0"})
        scp.send(p_data(pdv(1, COMMAND | LAST, answer + struct.pack("<HHL", 0x0008, 0x0058, 6) + b"2.25.1")))
        scp.answer_release()

    with RawScp(script, GET) as scp, associated(scp, GET) as assoc:
        assert ask(assoc, C_GET(), GET, listed(1)) == [0xB000]


def test_whatever_is_raised_by_an_acceptance_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    def script(scp: RawScp) -> None:
        while scp.pdu()[0]:
            pass
        closed.set()

    closed = threading.Event()
    monkeypatch.setattr(requestor, "maximum_length", broken)
    with RawScp(script, Verification) as scp:
        with pytest.raises(RuntimeError, match="broken") as raised:
            associated(scp, Verification)
        assert closed.wait(5)
    assert raised.value.args == ("broken",), "while whoever holds the error would hold the connection too"


def test_a_count_is_waited_for_only_so_long_though_answers_without_one_keep_coming() -> None:
    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        for _ in range(300):
            try:
                scp.answer(asked, 0xFF00, encode(listed(1), True, True) or b"")
            except OSError:
                return
            time.sleep(0.01)
        scp.answer(asked, 0x0000)

    quick = Entity("WILLIS", Timeouts(acse=5, dimse=0.3, network=5))
    with RawScp(script, FIND) as scp, pytest.raises(Unavailable, match="no answer"):
        ask_count(quick, scp.peer, "2.25.1", "2.25.11")


def test_a_report_that_comes_before_the_answer_is_answered_and_the_answer_comes_too() -> None:
    model, taken = str(StorageCommitmentPushModel), list[tuple[int, str]]()

    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        information = encode(listed(7), True, True) or b""
        scp.send(p_data(pdv(1, COMMAND | LAST, command({
            0x0002: uid_bytes(model), 0x0100: struct.pack("<H", 0x0100), 0x0110: struct.pack("<H", 5),
            0x0800: struct.pack("<H", HAS_DATASET), 0x1000: uid_bytes("1.2"), 0x1002: struct.pack("<H", 2),
        }))), p_data(pdv(1, LAST, information)))  # fmt: skip
        reported, _ = scp.message()
        assert reported[0x0100] == struct.pack("<H", 0x8100)
        assert (reported[0x0120], reported[0x0900]) == (struct.pack("<H", 5), struct.pack("<H", 0x0110))
        scp.answer(asked, 0x0000)
        scp.answer_release()

    def on_report(event_type: int, information: Any) -> int:
        taken.append((event_type, str(information().StudyInstanceUID)))
        return 0x0110

    with RawScp(script, model) as scp, associated(scp, model, on_report=on_report) as assoc:
        assert ask(assoc, N_ACTION(), model, listed(1)) == [0x0000]
    assert taken == [(2, "2.25.7")]


def test_what_a_c_get_brings_is_given_to_keep_and_refused_where_we_are_no_scp_of_it() -> None:
    kept, statuses = list[tuple[str, str, str, bytes]](), list[int]()

    def script(scp: RawScp) -> None:
        asked, _ = scp.message()
        for context_id, status in ((3, 0xA700), (1, 0x0122)):
            for fragment in (b"\0" * 100, b"end"):
                last = LAST if fragment == b"end" else 0
                if not last:
                    scp.send(p_data(pdv(context_id, COMMAND | LAST, command({
                        0x0002: uid_bytes(CTImageStorage), 0x0100: struct.pack("<H", 1),
                        0x0110: struct.pack("<H", 9), 0x0700: b"\0\0", 0x0800: struct.pack("<H", HAS_DATASET),
                        0x1000: uid_bytes("1.2.3"),
                    }))))  # fmt: skip
                scp.send(p_data(pdv(context_id, last, fragment)))
            answer, _ = scp.message()
            statuses.append(struct.unpack("<H", answer[0x0900])[0])
            assert statuses[-1] == status
        scp.answer(asked, 0x0000)
        scp.answer_release()

    def keep(sop_class: str, instance: str, syntax: str, dataset: memoryview) -> int:
        kept.append((sop_class, instance, syntax, bytes(dataset)))
        return 0xA700

    contexts = [(str(GET), IMPLICIT), (str(CTImageStorage), IMPLICIT)]
    with (
        RawScp(script, GET, CTImageStorage) as scp,
        dimse.associate(US, scp.peer, contexts, [CTImageStorage], keep) as assoc,
    ):
        assert ask(assoc, C_GET(), GET, listed(1)) == [0x0000]
    assert kept == [(CTImageStorage, "1.2.3", IMPLICIT, b"\0" * 100 + b"end")]
    assert NO_DATASET
