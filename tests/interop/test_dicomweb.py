"""Orthanc by its DICOMweb plug-in: reports go there by STOW-RS, and what is missing comes from there by WADO-RS."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from typer.testing import CliRunner

from node.cli.main import app
from node.config.loading import load
from node.dicom.multipart import unpacked
from node.scu import stow
from node.scu.dimse import Timeouts
from node.scu.outgoing import Outgoing
from node.workflow import delivery
from node.workflow.context import Context
from node.workflow.retrieval import retrieve
from node.workflow.settling import settle
from storage.files.instances import Files
from storage.records import AssociationEnd
from storage.store import Store
from tests.interop.test_peers import Orthanc
from tests.interop.test_retrieve import in_orthanc
from tests.support.builders import FakeClock, keep, series_now
from tests.support.compressed import DCMTK, by_dcmtk
from tests.support.dicom_factory import ct_series, save
from tests.support.site import SiteFactory

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("logging_restored")]


@pytest.fixture
def pacs(web_orthanc: Orthanc, tmp_path: Path) -> dict[str, Any]:
    """[peers.PACS] that is Orthanc by DICOMweb."""
    (tmp_path / "password").write_text("secret-word\n")
    url = f"{web_orthanc.http.base_url}/dicom-web/"
    return {"ae_title": "ORTHANC", "url": url, "username": "willis", "password_file": str(tmp_path / "password")}


def held(orthanc: Orthanc, sop_instance_uid: str) -> list[bytes]:
    """The files that Orthanc has of the instance."""
    found = orthanc.http.post("/tools/lookup", content=sop_instance_uid).json()
    return [orthanc.http.get(f"{each['Path']}/file").content for each in found if each["Type"] == "Instance"]


def test_a_report_is_stored_once_by_stow_as_soon_as_the_password_is_right(
    site: SiteFactory, web_orthanc: Orthanc, pacs: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong")
    made = site(peers={"PACS": pacs})
    path = made.report()
    assert delivery.deliver(made.context) == 0
    assert made.delivery().last_error == "ORTHANC answered HTTP 401: look at its username, password_file or token_file"
    (tmp_path / "password").write_text("secret-word\n")
    made.clock.advance(10)
    assert delivery.deliver(made.context) == 1
    assert made.row()["delivery"] == "delivered"
    assert held(web_orthanc, made.delivery().sop_instance_uid) == [path.read_bytes()]

    assert (
        stow.deliver(made.config.peers["PACS"], Timeouts(), None, Outgoing.read(path)) == "success"
    )  # as after a crash
    assert len(held(web_orthanc, made.delivery().sop_instance_uid)) == 1


Node = Callable[..., Context]


@pytest.fixture
def node(tmp_path: Path, sqlite_url: str, sqlite_store: Store, clock: FakeClock, pacs: dict[str, Any]) -> Node:
    """Makes a context that asks Orthanc, and the configuration file of the same."""

    def make(**peer: Any) -> Context:
        storage = {"directory": str(tmp_path / "var"), "database_url": sqlite_url}
        lines = [
            f"[{section}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
            for section, values in {"storage": storage, "peers.PACS": pacs | peer}.items()
        ]
        (tmp_path / "config.toml").write_text("\n".join(lines))
        return Context(load(tmp_path / "config.toml", {}), sqlite_store, Files(tmp_path / "var"), lambda: None, clock)

    return make


def same_bytes(context: Context, case: int, sent: Sequence[Dataset], folder: Path) -> bool:
    """Whether what is kept of the case are the datasets as they were, byte for byte."""
    folder.mkdir()
    wanted = {bytes(unpacked(bytearray(path.read_bytes()))[3]) for path in save(sent, folder)}
    kept = [context.files.path(file).read_bytes() for _, file in context.store.settling.instances(case)]
    return wanted == {bytes(unpacked(bytearray(file))[3]) for file in kept}


def test_missing_slices_come_by_wado_as_the_server_holds_them(
    node: Node, web_orthanc: Orthanc, tmp_path: Path, clock: FakeClock
) -> None:
    context = node(retrieve="wado")
    series = in_orthanc(web_orthanc, tmp_path, "missing by wado")
    row = keep(context.store, context.files, clock, [*series[:2], series[4]], calling_ae="ORTHANC")
    clock.advance(20)
    assert (settle(context), list(context.lacking), retrieve(context)) == (0, [row.id], 2)
    now = series_now(context.store, series[0].SeriesInstanceUID)
    assert (now.instance_count, now.expected_count, settle(context)) == (5, 5, 1)
    assert dict(context.store.worklist.case(str(row.id)) or {})["evidence"] == "count"
    parts = context.store.settling.contributions(row.id)
    assert [(part.instances, part.closed) for part in parts] == [
        (3, AssociationEnd.RELEASED),
        (2, AssociationEnd.RELEASED),
    ]


def test_a_compressed_study_is_fetched_as_it_is_and_what_is_known_does_not_come_again(
    node: Node, web_orthanc: Orthanc, tmp_path: Path
) -> None:
    context = node(retrieve="wado")
    series = ct_series(3, StudyInstanceUID="2.25.771", SeriesInstanceUID="2.25.772", AccessionNumber="A771")
    for index, ds in enumerate(series):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.773{index}")
    compressed = by_dcmtk(series, DCMTK["JPEG lossless, first order"][1], tmp_path)
    (tmp_path / "compressed").mkdir()
    web_orthanc.upload(save(compressed, tmp_path / "compressed"))
    for said in ("3 came, 0 known before, 0 failed", "0 came, 3 known before, 0 failed"):
        done = CliRunner().invoke(
            app, ["fetch", "A771", "--from", "ORTHANC", "--config", str(tmp_path / "config.toml")]
        )
        assert (done.exit_code, said in done.output) == (0, True), done.output
    assert same_bytes(context, series_now(context.store, "2.25.772").id, compressed, tmp_path / "again")


def test_the_count_of_a_series_is_asked_for_by_qido(
    node: Node, web_orthanc: Orthanc, tmp_path: Path, clock: FakeClock
) -> None:
    context = node(answers_queries=True)
    series = in_orthanc(web_orthanc, tmp_path, "counted by qido")
    row = keep(context.store, context.files, clock, series, calling_ae="ORTHANC")
    clock.advance(1)
    assert (settle(context), settle(context)) == (0, 1)
    assert dict(context.store.worklist.case(str(row.id)) or {})["evidence"] == "count"
