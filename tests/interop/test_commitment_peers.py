"""Storage commitment with Orthanc, both ways."""

from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from node.workflow import commitments
from node.workflow.delivery import deliver
from storage.stages import DeliveryStage
from tests.support.builders import keep
from tests.support.dicom_factory import ct_series
from tests.support.running import wait_until
from tests.support.site import Site, SiteFactory

pytestmark = pytest.mark.interop


def beside(site: SiteFactory, orthanc: Any) -> Site:
    """A site that is Orthanc's modality, and whose PACS is Orthanc."""
    pacs = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port, "storage_commitment": True}
    made = site(peers={"PACS": pacs}, node={"network_timeout_seconds": 10, "dimse_timeout_seconds": 10})
    modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": made.config.node.port}
    orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
    return made


def test_orthanc_commits_to_a_report_on_an_association_of_its_own(site: SiteFactory, orthanc: Any) -> None:
    made = beside(site, orthanc)
    made.report()
    assert deliver(made.context) == 1
    assert made.delivery().stage is DeliveryStage.DELIVERED
    assert commitments.ask(made.context) == 1
    wait_until(lambda: made.delivery().stage is DeliveryStage.COMMITTED, 20)


def test_orthanc_does_not_commit_to_what_was_deleted_and_gets_it_again(site: SiteFactory, orthanc: Any) -> None:
    made = beside(site, orthanc)
    made.report()
    assert deliver(made.context) == 1
    for instance in orthanc.http.get("/instances").json():
        orthanc.http.delete(f"/instances/{instance}").raise_for_status()
    assert commitments.ask(made.context) == 1
    wait_until(lambda: made.delivery().stage is DeliveryStage.PENDING, 20)
    assert made.delivery().last_error == "not committed: reason 0x0112"
    made.clock.advance(10)  # the receiver's clock runs, and it says when
    assert deliver(made.context) == 1
    assert commitments.ask(made.context) == 1
    wait_until(lambda: made.delivery().stage is DeliveryStage.COMMITTED, 20)


def test_orthanc_learns_what_we_keep_and_what_we_do_not(site: SiteFactory, orthanc: Any) -> None:
    made = beside(site, orthanc)
    kept = ct_series(2)
    keep(made.store, made.files, made.clock, kept, calling_ae="ORTHANC")

    def outcome(*uids: str) -> str:
        asked = {"DicomInstances": [[str(CTImageStorage), uid] for uid in uids]}
        started = orthanc.http.post("/modalities/willis/storage-commitment", json=asked).raise_for_status().json()
        made.clock.advance(60)  # it leaves the association at once; the receiver's clock ran on meanwhile
        wait_until(lambda: commitments.tell(made.context), 20)
        return str(orthanc.http.get(f"/storage-commitment/{started['ID']}").json()["Status"])

    assert outcome(*(str(ds.SOPInstanceUID) for ds in kept)) == "Success"
    assert outcome(str(kept[0].SOPInstanceUID), "2.25.404") == "Failure"
