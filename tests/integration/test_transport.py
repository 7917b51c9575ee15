"""The byte path, by what a peer sees of it: sockets, dcmtk and pynetdicom against the Receiver."""

import os
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification
from sqlalchemy import update

from node.config.sections import Config, Node
from node.errors import ConfigError
from node.net.acceptor import Acceptor
from node.scp.receiver import Receiver
from node.scp.session import receiver_name
from storage.database.schema import AssociationRow, InstanceRow
from storage.errors import StorageFull
from storage.files.instances import Files, InstanceWriter
from storage.records import StoredFile
from storage.store import Store
from tests.support.builders import FakeClock, encoded, keep, open_association
from tests.support.certificates import Certificates
from tests.support.dicom_factory import change, ct_series, save
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
from tests.support.running import free_port

ABORT_PDU = 7
Start = Callable[..., int]


@pytest.fixture
def start(sqlite_store: Store, files: Files) -> Iterator[Start]:
    """Starts a receiver on a port of its own, with settings of [node]; returns the port."""
    receivers: list[Receiver] = []

    def begin(**settings: Any) -> int:
        port = free_port()
        receiver = Receiver(
            Config.model_validate({"node": {"port": port, **settings}}), sqlite_store, files, lambda: None
        )
        receiver.start()
        receivers.append(receiver)
        return port

    yield begin
    for receiver in receivers:
        receiver.stop()


@pytest.fixture
def port(start: Start) -> int:
    """The port of a receiver with the usual settings."""
    return start()


def rows(store: Store) -> list[InstanceRow]:
    with store.transactions.reading() as session:
        return session.query(InstanceRow).order_by(InstanceRow.id).all()


def how_they_closed(store: Store) -> list[str | None]:
    with store.transactions.reading() as session:
        return [row.closed for row in session.query(AssociationRow).order_by(AssociationRow.id)]


def leftovers(files: Files) -> list[Path]:
    return list((files.root / "incoming").iterdir())


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def kept_dataset(files: Files, row: InstanceRow) -> bytes:
    content = (files.root / row.path).read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def slices(count: int = 1, **changes: Any) -> list[Dataset]:
    return ct_series(count, **changes)


def test_an_instance_sent_byte_by_byte_is_kept_as_it_came(port: int, sqlite_store: Store, files: Files) -> None:
    (ds,) = slices()
    with RawScu(port).associate() as scu:
        scu.send(b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds))), pieces_of=1)
        assert scu.status() == 0
        scu.release()
    (row,) = rows(sqlite_store)
    assert kept_dataset(files, row) == encoded(ds)
    assert files.holds(_file(row))
    assert dcmread(files.root / row.path).SOPInstanceUID == ds.SOPInstanceUID
    assert leftovers(files) == []


def _file(row: InstanceRow) -> StoredFile:
    return StoredFile(row.path, row.sha256, row.size_bytes)


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


@pytest.mark.parametrize("moment", ["begin", "write", "publish", "flush"])
def test_a_full_disk_is_answered_and_leaves_nothing(
    port: int, sqlite_store: Store, files: Files, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    one, two = slices(2)
    with RawScu(port).associate() as scu:
        with monkeypatch.context() as patched:

            def full(self: InstanceWriter, *_: Any) -> None:
                self.abort()
                raise StorageFull("full")

            if moment == "flush":
                patched.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(5, "I/O error")))
            elif moment == "begin":
                patched.setattr(Files, "begin_instance", lambda *_: (_ for _ in ()).throw(StorageFull("full")))
            else:
                patched.setattr(InstanceWriter, moment, full)
            assert scu.store(one, encoded(one)) == 0xA700
        assert scu.store(two, encoded(two)) == 0
        scu.release()
    assert [row.sop_instance_uid for row in rows(sqlite_store)] == [two.SOPInstanceUID]
    assert len(list(files.root.rglob("*.dcm"))) == 1
    assert leftovers(files) == []


def test_an_instance_that_power_loss_took_before_its_answer_is_forgotten_at_the_next_start(
    start: Start, sqlite_store: Store, files: Files
) -> None:
    port = start()
    series = slices(3)
    scu = RawScu(port).associate()
    for ds in series:
        assert scu.store(ds, encoded(ds)) == 0
    kept = rows(sqlite_store)
    (files.root / kept[-1].path).write_bytes(bytes(kept[-1].size_bytes))
    again = Receiver(Config.model_validate({"node": {"port": port}}), sqlite_store, files, lambda: None)
    again._recover()
    assert [row.sop_instance_uid for row in rows(sqlite_store)] == [ds.SOPInstanceUID for ds in series[:2]]
    assert not (files.root / kept[-1].path).exists()
    assert how_they_closed(sqlite_store) == ["lost"]
    scu.socket.close()


def test_a_doubtful_file_that_cannot_be_read_holds_up_nobody_and_is_looked_at_again(
    start: Start, sqlite_store: Store, files: Files, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    name = receiver_name(Node(port=port))
    for series, ds in enumerate(slices(3), start=1):
        keep(sqlite_store, files, clock, [change(ds, SeriesInstanceUID=f"2.25.{series}")], closed=None)
    with sqlite_store.transactions.writing() as session:
        session.execute(update(AssociationRow).values(receiver=name))
    lost, unreadable, held = (files.root / row.path for row in rows(sqlite_store))
    lost.unlink()
    content = unreadable.read_bytes()
    unreadable.unlink()
    unreadable.mkdir()
    start(port=port)
    assert [files.root / row.path for row in rows(sqlite_store)] == [unreadable, held]
    assert how_they_closed(sqlite_store) == ["lost", None, "lost"]
    said = capsys.readouterr().out
    assert str(unreadable) in said
    assert "check the disk" in said
    with RawScu(port).associate() as scu:
        assert scu.store(ds, encoded(ds)) == 0
        scu.release()
    unreadable.rmdir()
    unreadable.write_bytes(content)
    Receiver(Config.model_validate({"node": {"port": port}}), sqlite_store, files, lambda: None)._recover()
    assert how_they_closed(sqlite_store)[:3] == ["lost", "lost", "lost"]


def test_a_receiver_of_another_host_on_the_same_database_loses_nothing_that_is_open(
    start: Start, sqlite_store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = start()
    with RawScu(port).associate() as scu:
        (ds,) = slices()
        assert scu.store(ds, encoded(ds)) == 0
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        Receiver(Config.model_validate({"node": {"port": port}}), sqlite_store, files, lambda: None)._recover()
        assert how_they_closed(sqlite_store) == [None]
        scu.release()


def test_stopping_aborts_what_is_open(sqlite_store: Store, files: Files) -> None:
    port = free_port()
    receiver = Receiver(Config.model_validate({"node": {"port": port}}), sqlite_store, files, lambda: None)
    receiver.start()
    (ds,) = slices()
    with RawScu(port).associate() as used, RawScu(port).associate() as halfway:
        assert used.store(ds, encoded(ds)) == 0
        halfway.send(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds), 100)[0])
        began = time.monotonic()
        receiver.stop(0.2)
        assert time.monotonic() - began < 4
        assert used.ended() == ABORT_PDU
        assert halfway.ended() == ABORT_PDU
    assert how_they_closed(sqlite_store) == ["aborted"]
    assert leftovers(files) == []
    with pytest.raises(OSError):
        RawScu(port)


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


def test_the_allow_list_rejects_whoever_is_not_on_it(start: Start) -> None:
    with RawScu(start(allowed_calling_ae=["CT1"])) as scu:
        scu.send(associate_rq())
        assert scu.pdu()[0] == 3


def test_too_many_associations_are_rejected_for_now(start: Start) -> None:
    port = start(maximum_associations=2)
    with RawScu(port).associate(), RawScu(port).associate(), RawScu(port) as third:
        third.send(associate_rq())
        assert third.pdu()[0] == 3


def test_pynetdicom_and_dcmtk_are_served(port: int, sqlite_store: Store, files: Files, tmp_path: Path) -> None:
    series = slices(9)
    ae = AE(ae_title="PYNETDICOM")
    ae.add_requested_context(CTImageStorage)
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port)
    assert association.send_c_echo().Status == 0
    assert [association.send_c_store(ds).Status for ds in series[:3]] == [0, 0, 0]
    association.release()
    for program, part in (("storescu", series[3:6]), ("dcmsend", series[6:])):
        folder = tmp_path / program
        folder.mkdir()
        save(part, folder)
        arguments = [program, "+sd", "127.0.0.1", str(port), str(folder)]
        done = subprocess.run(
            arguments, capture_output=True, timeout=30, env={**os.environ, "TCP_NODELAY": "1"}, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows(sqlite_store)) == 9
    assert all(files.holds(_file(row)) for row in rows(sqlite_store))
    wait_until(lambda: how_they_closed(sqlite_store) == ["released"] * 3)


def of_any_certificate() -> ssl.SSLContext:
    """A client's TLS, whatever certificate the receiver has."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return client


def test_tls_takes_the_same_path(
    start: Start, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    plain = Acceptor.listen
    monkeypatch.setattr(Acceptor, "listen", lambda self, host, port, _context: plain(self, host, port, server))
    port = start(network_timeout_seconds=2)
    client = of_any_certificate()
    silent = socket.create_connection(("127.0.0.1", port))
    for number, ds in enumerate(slices(3, rows=256, columns=256)):
        with RawScu(port, tls=client).associate() as scu:
            scu.send(
                b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds))), pieces_of=(0, 1000, 7)[number]
            )
            assert scu.status() == 0
            scu.release()
    assert len(rows(sqlite_store)) == 3
    silent.close()


@pytest.mark.parametrize("client", [None, of_any_certificate()], ids=["plain", "TLS"])
def test_memory_does_not_grow_with_instances_or_associations(
    tmp_path: Path, certificates: Certificates, client: ssl.SSLContext | None
) -> None:
    tls = certificates.of(require_peer_certificate=False)
    plain_port = free_port()
    port = tls.port if client else plain_port
    (tmp_path / "var").mkdir()
    (tmp_path / "willis.toml").write_text(
        f'[node]\nport = {plain_port}\n[storage]\ndirectory = "{tmp_path / "var"}"\n'
        f'[node.tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
        f"port = {tls.port}\nrequire_peer_certificate = false\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "node", "receive", "--config", str(tmp_path / "willis.toml")],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listens() -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        return False

    try:
        wait_until(listens, 30)
        (big,) = slices()
        head = encoded(big)[: -len(big.PixelData) - 4]
        frames = 160
        with RawScu(port, 120, client).associate() as scu:
            scu.send(store_pdus(big.SOPClassUID, big.SOPInstanceUID, b"")[0])
            scu.send(p_data(pdv(STORE_CONTEXT, 0, head + struct.pack("<L", frames << 20))))
            block = b"".join(p_data(pdv(STORE_CONTEXT, 0, bytes(1 << 16))) for _ in range(16))
            for _ in range(frames):
                scu.send(block)
            scu.send(p_data(pdv(STORE_CONTEXT, LAST, b"")))
            assert scu.status() == 0
            for ds in slices(150, SeriesInstanceUID="2.25.5")[1:]:
                assert scu.store(ds, encoded(ds)) == 0
            scu.release()
        for _ in range(60):
            with RawScu(port, tls=client).associate() as scu:
                scu.release()
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
        assert peak < 200, f"{peak:.0f} MiB"
        with sqlite3.connect(tmp_path / "var" / "willis.db") as database:
            assert database.execute("SELECT count(*) FROM instance").fetchone() == (150,)
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdin is not None
        process.stdin.close()


def test_associations_that_end_leave_no_thread_and_no_descriptor(port: int) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with RawScu(port).associate() as scu:
        scu.release()
    wait_until(lambda: not any(thread.name == "AssociationThread" for thread in threading.enumerate()))
    before = descriptors()
    for number in range(40):
        with RawScu(port).associate() as scu:
            if number % 2:
                scu.release()
    wait_until(lambda: not any(thread.name == "AssociationThread" for thread in threading.enumerate()))
    wait_until(lambda: descriptors() <= before)


def test_a_second_receiver_on_the_port_leaves_the_associations_of_the_first_open(
    start: Start, sqlite_store: Store
) -> None:
    port = start()
    name, now = receiver_name(Node(port=port)), datetime.now(UTC)
    open_association(sqlite_store, name, "PACS", now)
    with pytest.raises(ConfigError, match=rf"port = {port}: .*choose another port"):
        start(port=port)
    assert sqlite_store.intake.lose_associations(name, now) == 1
