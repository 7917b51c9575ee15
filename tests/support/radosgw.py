"""Ceph's S3 gateway on loopback, on a cluster of one monitor and one OSD that keeps objects in memory; a second to start."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import httpx
import pytest

from tests.support.absent import absent
from tests.support.object_store import BUCKET
from tests.support.running import free_port, wait_until

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool", "ceph-authtool")
NAME = "client.rgw.a"
KEYS = ("willis", "secret")
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
auth cluster required = none
auth service required = none
auth client required = none
# the gateway's own default is a connection that is encrypted, for which it would have to prove who it is
ms mon client mode = crc
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
osd pool default size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
mon allow pool size one = true
mon data avail crit = 0
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
mon data = {folder}/mon
osd data = {folder}/osd
keyring = {folder}/keyring
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw run sync thread = false
"""


class RadosGateway:
    """The gateway with an empty bucket; what it has outlives `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        for name in ("mon", "osd"):
            (folder / name).mkdir()
        fsid, osd, monitor = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        values = {"fsid": fsid, "folder": folder, "monitor": monitor, "port": self.port}
        (folder / "ceph.conf").write_text(_CONFIGURATION.format(**values))
        at = f"[v2:127.0.0.1:{monitor}]"
        self._run("monmaptool", "--create", "--addv", "a", at, "--fsid", fsid, str(folder / "monmap"))
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"))
        self._run("ceph-mon", "-i", "a")
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0")
        wait_until(lambda: "1 up" in self._run("ceph", "osd", "stat"), 30, "the OSD is up")
        user, secret = KEYS
        self._run("radosgw-admin", "user", "create", "--uid", user, "--display-name", user,
                  "--access-key", user, "--secret-key", secret, "--log-file", str(folder / "admin.log"))  # fmt: skip
        self._run("ceph-authtool", "--create-keyring", str(folder / "keyring"), "--gen-key", "-n", NAME)
        self.start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=user,
            aws_secret_access_key=secret,
        )
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """It answers."""
        self._run("radosgw", "-n", NAME)
        wait_until(self._answers, 30, "the gateway answers")

    def stop(self) -> None:
        """It does not."""
        self._kill(NAME)

    def close(self) -> None:
        """Nothing of it runs any longer."""
        for name in (NAME, "osd.0", "mon.a"):
            with suppress(FileNotFoundError):
                self._kill(name)

    def _kill(self, name: str) -> None:
        file = self._folder / f"{name}.pid"
        pid = int(file.read_text())
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, f"{name} has ended")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.endpoint, timeout=2).status_code == 200
        except httpx.TransportError:
            time.sleep(0.1)
            return False

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "CEPH_CONF": str(self._folder / "ceph.conf")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr[-500:]}"
        return done.stdout


@pytest.fixture(scope="module")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RadosGateway]:
    """One for the tests of a module."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        absent(f"{', '.join(missing)} not found: apt-get install radosgw ceph-mon ceph-osd ceph-common")
    gateway = RadosGateway(tmp_path_factory.mktemp("ceph"))
    try:
        yield gateway
    finally:
        gateway.close()
