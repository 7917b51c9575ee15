"""HAProxy as the guide says, before hosts that are addresses of loopback."""

import csv
import re
import shutil
import socket
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.absent import absent
from tests.support.running import ROOT, free_port, wait_until

DICOM_PORT, WEB_PORT = 11112, 11180
"""Those of every host in the guide."""


def guided(replaced: Mapping[str, str]) -> str:
    """The configuration in docs/several-hosts.md, with these words replaced, each of which is in it."""
    text = (ROOT / "docs" / "several-hosts.md").read_text("utf-8")
    found = re.search(r"```\n( *global\n.*?)```", text, re.DOTALL)
    assert found is not None
    configuration = textwrap.dedent(found[1]).strip() + "\n"
    for word, other in replaced.items():
        assert word in configuration, word
        configuration = configuration.replace(word, other)
    return configuration


class Balancer:
    """It listens on a port of loopback."""

    def __init__(self, folder: Path, hosts: Sequence[str], dicom_port: int, web_port: int) -> None:
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
        if program is None:
            absent("no HAProxy: apt-get install haproxy")
        self.port, self._socket, self._log = free_port(), folder / "haproxy.sock", folder / "haproxy.log"
        first, second = hosts
        replaced = {
            "global": f"global\n    stats socket {self._socket} mode 600 level user",
            "bind :104": f"bind 127.0.0.1:{self.port}",
            "10.0.0.11": first,
            "10.0.0.12": second,
            "inter 1s": "inter 300ms",
            str(DICOM_PORT): str(dicom_port),
            str(WEB_PORT): str(web_port),
        }
        path = folder / "haproxy.cfg"
        path.write_text(guided(replaced))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([program, "-db", "-f", str(path)], stdout=log, stderr=log)

    def stop(self) -> None:
        """It has ended."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def is_up(self, server: str) -> bool:
        """Whether it has asked the server of this name, and sends new associations to it."""
        assert self.process.poll() is None, self._log.read_text()
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(str(self._socket))
            except OSError:  # it has not begun
                return False
            asked.sendall(b"show stat\n")
            answer = b"".join(iter(lambda: asked.recv(65_536), b"")).decode().removeprefix("# ")
        rows = {row["svname"]: row for row in csv.DictReader(answer.splitlines()) if row["pxname"] == "willis"}
        return (rows[server]["status"], rows[server]["check_status"]) == ("UP", "L7OK")


@contextmanager
def balanced(folder: Path, hosts: Sequence[str], dicom_port: int, web_port: int) -> Iterator[Balancer]:
    """One that has found both hosts, and is gone afterwards."""
    balancer = Balancer(folder, hosts, dicom_port, web_port)
    try:
        wait_until(lambda: balancer.is_up("a") and balancer.is_up("b"), 120, "HAProxy finds both hosts")
        yield balancer
    finally:
        balancer.stop()
