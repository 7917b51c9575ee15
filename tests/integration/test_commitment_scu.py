"""Storage commitment with real associations on loopback: what we ask of a peer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.config.sections import Config
from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID, Result
from node.scu import dimse
from node.simulated_pacs import Fault, SimulatedPeer
from node.workflow import commitments
from node.workflow.delivery import deliver
from storage.stages import DeliveryStage
from tests.support.builders import FakeClock
from tests.support.running import free_port, wait_until
from tests.support.site import NO_TLS_FILES, PeerFactory, Site, SiteFactory, peers


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitments, "SAME_ASSOCIATION_SECONDS", 0.5)


def committing_site(site: SiteFactory, pacs: SimulatedPeer, **sections: Any) -> Site:
    return site(peers=peers(pacs.port, storage_commitment=True), **sections)


def delivered(made: Site) -> None:
    made.report()
    assert deliver(made.context) == 1
    assert made.delivery().stage is DeliveryStage.DELIVERED


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
