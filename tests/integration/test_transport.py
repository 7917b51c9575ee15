"""The byte path, by what a peer sees of it: whole instances and broken ones, over sockets, against the Receiver."""

import os
import socket
import struct
import time
from contextlib import suppress

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import CTImageStorage

from storage.files.instances import Files
from storage.store import Store
from tests.support.builders import encoded
from tests.support.raw_scu import (
    ABORT,
    COMMAND,
    ECHO_CONTEXT,
    LAST,
    RELEASE_RQ,
    STORE_CONTEXT,
    RawScu,
    associate_rq,
    command,
    echo_command,
    fragments,
    p_data,
    pdv,
    store_command,
    store_pdus,
)
from tests.support.receiving import ABORT_PDU, Start, how_they_closed, kept_dataset, kept_file, leftovers, rows, slices
from tests.support.running import wait_until


def test_an_instance_sent_byte_by_byte_is_kept_as_it_came(port: int, sqlite_store: Store, files: Files) -> None:
    (ds,) = slices()
    with RawScu(port).associate() as scu:
        scu.send(b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds))), pieces_of=1)
        assert scu.status() == 0
        scu.release()
    (row,) = rows(sqlite_store)
    assert kept_dataset(files, row) == encoded(ds)
    assert files.holds(kept_file(row))
    assert dcmread(files.root / row.path).SOPInstanceUID == ds.SOPInstanceUID
    assert leftovers(files) == []


def test_the_dataset_may_be_cut_into_values_anywhere(port: int, sqlite_store: Store, files: Files) -> None:
    series = slices(14)
    with RawScu(port).associate() as scu:
        for ds, size in zip(series, (1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 128, 511, 513, 100_000), strict=True):
            assert scu.store(ds, encoded(ds), size) == 0, f"values of {size} bytes"
        scu.release()
    assert [kept_dataset(files, row) for row in rows(sqlite_store)] == [encoded(ds) for ds in series]


def test_the_stream_may_be_cut_into_segments_anywhere(port: int, sqlite_store: Store, files: Files) -> None:
    (ds,) = slices()
    message = b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds), 300))
    with RawScu(port).associate() as scu:
        for cut in [*range(1, 40), *range(40, len(message), 29)]:
            scu.send(message[:cut])
            time.sleep(0.001)
            scu.send(message[cut:])
            assert scu.status() == 0, f"cut after {cut} bytes"
        scu.release()
    assert len(rows(sqlite_store)) == 1
    assert leftovers(files) == []


def test_one_pdu_may_carry_the_whole_message_and_more(port: int, sqlite_store: Store) -> None:
    one, two = slices(2)

    def parts(ds: Dataset) -> list[bytes]:
        command_set = store_command(ds.SOPClassUID, ds.SOPInstanceUID)
        return [
            *fragments(STORE_CONTEXT, COMMAND, command_set, 20),
            *fragments(STORE_CONTEXT, 0, encoded(ds), 333),
        ]

    with RawScu(port).associate() as scu:
        scu.send(p_data(*parts(one), *parts(two)))
        assert [scu.status(), scu.status()] == [0, 0]
        scu.release()
    assert len(rows(sqlite_store)) == 2


def test_an_empty_last_fragment_ends_the_dataset(port: int, sqlite_store: Store) -> None:
    (ds,) = slices()
    with RawScu(port).associate() as scu:
        scu.send(p_data(pdv(STORE_CONTEXT, COMMAND | LAST, store_command(ds.SOPClassUID, ds.SOPInstanceUID))))
        scu.send(p_data(pdv(STORE_CONTEXT, 0, encoded(ds)), pdv(STORE_CONTEXT, LAST, b"")))
        assert scu.status() == 0
    assert len(rows(sqlite_store)) == 1


def test_echoes_between_instances_are_answered(port: int, sqlite_store: Store) -> None:
    with RawScu(port).associate() as scu:
        for number, ds in enumerate(slices(3)):
            scu.send(p_data(pdv(ECHO_CONTEXT, COMMAND | LAST, echo_command(number + 1))))
            response = scu.response()
            assert (response[0x0900], response[0x0100]) == (b"\0\0", b"\x30\x80")
            assert response[0x0120] == struct.pack("<H", number + 1)
            assert scu.store(ds, encoded(ds)) == 0
        scu.release()
    assert len(rows(sqlite_store)) == 3


def test_two_associations_take_turns_fragment_by_fragment(port: int, sqlite_store: Store, files: Files) -> None:
    one, two = slices(2)
    with RawScu(port).associate() as first, RawScu(port).associate() as second:
        pairs = [store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds), 100) for ds in (one, two)]
        for left, right in zip(*pairs, strict=True):
            first.send(left)
            second.send(right)
        assert (first.status(), second.status()) == (0, 0)
    wait_until(lambda: how_they_closed(sqlite_store) == ["aborted", "aborted"])
    assert sorted(kept_dataset(files, row) for row in rows(sqlite_store)) == sorted(map(encoded, (one, two)))


@pytest.mark.parametrize("end", ["abort", "close", "release", "reset"])
def test_what_ends_in_mid_instance_leaves_nothing_of_it(port: int, sqlite_store: Store, files: Files, end: str) -> None:
    whole, half = slices(2)
    with RawScu(port).associate() as scu:
        assert scu.store(whole, encoded(whole)) == 0
        scu.send(b"".join(store_pdus(half.SOPClassUID, half.SOPInstanceUID, encoded(half), 100)[:-3]))
        wait_until(lambda: len(leftovers(files)) == 1)
        if end in ("abort", "release"):
            scu.send({"abort": ABORT, "release": RELEASE_RQ}[end])
            scu.ended()
        if end == "reset":
            scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    how = "released" if end == "release" else "aborted"
    wait_until(lambda: leftovers(files) == [] and how_they_closed(sqlite_store) == [how])
    assert [row.sop_instance_uid for row in rows(sqlite_store)] == [whole.SOPInstanceUID]


def test_an_abort_after_an_instance_closes_the_association_as_aborted(port: int, sqlite_store: Store) -> None:
    (ds,) = slices()
    with RawScu(port).associate() as scu:
        assert scu.store(ds, encoded(ds)) == 0
        scu.send(ABORT)
        assert scu.ended() == 0
    wait_until(lambda: how_they_closed(sqlite_store) == ["aborted"])


def test_a_release_closes_the_association_as_released(port: int, sqlite_store: Store) -> None:
    (ds,) = slices()
    with RawScu(port).associate() as scu:
        assert scu.store(ds, encoded(ds)) == 0
        scu.release()
    wait_until(lambda: how_they_closed(sqlite_store) == ["released"])


VIOLATIONS = {
    "an unknown PDU": struct.pack(">BBL", 0x42, 0, 4) + b"abcd",
    "a PDU of 4 GiB": struct.pack(">BBL", 4, 0, 0xFFFFFFFF),
    "a PDU longer than announced": struct.pack(">BBL", 4, 0, 131_073),
    "a release of 4 GiB": struct.pack(">BBL", 5, 0, 0xFFFFFFFF),
    "an association request in an association": struct.pack(">BBL", 1, 0, 68) + bytes(68),
    "an empty P-DATA": struct.pack(">BBL", 4, 0, 0),
    "a value longer than its PDU": struct.pack(">BBLLBB", 4, 0, 6, 100, 1, 3),
    "a value without its header": struct.pack(">BBLLBB", 4, 0, 6, 1, 1, 3),
    "two bytes after the last value": p_data(pdv(1, COMMAND, b""), b"xx"),
    "a context that was not accepted": p_data(pdv(99, COMMAND | LAST, echo_command())),
    "a dataset without a command": p_data(pdv(1, LAST, b"data")),
    "a command in a dataset": p_data(
        pdv(1, COMMAND | LAST, store_command(CTImageStorage, "2.25.1")), pdv(1, COMMAND, b"more")
    ),
    "two contexts in a message": p_data(pdv(1, COMMAND, b""), pdv(3, COMMAND | LAST, echo_command())),
    "a command that is none": p_data(pdv(1, COMMAND | LAST, b"\xff" * 40)),
    "half a command": p_data(pdv(1, COMMAND | LAST, store_command(CTImageStorage, "2.25.1")[:-5])),
    "an empty command": p_data(pdv(1, COMMAND | LAST, b"")),
    "an endless command": p_data(pdv(1, COMMAND, bytes(100_000))),
    "a C-FIND": p_data(
        pdv(1, COMMAND | LAST, command({0x0002: b"1.2\0", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0700: b"\0\0", 0x0800: b"\1\0"})),
        pdv(1, LAST, b""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_violation_aborts_its_association_and_no_other(
    port: int, sqlite_store: Store, files: Files, what: str
) -> None:
    (ds,) = slices()
    with RawScu(port).associate() as innocent, RawScu(port).associate() as guilty:
        guilty.send(VIOLATIONS[what])
        assert guilty.ended() == ABORT_PDU
        assert innocent.store(ds, encoded(ds)) == 0
        innocent.release()
    assert leftovers(files) == []


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(200), b"\x01\0\xff\xff\xff\xff", os.urandom(5000)]
)
def test_garbage_instead_of_an_association_is_dropped(port: int, garbage: bytes) -> None:
    with RawScu(port, 10) as scu:
        with suppress(ConnectionError):
            scu.send(garbage)
            scu.socket.shutdown(socket.SHUT_WR)
        assert scu.ended() in (0, ABORT_PDU)
    with RawScu(port).associate() as scu:
        scu.release()


def test_whoever_dawdles_is_dropped(start: Start, files: Files) -> None:
    port = start(network_timeout_seconds=0.4, acse_timeout_seconds=0.4)
    (ds,) = slices()
    message = b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds)))
    began = time.monotonic()
    with RawScu(port) as silent, RawScu(port).associate() as idle, RawScu(port).associate() as dripping:
        dripping.send(message[:300])
        with suppress(OSError):
            for at in range(300, 500):
                dripping.send(message[at : at + 1])
                time.sleep(0.02)
        assert dripping.ended() in (0, ABORT_PDU)
        assert idle.ended() == ABORT_PDU
        assert silent.ended() == 0
    assert time.monotonic() - began < 8
    wait_until(lambda: leftovers(files) == [])


def test_whole_pdus_of_a_byte_each_do_not_keep_an_association(start: Start, files: Files) -> None:
    port = start(network_timeout_seconds=0.3)
    (ds,) = slices()
    pdus = store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds), 1)
    command_pdus = store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, b"")[0]
    with RawScu(port).associate() as scu:
        scu.send(command_pdus)
        with pytest.raises(OSError):  # noqa: PT012
            for data in pdus[-800:]:
                scu.send(data)
                time.sleep(0.02)
            raise AssertionError("still there")
    wait_until(lambda: leftovers(files) == [])


def test_statuses_say_what_was_wrong_and_the_association_goes_on(port: int, sqlite_store: Store, files: Files) -> None:
    one, two, three = slices(3)
    with RawScu(port).associate() as scu:
        assert scu.store(one, encoded(one)[:-10]) == 0xC000
        assert scu.store(one, encoded(two)) == 0xA900
        assert scu.store(one, b"\xff" * 5000) == 0xC000
        assert scu.store(one, b"") == 0xC000
        scu.send(p_data(pdv(1, 3, store_command(CTImageStorage, one.SOPInstanceUID, dataset_type=0x0101))))
        assert scu.status() == 0xC000
        scu.send(b"".join(store_pdus(CTImageStorage, "../../etc/passwd", encoded(one))))
        assert scu.status() == 0xA900
        assert scu.store(three, encoded(three)) == 0
        assert scu.store(three, encoded(three)) == 0
        three.PatientID = "other"
        assert scu.store(three, encoded(three)) == 0xB006
        scu.release()
    assert [row.sop_instance_uid for row in rows(sqlite_store)] == [three.SOPInstanceUID]
    assert len(list(files.root.rglob("*.dcm"))) == 1
    assert leftovers(files) == []


def test_a_tiny_maximum_of_the_peer_is_respected(port: int) -> None:
    (ds,) = slices()
    with RawScu(port).associate(associate_rq(maximum_bytes=64)) as scu:
        scu.send(b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds))))
        kinds = []
        while True:
            kind, body = scu.pdu()
            kinds.append((kind, len(body)))
            if body[5] & LAST:
                break
        assert len(kinds) > 1
        assert all(kind == 4 and size <= 64 for kind, size in kinds)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_takes_the_same_path(port: int, sqlite_store: Store, files: Files, syntax: str) -> None:
    (ds,) = slices()
    dataset = encoded(ds, syntax)
    with RawScu(port).associate(associate_rq(syntax=syntax)) as scu:
        assert scu.store(ds, dataset, 100) == 0
        scu.release()
    (row,) = rows(sqlite_store)
    assert kept_dataset(files, row) == dataset
    assert row.header["position_mm"] == [-20.0, -30.0, 100.0]
