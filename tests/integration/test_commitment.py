"""Storage commitment with real associations on loopback: what we ask of a peer, and what is asked of us."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_ECHO, N_ACTION, N_EVENT_REPORT
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.config.sections import Config
from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID, Result
from node.scu import dimse
from node.scu.storage_scu import send_files
from node.simulated_pacs import Fault, SimulatedPeer
from node.workflow import commitments
from node.workflow.delivery import deliver
from storage.records import AssociationEnd
from storage.stages import DeliveryStage
from storage.store import Store
from tests.support.builders import FakeClock, keep
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port, wait_until
from tests.support.site import PeerFactory, Site, SiteFactory, peers


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitments, "SAME_ASSOCIATION_SECONDS", 0.5)


def committing_site(site: SiteFactory, pacs: SimulatedPeer, **sections: Any) -> Site:
    return site(peers=peers(pacs.port, storage_commitment=True), **sections)


def delivered(made: Site) -> None:
    made.report()
    assert deliver(made.context) == 1
    assert made.delivery().stage is DeliveryStage.DELIVERED


# --- what we ask


def test_a_report_is_done_when_the_peer_says_so_on_the_same_association(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer()
    made = committing_site(site, pacs)
    delivered(made)
    assert made.row()["delivery"] == "delivered"
    assert commitments.ask(made.context) == 1
    wait_until(lambda: made.delivery().stage is DeliveryStage.COMMITTED, 5)
    assert made.row()["delivery"] == "committed"
    assert commitments.ask(made.context) == 0
    assert len(pacs.transactions) == 1


def test_each_object_has_a_transaction_of_its_own(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer()
    made = committing_site(site, pacs)
    made.report()
    made.report()
    assert (deliver(made.context), commitments.ask(made.context)) == (2, 2)
    wait_until(lambda: all(made.delivery(case).stage is DeliveryStage.COMMITTED for case in (1, 2)), 5)
    assert len(set(pacs.transactions)) == len(pacs.transactions) == 2


def test_a_report_is_done_when_the_peer_says_so_on_an_association_of_its_own(
    site: SiteFactory, peer: PeerFactory
) -> None:
    pacs = peer()
    made = committing_site(site, pacs)
    pacs.commits_to = made.address
    delivered(made)
    assert commitments.ask(made.context) == 1
    wait_until(lambda: made.delivery().stage is DeliveryStage.COMMITTED, 5)
    assert made.woken


def test_a_failure_sends_the_same_object_again(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer(fault=Fault.UNCOMMITTED)
    made = committing_site(site, pacs)
    delivered(made)
    commitments.ask(made.context)
    wait_until(lambda: made.delivery().stage is DeliveryStage.PENDING, 5)
    assert made.delivery().last_error == "not committed: reason 0x0110"
    assert deliver(made.context) == 0
    pacs.fault = Fault.NONE
    made.clock.advance(10)  # the receiver's clock runs, and it says when
    assert deliver(made.context) == 1
    commitments.ask(made.context)
    wait_until(lambda: made.delivery().stage is DeliveryStage.COMMITTED, 5)
    assert pacs.requests == [made.delivery().sop_instance_uid] * 2
    assert len(set(pacs.transactions)) == 2


def test_silence_is_asked_again_under_a_new_uid_and_given_up_at_last(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer(fault=Fault.NO_COMMITMENT)
    made = committing_site(site, pacs)
    delivered(made)
    assert commitments.ask(made.context) == 1
    made.clock.advance(3599)
    assert commitments.ask(made.context) == 0
    made.clock.advance(1)
    assert commitments.ask(made.context) == 1
    assert len(set(pacs.transactions)) == 2
    made.clock.advance(72 * 3600)
    assert commitments.ask(made.context) == 0
    assert made.delivery().stage is DeliveryStage.DEAD
    assert made.delivery().last_error == "accepted, but not committed within 72 h"


def test_a_peer_that_is_away_is_asked_later_under_the_same_uid(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer()
    made = committing_site(site, pacs)
    delivered(made)
    port = pacs.port
    pacs.stop()
    assert commitments.ask(made.context) == 0
    assert "no association" in made.delivery().last_error
    assert commitments.ask(made.context) == 0
    made.clock.advance(2)
    pacs.start(port)
    assert commitments.ask(made.context) == 1
    wait_until(lambda: made.delivery().stage is DeliveryStage.COMMITTED, 5)


def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whom we tried to reach, as it happens."""
    tried: list[str] = []
    associate = dimse.associate

    def noted(ae: Any, to: Any, *arguments: Any, **options: Any) -> Any:
        tried.append(to.ae_title)
        return associate(ae, to, *arguments, **options)

    monkeypatch.setattr(dimse, "associate", noted)
    return tried


def test_a_destination_that_is_away_is_asked_once_a_round_and_the_others_are_asked(
    site: SiteFactory, peer: PeerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, kill_point = peer(), peer()
    settings = {"host": "127.0.0.1", "storage_commitment": True}
    made = site(
        peers={
            "AWAY": {"ae_title": "AWAY", "port": away.port, **settings},
            "HERE": {"ae_title": "HERE", "port": kill_point.port, **settings},
        }
    )
    for to in (("AWAY",), ("AWAY",), ("HERE",)):
        made.report(to)
    assert deliver(made.context) == 3
    away.stop()
    tried = dialled(monkeypatch)
    assert commitments.ask(made.context) == 1
    assert sorted(tried) == ["AWAY", "HERE"]


def test_a_sender_that_cannot_be_reached_is_tried_once_a_round(
    site: SiteFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = site(peers={"CT1": {"ae_title": "CT1", "host": "127.0.0.1", "port": free_port()}})
    for number in (1, 2):
        asked = ((CTImageStorage, "2.25.1"),)
        assert made.store.commitment_requests.add(f"2.25.5.{number}", "CT1", asked, clock(), clock())
    tried = dialled(monkeypatch)
    assert commitments.tell(made.context) == 0
    assert tried == ["CT1"]


NO_TLS_FILES = {"certificate": "/nothing/node.pem", "key": "/nothing/node.key", "ca": "/nothing/ca.pem"}


def test_certificates_that_cannot_be_used_postpone_the_request_and_say_why(
    site: SiteFactory, peer: PeerFactory
) -> None:
    pacs = peer()
    made = committing_site(site, pacs)
    delivered(made)
    peer_with_tls = peers(pacs.port, storage_commitment=True, tls=True)
    made.context.config = Config.model_validate({"node": {"tls": NO_TLS_FILES}, "peers": peer_with_tls})
    assert commitments.ask(made.context) == 0
    assert made.delivery().stage is DeliveryStage.DELIVERED
    assert made.delivery().last_error.startswith("[node.tls] certificate = '/nothing/node.pem'")
    made.context.config = made.config
    made.clock.advance(2)
    assert commitments.ask(made.context) == 1


def test_a_report_whose_file_has_gone_is_a_dead_letter_and_does_not_end_the_round(
    site: SiteFactory, peer: PeerFactory
) -> None:
    made = committing_site(site, peer())
    delivered(made)
    made.files.path(made.delivery().file).unlink()
    assert commitments.ask(made.context) == 0
    assert (made.delivery().stage, made.delivery().last_error) == (DeliveryStage.DEAD, "not a DICOM file")


ABORTS = 0xFFFF
"""In place of a status: no answer."""


@pytest.fixture
def bare(request: pytest.FixtureRequest) -> Iterator[Callable[..., int]]:
    """Starts an SCP that takes everything and answers commitment with a status; returns the port.

    `asked` gets the Transaction UID of each request.
    """
    servers: list[Any] = []

    def start(status: int | None, asked: list[str] | None = None) -> int:
        ae = AE(ae_title="PACS")
        ae.add_supported_context(CTImageStorage)
        if status is not None:
            ae.add_supported_context(StorageCommitmentPushModel)

        def on_action(event: Any) -> tuple[int, None]:
            if asked is not None:
                asked.append(commitment.read_request(event.action_information)[0])
            if status == ABORTS:
                event.assoc.abort()
            return status or 0, None

        handlers = [(evt.EVT_C_STORE, lambda _event: 0x0000), (evt.EVT_N_ACTION, on_action)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        servers.append(server)
        return int(server.socket.getsockname()[1])

    yield start
    for server in servers:
        threading.Thread(target=server.shutdown, daemon=True).start()


@pytest.mark.parametrize(
    ("status", "stage", "said"),
    [
        (None, DeliveryStage.DEAD, "accepts none of: Storage Commitment Push Model"),
        (0x0122, DeliveryStage.DEAD, "status 0x0122"),
        (0x0110, DeliveryStage.DELIVERED, "status 0x0110"),
        (0x0213, DeliveryStage.DELIVERED, "status 0x0213"),
        (ABORTS, DeliveryStage.DELIVERED, "no answer: the association ended or timed out"),
        (0x0107, DeliveryStage.DELIVERED, None),
        (0x0116, DeliveryStage.DELIVERED, None),
        (0x0131, DeliveryStage.DELIVERED, None),
    ],
)
def test_what_the_peer_answers_to_the_request_decides(
    site: SiteFactory, bare: Callable[..., int], status: int | None, stage: DeliveryStage, said: str | None
) -> None:
    made = site(peers=peers(bare(status), storage_commitment=True))
    delivered(made)
    assert commitments.ask(made.context) == (said is None)
    assert made.delivery().stage is stage
    assert (said or "") in made.delivery().last_error
    assert bool(made.delivery().last_error) == (said is not None)


def test_a_request_that_may_be_repeated_is_repeated_under_its_transaction_uid(
    site: SiteFactory, bare: Callable[..., int], clock: FakeClock
) -> None:
    asked: list[str] = []
    made = site(peers=peers(bare(0x0110, asked), storage_commitment=True))
    delivered(made)
    for wait_seconds in (2, 4, 8):
        assert commitments.ask(made.context) == 0
        clock.advance(wait_seconds)
    assert asked == [asked[0]] * 3


def test_a_peer_set_not_to_commit_any_longer_is_not_asked(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer()
    delivered(committing_site(site, pacs))
    later = site(peers=peers(pacs.port))
    assert commitments.ask(later.context) == 0
    assert pacs.transactions == []
    assert later.delivery().stage is DeliveryStage.DELIVERED


def report_event(
    made: Site, ds: Dataset, event_type: int = 1, scp_roles: Sequence[str] = (StorageCommitmentPushModel,)
) -> int:
    """The status that the node answers to a result on an association that a PACS opens."""
    ae = dimse.Entity("PACS", dimse.Timeouts(5, 5, 5))
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = StorageCommitmentPushModel, INSTANCE_UID
    report.EventTypeID = event_type
    with dimse.associate(ae, made.address, CONTEXTS, scp_roles=scp_roles) as assoc:
        context = assoc.contexts_of(StorageCommitmentPushModel, as_scu=False)[0]
        assert context.as_scp == bool(scp_roles)
        [(answer, _)] = assoc.ask(report, context, ds)
    return int(answer.Status)


@pytest.mark.parametrize("scp_roles", [(StorageCommitmentPushModel,), ()])
def test_a_result_is_taken_on_an_association_with_role_selection_and_without(
    site: SiteFactory, peer: PeerFactory, scp_roles: Sequence[str]
) -> None:
    pacs = peer(fault=Fault.NO_COMMITMENT)
    made = committing_site(site, pacs)
    delivered(made)
    commitments.ask(made.context)
    item = (str(CTImageStorage), made.delivery().sop_instance_uid)
    result = commitment.result_dataset(Result(pacs.transactions[0], (item,)))
    assert report_event(made, result, scp_roles=scp_roles) == 0x0000
    assert made.delivery().stage is DeliveryStage.COMMITTED


def test_a_commitment_for_a_transaction_that_we_do_not_know_is_answered_with_a_failure_and_changes_nothing(
    site: SiteFactory, peer: PeerFactory
) -> None:
    pacs = peer(fault=Fault.NO_COMMITMENT)
    made = committing_site(site, pacs)
    delivered(made)
    commitments.ask(made.context)
    item = (str(CTImageStorage), made.delivery().sop_instance_uid)
    assert report_event(made, commitment.result_dataset(Result("2.25.404", (item,)))) == 0x0115
    assert made.delivery().stage is DeliveryStage.DELIVERED
    assert report_event(made, commitment.result_dataset(Result(pacs.transactions[0], (item,))), event_type=3) == 0x0113
    nameless = Dataset()
    nameless.PatientID = "not a result"
    assert report_event(made, nameless) == 0x0115
    assert made.delivery().stage is DeliveryStage.DELIVERED


def test_a_commitment_that_names_another_object_is_a_failure(site: SiteFactory, peer: PeerFactory) -> None:
    pacs = peer(fault=Fault.NO_COMMITMENT)
    made = committing_site(site, pacs)
    delivered(made)
    commitments.ask(made.context)
    other = Result(pacs.transactions[0], ((str(CTImageStorage), "2.25.404"),))
    assert report_event(made, commitment.result_dataset(other)) == 0x0000
    assert made.delivery().stage is DeliveryStage.PENDING
    assert made.delivery().last_error == "not committed: the answer does not name the object"


# --- what is asked of us


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
