"""A node of processes takes model and certificates anew, and nobody who talks to it notices."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.sop_class import Verification
from typer.testing import CliRunner

from ai.bundle import save_bundle
from ai.unet import UNet
from node.cli.main import app
from node.config.peer import Peer
from node.config.sections import Tls
from node.net.requestor import Requestor
from node.net.tls import client_context, connect
from node.runtime.clock import utc_now
from node.scu.dimse import Entity, Timeouts, associate
from node.workflow.health import facts_of, health_of
from tests.support.certificates import Certificates, certificates
from tests.support.running import RunningNode, free_port, wait_until
from tests.unit.ai.test_bundle import TINY, manifest

__all__ = ["certificates"]


@pytest.fixture
def node(tmp_path: Path, certificates: Certificates) -> Iterator[RunningNode]:
    """It runs with the bundle `1.0` and a certificate; `2.0` lies beside it."""
    for version in ("1.0", "2.0"):
        torch.manual_seed(int(version[0]))
        save_bundle(tmp_path / version, manifest(version=version), (UNet(TINY),))
    show(certificates, tmp_path, "node")
    shutil.copy(certificates.folder / "ca.pem", tmp_path / "ca.pem")
    files = {name: f'"{tmp_path / file}"' for name, file in FILES.items()}
    made = RunningNode(
        tmp_path,
        ai__bundle='"1.0"',
        completion__quiet_seconds="20",
        web__enabled="true",
        web__port=str(free_port()),
        node__tls__port=str(free_port()),
        **{f"node__tls__{name}": file for name, file in files.items()},
    )
    yield made.start()
    made.close()


FILES = {"certificate": "our.pem", "key": "our.key", "ca": "ca.pem"}


def show(certificates: Certificates, folder: Path, who: str) -> None:
    """The files that the node reads hold this certificate."""
    for suffix in (".pem", ".key"):
        shutil.copy(certificates.folder / f"{who}{suffix}", folder / f"our{suffix}")


def change(node: RunningNode, before: str, after: str) -> None:
    text = node.path.read_text("utf-8")
    assert before in text
    node.path.write_text(text.replace(before, after), "utf-8")


def reload(node: RunningNode) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["reload", "--config", str(node.path)])
    return done.exit_code, done.output


def loaded(node: RunningNode) -> str:
    """The model that the worker says it has."""
    [work] = [each for each in facts_of(node.config, utc_now()).processes if each.role == "work"]
    return str(work.details["model"])


class Caller:
    """A peer of the node, by TLS."""

    def __init__(self, node: RunningNode, tls: Tls) -> None:
        assert node.config.node.tls is not None
        self.peer = Peer(ae_title="WILLIS", host="127.0.0.1", port=node.config.node.tls.port, tls=True)
        self.tls = tls
        self.calls, self.errors = 0, list[str]()

    def opened(self) -> Requestor:
        return associate(
            Entity("PACS", Timeouts(10, 10, 10), self.tls), self.peer, [(Verification, ImplicitVRLittleEndian)]
        )

    def echo(self, assoc: Requestor) -> int:
        question = C_ECHO()
        question.AffectedSOPClassUID = Verification
        [(answer, _)] = assoc.ask(question, assoc.contexts_of(Verification)[0])
        return int(answer.Status)

    def call_until(self, enough: threading.Event) -> None:
        """One association after the other; what goes wrong is kept."""
        while not enough.wait(0.02):
            try:
                with self.opened() as assoc:
                    assert self.echo(assoc) == 0
                self.calls += 1
            except Exception as error:  # noqa: BLE001  whatever it is
                self.errors.append(repr(error))

    def sees(self, certificates: Certificates) -> str:
        """Whose certificate the node shows."""
        with connect(self.peer, client_context(self.tls), 5) as secure:
            shown = secure.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        import hashlib

        found = hashlib.sha256(shown).hexdigest().upper()
        return next(who for who in ("node", "ct1") if certificates.sha256(who).replace(":", "") == found)


def test_model_and_certificate_are_renewed_broken_and_set_back_while_associations_go_on(
    node: RunningNode, certificates: Certificates, tmp_path: Path
) -> None:
    caller, enough = Caller(node, certificates.of("ct1")), threading.Event()
    wait_until(lambda: any(p.role == "work" for p in facts_of(node.config, utc_now()).processes), 60, "the worker")
    assert (loaded(node), caller.sees(certificates)) == ("1.0", "node")
    calling = threading.Thread(target=caller.call_until, args=(enough,))
    with caller.opened() as assoc:
        calling.start()
        show(certificates, tmp_path, "ct1")
        change(node, '"1.0"', '"2.0"')
        change(node, "quiet_seconds = 20", "quiet_seconds = 21")
        status, said = reload(node)
        assert (status, loaded(node), caller.sees(certificates)) == (0, "2.0", "ct1"), said
        assert "willis work: model 2.0" in said and "willis receive: certificates read again" in said
        assert "willis web: certificates read again" in said
        assert "needs a restart: [completion] quiet_seconds" in said

        change(node, '"2.0"', '"nowhere"')
        status, said = reload(node)
        assert (status, loaded(node)) == (1, "2.0")
        assert "willis work: [ai] bundle" in said
        assert any(
            "`willis work` could not reload" in each.message for each in health_of(node.config, utc_now()).reasons
        )

        change(node, '"nowhere"', '"1.0"')
        (tmp_path / "our.pem").write_text("no certificate", "utf-8")
        status, said = reload(node)
        assert (status, caller.sees(certificates)) == (1, "ct1")
        assert "[node.tls] certificate" in said

        show(certificates, tmp_path, "node")
        status, said = reload(node)
        assert (status, loaded(node), caller.sees(certificates)) == (0, "1.0", "node"), said
        assert not any("could not reload" in each.message for each in health_of(node.config, utc_now()).reasons)
        assert caller.echo(assoc) == 0, "the association from before all this"
        enough.set()
        calling.join()
    assert caller.errors == []
    assert caller.calls > 10
