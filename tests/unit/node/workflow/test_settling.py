"""The verbs with a real store, real files and a real peer on loopback; only the clock is made up."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, RawDataStorage, SecondaryCaptureImageStorage

from node.config.sections import Config
from node.rules import eligibility
from node.runtime import clock
from node.runtime.backoff import Backoff
from node.runtime.processes import worker_name
from node.simulated_pacs import Fault, SimulatedPeer
from node.workflow.context import Context
from node.workflow.delivery import deliver
from node.workflow.recovery import rescue
from node.workflow.settling import settle
from storage.files.instances import Files
from storage.queries.receiving import Settling
from storage.records import AssociationEnd, Contribution, Delivery, Missing, ReportObject, ResultObject, Series
from storage.stages import DeliveryStage, Outcome, Stage
from storage.store import Store
from tests.support.builders import (
    FakeClock,
    add,
    claimed,
    conclusion,
    finish,
    header,
    keep,
    next_attempt_at,
    ready,
    received,
    report_object,
    series_now,
)
from tests.support.dicom_factory import ct_series, enhanced_ct, save
from tests.support.made_up_head import head
from tests.support.running import free_port

PeerFactory = Callable[..., SimulatedPeer]


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """The verbs' SQL is the store's, which is tested on both databases."""
    return sqlite_store


class Office:
    """A desk and what stands around it."""

    def __init__(self, store: Store, files: Files, clock: FakeClock, **sections: Any) -> None:
        self.wakes: list[int] = []
        self.store, self.files, self.clock = store, files, clock
        rules = {"minimum_slices": 3, "maximum_spacing_mm": 3.0} | sections.pop("eligibility", {})
        self.context = Context(
            Config.model_validate(sections | {"eligibility": rules}),
            store, files, lambda: self.wakes.append(1), clock, Random(0),
        )  # fmt: skip

    def keep(self, datasets: Sequence[Dataset], **options: Any) -> Series:
        return keep(self.store, self.files, self.clock, datasets, **options)

    def settle_after(self, seconds: float) -> int:
        self.clock.advance(seconds)
        return settle(self.context)

    def row(self, case: int = 1) -> dict[str, Any]:
        row = self.store.worklist.case(str(case))
        assert row is not None
        return dict(row)

    def report(self, destinations: Sequence[str] = ("PACS",)) -> None:
        """A report of a case waits in the outbox."""
        claim = claimed(self.store, self.clock, series=f"2.25.{len(self.store.worklist.rows()) + 1}")
        [ds] = ct_series(1, SOPInstanceUID=f"2.25.77{claim.series.id}")
        [path] = save([ds], self.files.root.parent)
        written = self.files.write_report(ds.SOPInstanceUID, path.read_bytes())
        assert finish(
            self.store, self.clock, claim, report=ReportObject(ds.SOPInstanceUID, written), destinations=destinations
        )

    def delivery(self, case: int = 1) -> Delivery:
        return self.store.worklist.deliveries(case)[0]


@pytest.fixture
def office(store: Store, files: Files, clock: FakeClock) -> Callable[..., Office]:
    """Makes an office with these sections of the configuration."""
    return lambda **sections: Office(store, files, clock, **sections)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[PeerFactory]:
    """Starts simulated peers; they are gone after the test."""
    started: list[SimulatedPeer] = []

    def start(port: int = 0, **options: Any) -> SimulatedPeer:
        simulated = SimulatedPeer(tmp_path / f"peer{len(started)}", **options)
        simulated.port = simulated.start(port)
        started.append(simulated)
        return simulated

    yield start
    for simulated in started:  # each takes half a second, which nobody needs to wait for
        threading.Thread(target=simulated.stop, daemon=True).start()


def peers(port: int, **changes: Any) -> dict[str, Any]:
    return {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": port} | changes}


def quick(**changes: Any) -> dict[str, Any]:
    """Timeouts that a test can wait for."""
    return {"acse_timeout_seconds": 2, "dimse_timeout_seconds": 0.3, "network_timeout_seconds": 2} | changes


NO_TLS_FILES = {"certificate": "/nothing/node.pem", "key": "/nothing/node.key", "ca": "/nothing/ca.pem"}

# --- settle


def test_with_nothing_to_settle_nobody_is_woken(office: Callable[..., Office]) -> None:
    context = office()
    assert settle(context.context) == 0
    assert context.wakes == []


def test_without_evidence_the_quiet_timer_decides_and_the_worker_is_woken_once(office: Callable[..., Office]) -> None:
    context = office()
    context.keep(ct_series(3))
    assert context.settle_after(19.9) == 0
    assert (context.row()["stage"], context.wakes) == ("receiving", [])
    assert context.settle_after(0.1) == 1
    row = context.row()
    assert (row["stage"], row["evidence"], row["ready_at"]) == ("ready", "quiet", context.clock())
    assert context.wakes == [1]
    assert settle(context.context) == 0


def test_an_open_association_is_given_more_time(office: Callable[..., Office]) -> None:
    context = office()
    context.keep(ct_series(3), closed=None)
    assert context.settle_after(59.9) == 0
    assert context.settle_after(0.1) == 1


def test_a_peer_said_to_send_a_series_on_one_association_is_believed_at_once(office: Callable[..., Office]) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    context.keep(ct_series(3))
    assert settle(context.context) == 1
    assert context.row()["evidence"] == "one_association"


def test_a_peer_observed_to_send_a_series_on_one_association_is_believed(office: Callable[..., Office]) -> None:
    context = office(completion={"observed_series": 2})
    for number in (1, 2):
        ready(context.store, context.clock, series=f"2.25.{number}", study_instance_uid=f"2.25.9{number}")
    context.keep(ct_series(3, StudyInstanceUID="2.25.93"))
    assert settle(context.context) == 1
    assert context.row(3)["evidence"] == "one_association"


def test_a_gap_is_no_evidence_even_from_such_a_peer(office: Callable[..., Office]) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    series = ct_series(5)
    context.keep(series[:2] + series[3:])
    assert settle(context.context) == 0
    assert context.settle_after(20) == 1
    assert context.row()["evidence"] == "quiet"


def test_slices_without_a_position_are_no_evidence(office: Callable[..., Office]) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    context.keep(ct_series(3, ImagePositionPatient=None, ImageOrientationPatient=None))
    assert settle(context.context) == 0


def test_a_released_multi_frame_instance_is_whole(office: Callable[..., Office]) -> None:
    context = office()
    context.keep([enhanced_ct(ct_series(4))])
    assert settle(context.context) == 1
    assert context.row()["evidence"] == "multi_frame"


def head_series(low_mm: float = -75.0, high_mm: float = 110.0) -> list[Dataset]:
    """A head as CT slices 2 mm apart."""
    volume = head(low_mm, high_mm)
    depth, rows, columns = volume.hu_DHW.shape
    return ct_series(
        depth, spacing_mm=2.0, rows=rows, columns=columns, pixel_spacing_mm=(2.0, 2.0),
        origin_mm=tuple(volume.affine_lps[:3, 3]), hu=lambda index: volume.hu_DHW[index],
    )  # fmt: skip


def test_a_head_that_shows_both_ends_is_whole_at_once(office: Callable[..., Office]) -> None:
    context = office()
    context.keep(head_series())
    assert settle(context.context) == 1
    assert context.row()["evidence"] == "anatomy"


def test_the_lower_part_of_a_head_waits_for_the_rest(office: Callable[..., Office]) -> None:
    context = office()
    series = head_series()
    context.keep(series[: len(series) // 2])
    assert context.settle_after(5) == 0
    context.keep(series[len(series) // 2 :])
    assert context.settle_after(0.1) == 1
    assert context.row()["evidence"] == "anatomy"


def test_slices_that_cannot_be_read_are_no_evidence_and_the_quiet_timer_decides(office: Callable[..., Office]) -> None:
    context = office()
    series = context.keep(head_series())
    for _, file in context.store.settling.instances(series.id):
        context.files.discard(file)
    assert context.settle_after(1) == 0
    assert context.settle_after(19) == 1
    assert context.row()["evidence"] == "quiet"


def test_the_senders_count_decides_and_is_asked_once(office: Callable[..., Office], peer: PeerFactory) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port, answers_queries=True))
    series = ct_series(5)
    pacs.held[series[0].StudyInstanceUID][series[0].SeriesInstanceUID] = {ds.SOPInstanceUID for ds in series}
    context.keep(series[:3])
    assert context.settle_after(0.1) == 0
    assert (series_now(context.store, "2.25.1002").expected_count, context.row()["stage"]) == (5, "receiving")
    pacs.stop()
    assert context.settle_after(1) == 0
    context.keep(series[3:], closed=None)
    assert settle(context.context) == 1
    assert context.row()["evidence"] == "count"


@pytest.mark.parametrize(
    ("sop_class", "evidence", "missing"),
    [
        (RawDataStorage, "count", Missing(0, 1)),
        (CTImageStorage, "quiet", Missing(1, 0)),
        ("", "quiet", Missing(0, 0)),
    ],
)
def test_of_what_a_sender_counts_only_slices_are_waited_for(
    office: Callable[..., Office], peer: PeerFactory, sop_class: str, evidence: str, missing: Missing
) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port, answers_queries=True))
    series = ct_series(5)
    held = pacs.held[series[0].StudyInstanceUID][series[0].SeriesInstanceUID]
    held |= {*(ds.SOPInstanceUID for ds in series), "2.25.66"}
    pacs.classes["2.25.66"] = sop_class
    context.keep(series)
    assert [context.settle_after(0.1), context.settle_after(2)] == [0, 0]
    assert context.settle_after(0.1 if evidence == "count" else 20) == 1
    assert (context.row()["evidence"], series_now(context.store, "2.25.1002").missing) == (evidence, missing)
    assert context.row()["stage"] == "ready"


def test_a_series_that_broke_off_is_reported_with_its_counts(office: Callable[..., Office]) -> None:
    context = office(eligibility={"minimum_slices": 10})
    context.keep(ct_series(5), closed=AssociationEnd.ABORTED)
    assert context.settle_after(20) == 1
    row = context.row()
    assert (row["stage"], row["outcome"], row["reason"]) == ("ready", "not_analysed", "incomplete")
    assert row["detail"] == "5 slices came, then the association was aborted"


def test_a_peer_that_gives_no_answer_is_not_asked_again_for_the_same_slices(office: Callable[..., Office]) -> None:
    context = office(peers=peers(free_port(), answers_queries=True))
    context.keep(ct_series(3))
    asked_at = context.clock.advance(0.1)
    assert settle(context.context) == 0
    assert series_now(context.store).count_asked_at == asked_at
    assert context.settle_after(1) == 0
    assert series_now(context.store).count_asked_at == asked_at
    assert context.settle_after(19) == 1
    assert context.row()["evidence"] == "quiet"


def test_certificates_that_cannot_be_used_leave_the_end_of_a_series_to_the_quiet_timer(
    office: Callable[..., Office],
) -> None:
    context = office(peers=peers(free_port(), answers_queries=True, tls=True), node={"tls": NO_TLS_FILES})
    context.keep(ct_series(3))
    asked_at = context.clock.advance(0.1)
    assert settle(context.context) == 0
    assert series_now(context.store).count_asked_at == asked_at
    assert context.settle_after(20) == 1
    assert context.row()["evidence"] == "quiet"


def test_a_peer_that_holds_another_number_postpones_the_end_to_the_quiet_timer(
    office: Callable[..., Office], peer: PeerFactory
) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port, answers_queries=True, series_on_one_association=True))
    series = ct_series(5)
    pacs.held[series[0].StudyInstanceUID][series[0].SeriesInstanceUID] = {ds.SOPInstanceUID for ds in series}
    received_series = ct_series(3, SeriesInstanceUID=series[0].SeriesInstanceUID)
    context.keep([*received_series[:1], received_series[2]])  # uneven, so that the count is asked for
    context.settle_after(0.1)
    context.keep(received_series[1:2])
    assert context.settle_after(1) == 0
    assert context.settle_after(1) == 0  # of which kind the others are is asked too
    assert context.settle_after(18) == 1
    assert (context.row()["evidence"], series_now(context.store).expected_count) == ("quiet", 5)


def test_an_ineligible_series_is_set_aside_with_its_reason_and_nobody_reports_it(
    office: Callable[..., Office],
) -> None:
    context = office()
    context.keep(ct_series(2))
    assert context.settle_after(20) == 1
    row = context.row()
    assert (row["stage"], row["outcome"], row["reason"], row["detail"]) == (
        "set_aside", "not_eligible", "too_few_slices", "2 slices, at least 3 wanted",
    )  # fmt: skip


def test_where_every_series_is_reported_the_worker_gets_the_ineligible_ones_too(
    office: Callable[..., Office],
) -> None:
    context = office(report={"not_analysed": "always"})
    context.keep(ct_series(2))
    context.settle_after(20)
    row = context.row()
    assert (row["stage"], row["outcome"], row["reason"]) == ("ready", "not_eligible", "too_few_slices")


def test_our_own_summary_that_comes_back_is_set_aside_even_where_every_series_is_reported(
    office: Callable[..., Office],
) -> None:
    context = office(report={"not_analysed": "always"})
    claim = claimed(context.store, context.clock, series="2.25.1")
    [summary] = ct_series(1, SOPInstanceUID="2.25.78")
    summary.SOPClassUID = SecondaryCaptureImageStorage
    beside = ResultObject("summary", "2.25.78", context.files.write_report("2.25.78", b"summary"), ("PACS",))
    report = report_object("2.25.77")
    assert context.store.queue.finish(claim, conclusion(), report, ["PACS"], context.clock(), [beside])
    context.keep([summary])
    context.settle_after(20)
    row = context.row(2)
    assert (row["stage"], row["outcome"], row["reason"]) == ("set_aside", "not_eligible", "secondary_capture")


def test_slices_too_far_apart_are_measured_on_their_positions(office: Callable[..., Office]) -> None:
    context = office()
    context.keep(ct_series(4, spacing_mm=5.0, SpacingBetweenSlices=0.5))
    context.settle_after(20)
    assert (context.row()["reason"], context.row()["detail"]) == (
        "slices_too_far_apart", "5.00 mm apart, at most 3 mm wanted",
    )  # fmt: skip


def two_kernels(context: Office) -> None:
    """A sharp series 1 and a soft series 2 of one acquisition."""
    for uid, kernel in (("2.25.1", "H60s"), ("2.25.2", "H20f")):
        received(context.store, context.clock, series=uid, convolution_kernel=kernel)


def test_of_two_reconstructions_the_soft_one_is_analysed_and_covers_the_sharp_one(
    office: Callable[..., Office],
) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    two_kernels(context)
    assert settle(context.context) == 1
    assert [context.row(case)["stage"] for case in (1, 2)] == ["receiving", "ready"]
    assert context.settle_after(60) == 0
    claim = context.store.queue.claim("w", context.clock(), timedelta(seconds=60), 3)
    assert claim is not None
    assert context.settle_after(1) == 0
    finish(context.store, context.clock, claim, Outcome.NEGATIVE)
    assert context.settle_after(1) == 1
    row = context.row(1)
    assert (row["stage"], row["outcome"], row["reason"], row["detail"]) == (
        "set_aside", "covered", "covered", "by case 2",
    )  # fmt: skip


def test_a_covered_series_is_never_reported(office: Callable[..., Office]) -> None:
    context = office(peers=peers(104, series_on_one_association=True), report={"not_analysed": "always"})
    two_kernels(context)
    settle(context.context)
    claim = context.store.queue.claim("w", context.clock(), timedelta(seconds=60), 3)
    assert claim is not None
    finish(context.store, context.clock, claim, Outcome.NEGATIVE)
    settle(context.context)
    assert context.row(1)["stage"] == "set_aside"


def test_a_sharp_series_alone_is_analysed_once_the_study_is_quiet(office: Callable[..., Office]) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    received(context.store, context.clock, convolution_kernel="H60s")
    assert context.settle_after(19.9) == 0
    assert context.settle_after(0.1) == 1
    assert context.row()["stage"] == "ready"


def test_a_slice_between_the_two_reads_leaves_the_series_to_the_next_beat(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    received(context.store, context.clock)
    with monkeypatch.context() as patched:
        patched.setattr(Settling, "contributions", lambda _self, _id: [Contribution(1, 4, AssociationEnd.RELEASED)])
        assert settle(context.context) == 0
    assert settle(context.context) == 1


def test_a_slice_that_comes_while_a_series_is_judged_keeps_it_receiving(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = office(peers=peers(104, series_on_one_association=True))
    received(context.store, context.clock)
    judge = eligibility.ineligibility

    def judged_late(*arguments: Any) -> Any:
        add(context.store, context.clock, header(4))
        return judge(*arguments)

    monkeypatch.setattr(eligibility, "ineligibility", judged_late)
    assert settle(context.context) == 0
    assert context.wakes == []
    assert series_now(context.store).stage is Stage.RECEIVING


def test_a_series_that_cannot_be_settled_does_not_stop_the_others(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = office()
    for uid in ("2.25.1", "2.25.2", "2.25.3"):
        received(context.store, context.clock, series=uid)
    judge = eligibility.ineligibility

    def broken(headers: Any, *arguments: Any) -> Any:
        if headers[0].series_instance_uid == "2.25.1":
            raise IndexError("Doe^Jane")
        return judge(headers, *arguments)

    monkeypatch.setattr(eligibility, "ineligibility", broken)
    assert context.settle_after(60) == 1
    assert [context.row(case)["stage"] for case in (1, 2, 3)] == ["receiving", "ready", "receiving"]
    said = "".join(capsys.readouterr())
    assert "settle_failed" in said
    assert "IndexError" in said
    assert "Doe" not in said


def test_what_was_worked_out_of_a_series_is_kept_only_as_long_as_it_stands(office: Callable[..., Office]) -> None:
    context = office()
    context.keep(ct_series(3))
    settle(context.context)
    assert list(context.context.slices) == [(1, 1, 3)]
    kept = context.context.slices[1, 1, 3]
    settle(context.context)
    assert context.context.slices[1, 1, 3] is kept
    received(context.store, context.clock, series="2.25.1002", count=1, first=9)
    settle(context.context)
    assert list(context.context.slices) == [(1, 1, 4)]
    context.settle_after(20)
    settle(context.context)
    assert context.context.slices == {}


# --- deliver


def test_a_report_arrives_at_the_peer_byte_for_byte_and_is_delivered(
    office: Callable[..., Office], peer: PeerFactory
) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port))
    context.report()
    assert deliver(context.context) == 1
    delivery = context.delivery()
    assert (delivery.stage, delivery.attempts, delivery.delivered_at) == (DeliveryStage.DELIVERED, 1, context.clock())
    [received_file] = pacs.folder.iterdir()
    sent, got = context.files.read(delivery.file), received_file.read_bytes()
    assert got[-500:] == sent[-500:]
    assert deliver(context.context) == 0
    assert len(pacs.requests) == 1


@pytest.mark.parametrize("status", [0x0111, 0x0107, 0xB000, 0xB006, 0xB007])
def test_a_duplicate_or_a_warning_is_delivered(office: Callable[..., Office], peer: PeerFactory, status: int) -> None:
    pacs = peer(fault=Fault.REFUSE, status=status)
    context = office(peers=peers(pacs.port))
    context.report()
    assert deliver(context.context) == 1
    assert context.delivery().stage is DeliveryStage.DELIVERED


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122, 0x0124])
def test_a_refusal_is_a_dead_letter_with_its_status(
    office: Callable[..., Office], peer: PeerFactory, status: int
) -> None:
    pacs = peer(fault=Fault.REFUSE, status=status)
    context = office(peers=peers(pacs.port))
    context.report()
    assert deliver(context.context) == 0
    assert (context.delivery().stage, context.delivery().last_error) == (DeliveryStage.DEAD, f"status 0x{status:04X}")
    context.clock.advance(10**6)
    assert deliver(context.context) == 0
    assert len(pacs.requests) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"fault": Fault.REFUSE, "status": 0xA700}, "status 0xA700"),
        ({"fault": Fault.REFUSE, "status": 0x0110}, "status 0x0110"),
        ({"fault": Fault.REJECT}, "rejected the association"),
        ({"fault": Fault.ABORT}, "no answer: the association ended or timed out"),
        ({"fault": Fault.SILENCE}, "no answer: the association ended or timed out"),
    ],
)
def test_what_may_pass_is_postponed_by_two_seconds_or_a_little_less(
    office: Callable[..., Office], peer: PeerFactory, options: dict[str, Any], error: str
) -> None:
    pacs = peer(**options)
    context = office(peers=peers(pacs.port), node=quick())
    context.report()
    assert deliver(context.context) == 0
    delivery = context.delivery()
    assert (delivery.stage, delivery.attempts) == (DeliveryStage.PENDING, 1)
    assert error in delivery.last_error
    assert delivery.next_attempt_at is not None
    assert 1.5 <= (delivery.next_attempt_at - context.clock()).total_seconds() <= 2.0
    pacs.stop()


def test_a_peer_that_is_down_gets_its_report_when_it_is_back(office: Callable[..., Office], peer: PeerFactory) -> None:
    port = free_port()
    context = office(peers=peers(port), node=quick())
    context.report()
    waits = []
    for _ in range(4):
        assert deliver(context.context) == 0
        due = next_attempt_at(context.store)
        assert due is not None
        waits.append((due - context.clock()).total_seconds())
        context.clock.now = due
    assert [low <= wait <= high for wait, (low, high) in zip(waits, [(1.5, 2), (3, 4), (6, 8), (12, 16)], strict=True)]
    assert waits == sorted(waits)
    assert waits[3] > 11
    pacs = peer(port)
    assert deliver(context.context) == 1
    assert (context.delivery().attempts, len(pacs.requests)) == (5, 1)


def test_after_the_configured_hours_it_is_given_up_with_the_last_error(office: Callable[..., Office]) -> None:
    context = office(peers=peers(free_port()), node=quick(), delivery={"give_up_hours": 24})
    context.report()
    context.clock.advance(24 * 3600 - 1)
    deliver(context.context)
    assert context.delivery().stage is DeliveryStage.PENDING
    context.clock.advance(600)
    deliver(context.context)
    assert context.delivery().stage is DeliveryStage.DEAD
    assert context.delivery().last_error.startswith("given up after 24 h: no association with PACS at 127.0.0.1:")


def test_a_revived_dead_letter_has_its_hours_again(office: Callable[..., Office], peer: PeerFactory) -> None:
    context = office(peers=peers(free_port()), node=quick(), delivery={"give_up_hours": 24})
    context.report()
    context.clock.advance(25 * 3600)
    deliver(context.context)
    [report] = context.store.worklist.reports(1)
    assert context.store.outbox.requeue(report["id"], context.clock()) == 1
    deliver(context.context)
    assert context.delivery().stage is DeliveryStage.PENDING


def test_a_destination_that_is_no_longer_configured_is_a_dead_letter(office: Callable[..., Office]) -> None:
    context = office()
    context.report(["GONE"])
    assert deliver(context.context) == 0
    assert (context.delivery().stage, context.delivery().last_error) == (
        DeliveryStage.DEAD, "[peers.GONE] is not configured",
    )  # fmt: skip


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_report_that_is_damaged_on_disk_is_never_sent(
    office: Callable[..., Office], peer: PeerFactory, damage: str
) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port))
    context.report()
    path = context.files.path(context.delivery().file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink() if damage == "missing" else path.write_bytes(content)
    assert deliver(context.context) == 0
    assert context.delivery().stage is DeliveryStage.DEAD
    assert pacs.requests == []


def test_everything_due_is_tried_and_one_failure_holds_nothing_up(
    office: Callable[..., Office], peer: PeerFactory
) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port), node=quick())
    context.report()
    context.report(["GONE", "PACS"])
    context.report()
    assert deliver(context.context) == 3
    assert [row["delivery"] for row in context.store.worklist.rows()] == ["delivered", "dead", "delivered"]


def test_certificates_that_cannot_be_used_hold_up_only_the_peers_with_tls(
    office: Callable[..., Office], peer: PeerFactory
) -> None:
    pacs = peer()
    secure = {"SECURE": {"ae_title": "SECURE", "host": "127.0.0.1", "port": free_port(), "tls": True}}
    context = office(peers=peers(pacs.port) | secure, node=quick(tls=NO_TLS_FILES))
    context.report(["SECURE"])
    context.report()
    assert deliver(context.context) == 1
    assert (context.delivery().stage, context.delivery(2).stage) == (DeliveryStage.PENDING, DeliveryStage.DELIVERED)
    assert context.delivery().last_error.startswith("[node.tls] certificate = '/nothing/node.pem'")
    assert context.delivery().next_attempt_at == context.clock() + timedelta(
        seconds=2 * (1 - 0.25 * Random(0).random())
    )


def test_a_failure_that_nobody_thought_of_postpones_its_own_delivery_and_is_given_up_at_last(
    office: Callable[..., Office], peer: PeerFactory
) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port), node=quick())
    context.report()
    context.report()
    path = context.files.path(context.delivery().file)
    path.unlink()
    path.mkdir()
    assert deliver(context.context) == 1
    assert (context.delivery().stage, context.delivery().last_error) == (DeliveryStage.PENDING, "Is a directory")
    context.clock.advance(72 * 3600)
    assert deliver(context.context) == 0
    assert (context.delivery().stage, context.delivery().last_error) == (
        DeliveryStage.DEAD, "given up after 72 h: Is a directory",
    )  # fmt: skip


def test_a_destination_that_is_away_is_tried_once_a_round_and_the_others_get_their_reports(
    office: Callable[..., Office], peer: PeerFactory
) -> None:
    pacs, away = peer(), {"AWAY": {"ae_title": "AWAY", "host": "127.0.0.1", "port": free_port()}}
    context = office(peers=peers(pacs.port) | away, node=quick())
    for destination in ("AWAY", "AWAY", "PACS", "AWAY", "PACS"):
        context.report([destination])
    assert deliver(context.context) == 2
    assert [context.delivery(case).attempts for case in (1, 2, 3, 4, 5)] == [1, 0, 1, 0, 1]
    assert deliver(context.context) == 0
    assert [context.delivery(case).attempts for case in (1, 2, 4)] == [1, 1, 0]  # what was tried waits its turn


def test_once_the_node_stops_nothing_more_is_begun(office: Callable[..., Office]) -> None:
    context = office(peers=peers(free_port()))
    context.report()
    context.context.stopping.set()
    assert deliver(context.context) == 0
    assert context.delivery().attempts == 0
    context.keep(ct_series(3), closed=None)
    assert context.settle_after(3600) == 0
    context.context.stopping.clear()
    assert settle(context.context) == 1


def test_a_delivery_that_another_sender_holds_is_left_to_it(office: Callable[..., Office], peer: PeerFactory) -> None:
    pacs = peer()
    context = office(peers=peers(pacs.port), node=quick())
    context.report()
    assert context.store.outbox.due.claim(context.clock(), timedelta(seconds=60)) is not None
    assert deliver(context.context) == 0
    context.clock.advance(60)
    assert deliver(context.context) == 1


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [
        (1, 0.0, 2.0), (2, 0.0, 4.0), (3, 0.0, 8.0), (9, 0.0, 512.0), (10, 0.0, 600.0), (11, 0.0, 600.0),
        (10_000, 0.0, 600.0), (1, 1.0, 1.5), (1, 0.5, 1.75), (50, 1.0, 450.0),
    ],
)  # fmt: skip
def test_the_wait_doubles_up_to_its_maximum_and_is_shortened_by_up_to_a_quarter(
    attempts: int, jitter: float, seconds: float
) -> None:
    assert Backoff(2.0, 600.0).after(attempts, jitter) == pytest.approx(seconds)


def test_a_day_of_attempts_fits_into_the_backoff() -> None:
    waited, attempts = 0.0, 0
    while waited < 24 * 3600:
        attempts += 1
        waited += Backoff(2.0, 600.0).after(attempts, 0.5)
    assert 100 < attempts < 250


# --- rescue


def test_what_a_dead_worker_held_is_ready_again_and_the_worker_is_woken(office: Callable[..., Office]) -> None:
    context = office()
    claimed(context.store, context.clock)
    assert rescue(context.context) == 0
    assert context.wakes == []
    context.clock.advance(60.1)
    assert rescue(context.context) == 1
    assert (series_now(context.store).stage, context.wakes) == (Stage.READY, [1])


def test_what_a_worker_of_this_host_held_when_it_died_is_ready_again_at_once(office: Callable[..., Office]) -> None:
    context = office()
    with subprocess.Popen(["true"]) as dead:
        pass
    claimed(context.store, context.clock, worker=worker_name(dead.pid))
    assert rescue(context.context) == 1
    assert series_now(context.store).stage is Stage.READY
    assert series_now(context.store).attempts == 1


@pytest.mark.parametrize(
    "worker",
    [worker_name(os.getpid()), worker_name(1), "elsewhere:4194304", "elsewhere", ""],
    ids=("ours", "init", "of another host", "no number", "nameless"),
)
def test_a_worker_that_may_be_alive_keeps_its_claim(office: Callable[..., Office], worker: str) -> None:
    context = office()
    claimed(context.store, context.clock, worker=worker)
    assert rescue(context.context) == 0
    assert series_now(context.store).stage is Stage.ANALYSING


@pytest.mark.parametrize("back_seconds", [0, 86_400])
def test_a_clock_that_is_set_back_holds_up_no_storage_commitment(
    office: Callable[..., Office], back_seconds: int
) -> None:
    context = office()
    context.report()
    lease = timedelta(seconds=92)
    delivery = context.store.outbox.due.claim(context.clock(), lease)
    assert delivery is not None
    context.store.outbox.accepted(delivery, context.clock(), "2.25.5")
    asked = context.store.commitments.due.claim(context.clock(), lease)
    assert asked is not None
    timeout = timedelta(seconds=context.context.config.delivery.commitment_timeout_seconds)
    context.store.commitments.asked(asked, context.clock(), context.clock() + timeout)
    instances = (("1.2.840.10008.5.1.4.1.1.2", "2.25.1.1"),)
    assert context.store.commitment_requests.add("2.25.6", "CT1", instances, context.clock(), context.clock() + lease)
    context.clock.advance(-back_seconds)
    rescue(context.context)
    is_due = bool(back_seconds)
    assert (context.store.commitments.due.claim(context.clock(), lease) is not None) is is_due
    assert (context.store.commitment_requests.due.claim(context.clock(), lease) is not None) is is_due


def test_the_clock_of_a_running_node_tells_utc() -> None:
    assert clock.utc_now().utcoffset() == timedelta(0)
