"""Storage commitment with real associations on loopback: what is asked of us."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_ECHO, N_ACTION, N_EVENT_REPORT
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID, Result
from node.scu import dimse
from node.scu.storage_scu import send_files
from node.workflow import commitments
from storage.records import AssociationEnd
from storage.store import Store
from tests.support.builders import FakeClock, keep
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port
from tests.support.site import Site, SiteFactory


class Sender:
    """A modality that asks the node to commit, and listens for the result."""

    def __init__(self, made: Site) -> None:
        self.results: list[Result] = []
        self.assoc = dimse.associate(
            dimse.Entity("CT1", dimse.Timeouts(5, 5, 5)),
            made.address,
            [*CONTEXTS, (str(Verification), "1.2.840.10008.1.2")],
            on_report=lambda _event_type, information: self.take(information()),
        )
        self.context = self.assoc.contexts_of(StorageCommitmentPushModel)[0]

    def take(self, information: Dataset) -> int:
        self.results.append(commitment.read_result(information))
        return 0x0000

    def on_report(self, event: Any) -> tuple[int, None]:
        return self.take(event.event_information), None

    def ask(self, ds: Dataset, action: int = 1, instance: str = INSTANCE_UID) -> int:
        request = N_ACTION()
        request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = StorageCommitmentPushModel, instance
        request.ActionTypeID = action
        [(answer, _)] = self.assoc.ask(request, self.context, ds)
        return int(answer.Status)

    def listen(self, seconds: float = 5.0) -> Result:
        self.assoc.listen(seconds, lambda: bool(self.results))
        assert self.results
        return self.results[-1]

    def echo(self) -> int:
        request = C_ECHO()
        request.AffectedSOPClassUID = Verification
        [(answer, _)] = self.assoc.ask(request, self.assoc.contexts_of(Verification)[0])
        return int(answer.Status)


Roles = tuple[bool | None, bool | None]
TAKES_ROLES: Roles = (True, True)
IGNORES_ROLES: Roles = (None, None)
REFUSES_OURS: Roles = (True, False)


def listening(made: Callable[[Any], tuple[int, None]], port: int, roles: Roles = TAKES_ROLES) -> Any:
    """An SCP of the modality, for results on associations of ours; `roles` is what it says to ours (SCU, SCP)."""
    ae = AE(ae_title="CT1")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=roles[0], scp_role=roles[1])
    return ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, made)])


def request(*instances: str, transaction_uid: str = "2.25.5") -> Dataset:
    return commitment.request_dataset(transaction_uid, [(str(CTImageStorage), uid) for uid in instances])


def stored(made: Site) -> list[str]:
    """UIDs of three slices that are durable."""
    datasets = ct_series(3)
    keep(made.store, made.files, made.clock, datasets, calling_ae="CT1", closed=AssociationEnd.RELEASED)
    return [str(ds.SOPInstanceUID) for ds in datasets]


def test_who_stays_on_the_association_gets_the_result_on_it(site: SiteFactory) -> None:
    made = site()
    uids = stored(made)
    modality = Sender(made)
    assert modality.ask(request(*uids)) == 0x0000
    result = modality.listen()
    assert [uid for _, uid in result.committed] == uids
    assert (result.failed, result.event_type) == ({}, 1)
    assert modality.echo() == 0x0000
    modality.assoc.release()
    made.clock.advance(100)
    assert commitments.tell(made.context) == 0
    assert len(modality.results) == 1


def test_only_what_is_known_under_its_class_and_whole_on_disk_is_committed(site: SiteFactory) -> None:
    made = site()
    good, damaged, gone = stored(made)
    files = made.store.commitment_requests.held([("", damaged), ("", gone)])
    made.files.path(files[gone][1]).unlink()
    with made.files.path(files[damaged][1]).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\xff")
    ds = request(good, damaged, gone, "2.25.404")
    other_class = Dataset()
    other_class.ReferencedSOPClassUID, other_class.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", good
    ds.ReferencedSOPSequence.append(other_class)
    modality = Sender(made)
    assert modality.ask(ds) == 0x0000
    result = modality.listen()
    assert result.committed == ((str(CTImageStorage), good),)
    assert result.failed == {
        (str(CTImageStorage), damaged): 0x0110,
        (str(CTImageStorage), gone): 0x0110,
        (str(CTImageStorage), "2.25.404"): 0x0112,
        ("1.2.840.10008.5.1.4.1.1.4", good): 0x0119,
    }
    modality.assoc.release()


def test_an_instance_that_came_again_with_other_content_is_committed_as_it_was_first_kept(
    site: SiteFactory, tmp_path: Path
) -> None:
    made, [ds] = site(), ct_series(1)
    words = []
    for name in ("First^Name", "Other^Name"):
        ds.PatientName = name
        words += [sent.word for sent in send_files(dimse.Entity("CT1"), made.address, save([ds], tmp_path))]
    assert words == ["success", "warning 0xB006"]
    modality = Sender(made)
    assert modality.ask(request(ds.SOPInstanceUID)) == 0x0000
    assert modality.listen().committed == ((str(CTImageStorage), ds.SOPInstanceUID),)
    modality.assoc.release()
    [(_, file)] = made.store.settling.instances(1)
    assert dcmread(made.files.path(file)).PatientName == "First^Name"


@pytest.mark.parametrize("roles", [TAKES_ROLES, IGNORES_ROLES])
def test_who_leaves_gets_the_result_on_a_new_association_when_he_can_be_reached(
    site: SiteFactory, clock: FakeClock, roles: Roles
) -> None:
    port = free_port()
    made = site(peers={"CT1": {"ae_title": "CT1", "host": "127.0.0.1", "port": port}})
    uids = stored(made)
    modality = Sender(made)
    assert modality.ask(request(*uids)) == 0x0000
    modality.assoc.release()
    assert commitments.tell(made.context) == 0  # not yet: it might have stayed
    clock.advance(6)
    assert commitments.tell(made.context) == 0  # nobody listens
    server = listening(modality.on_report, port, roles)
    try:
        assert commitments.tell(made.context) == 0  # the next attempt has its time
        clock.advance(2)
        assert commitments.tell(made.context) == 1
        assert [uid for _, uid in modality.results[0].committed] == uids
        clock.advance(100_000)
        assert commitments.tell(made.context) == 0
    finally:
        server.shutdown()


def test_who_refuses_the_result_at_first_gets_it_when_he_takes_it(site: SiteFactory, clock: FakeClock) -> None:
    port = free_port()
    made = site(peers={"CT1": {"ae_title": "CT1", "host": "127.0.0.1", "port": port}})
    modality = Sender(made)
    assert modality.ask(request(*stored(made))) == 0x0000
    modality.assoc.release()
    clock.advance(6)
    server = listening(modality.on_report, port, REFUSES_OURS)
    try:
        assert commitments.tell(made.context) == 0
    finally:
        server.shutdown()
    clock.advance(2)
    server = listening(modality.on_report, port)
    try:
        assert commitments.tell(made.context) == 1
    finally:
        server.shutdown()


def test_a_result_that_cannot_be_worked_out_is_owed_until_it_can(
    site: SiteFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    made = site(peers={"CT1": {"ae_title": "CT1", "host": "127.0.0.1", "port": port}})
    modality = Sender(made)
    assert modality.ask(request(*stored(made))) == 0x0000
    modality.assoc.release()
    clock.advance(6)
    server = listening(modality.on_report, port)
    try:
        with monkeypatch.context() as broken:
            broken.setattr(made.files, "holds", lambda _file: Path("/nothing").stat())  # as when a disk fails
            assert commitments.tell(made.context) == 0
        clock.advance(2)
        assert commitments.tell(made.context) == 1
    finally:
        server.shutdown()


def test_a_result_that_is_owed_survives_a_restart(site: SiteFactory, sqlite_url: str, clock: FakeClock) -> None:
    made = site()
    uids = stored(made)
    modality = Sender(made)
    assert modality.ask(request(*uids)) == 0x0000
    modality.assoc.abort()
    again = Store.open(sqlite_url)
    clock.advance(6)
    owed = again.commitment_requests.due.claim(clock(), commitments._lease(made.context))
    assert owed is not None
    assert [uid for _, uid in owed.instances] == uids
    again.commitment_requests.due.give_back(owed, clock())
    given_back = again.commitment_requests.due.claim(clock(), commitments._lease(made.context))
    assert given_back is not None
    assert given_back.attempts == owed.attempts
    again.close()


def test_a_stranger_gets_no_result_but_on_his_association(site: SiteFactory, clock: FakeClock) -> None:
    made = site()
    modality = Sender(made)
    assert modality.ask(request("2.25.404")) == 0x0000
    modality.assoc.release()
    clock.advance(6)
    assert commitments.tell(made.context) == 0
    clock.advance(100_000)
    assert made.store.commitment_requests.due.claim(clock(), commitments._lease(made.context)) is None


def test_a_request_that_is_none_is_refused_with_the_right_status(site: SiteFactory) -> None:
    made = site()
    modality = Sender(made)
    assert modality.ask(request("2.25.1"), action=2) == 0x0123
    assert modality.ask(request("2.25.1"), instance="1.2.3") == 0x0112
    assert modality.ask(commitment.request_dataset("2.25.5", [])) == 0x0115
    assert modality.ask(request("not a uid")) == 0x0115
    assert modality.ask(request("2.25.1")) == 0x0000
    assert modality.ask(request("2.25.2")) == 0x0131
    assert modality.listen().failed
    modality.assoc.release()


def test_an_answer_to_nothing_that_we_asked_is_ignored(site: SiteFactory) -> None:
    made = site()
    modality = Sender(made)
    answer = N_EVENT_REPORT()
    answer.MessageIDBeingRespondedTo = 1
    answer.AffectedSOPClassUID = StorageCommitmentPushModel
    answer.Status = 0x0000
    modality.assoc._send_message(answer, modality.context)
    time.sleep(0.1)
    assert modality.echo() == 0x0000
    modality.assoc.release()
