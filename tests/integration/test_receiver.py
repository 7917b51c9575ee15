"""The receiver as a whole: full disks, power loss, stopping, other stacks, TLS, memory, threads and ports."""

import os
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification
from sqlalchemy import update

from node.config.sections import Config, Node
from node.errors import ConfigError
from node.net.acceptor import Acceptor
from node.scp.receiver import Receiver
from node.scp.session import receiver_name
from storage.database.schema import AssociationRow
from storage.errors import StorageFull
from storage.files.instances import Files, InstanceWriter
from storage.store import Store
from tests.support.builders import FakeClock, encoded, keep, open_association
from tests.support.certificates import Certificates
from tests.support.dicom_factory import change, save
from tests.support.raw_scu import (
    LAST,
    STORE_CONTEXT,
    RawScu,
    associate_rq,
    p_data,
    pdv,
    store_pdus,
)
from tests.support.receiving import ABORT_PDU, Start, how_they_closed, kept_file, leftovers, rows, slices
from tests.support.running import free_port, wait_until
from tests.support.unmeasured import IN_CHILDREN


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
    assert all(files.holds(kept_file(row)) for row in rows(sqlite_store))
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
        env={name: value for name, value in os.environ.items() if name not in IN_CHILDREN},
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
    with pytest.raises(ConfigError, match=rf"port = {port} .*choose another port"):
        start(port=port)
    assert sqlite_store.intake.lose_associations(name, now) == 1
