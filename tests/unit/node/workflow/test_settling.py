"""When a series is taken to be whole, and what becomes of it then."""

from datetime import timedelta
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, RawDataStorage, SecondaryCaptureImageStorage

from node.rules import eligibility
from node.workflow.settling import settle
from storage.queries.receiving import Settling
from storage.records import AssociationEnd, Contribution, Missing, ResultObject
from storage.stages import Outcome, Stage
from tests.support.builders import (
    add,
    claimed,
    conclusion,
    finish,
    header,
    ready,
    received,
    report_object,
    series_now,
)
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.made_up_head import head
from tests.support.running import free_port
from tests.support.site import NO_TLS_FILES, PeerFactory, Workflow, WorkflowFactory, peers


def test_with_nothing_to_settle_nobody_is_woken(workflow: WorkflowFactory) -> None:
    context = workflow()
    assert settle(context.context) == 0
    assert context.woken == 0


def test_without_evidence_the_quiet_timer_decides_and_the_worker_is_woken_once(workflow: WorkflowFactory) -> None:
    context = workflow()
    context.keep(ct_series(3))
    assert context.settle_after(19.9) == 0
    assert (context.row()["stage"], context.woken) == ("receiving", 0)
    assert context.settle_after(0.1) == 1
    row = context.row()
    assert (row["stage"], row["evidence"], row["ready_at"]) == ("ready", "quiet", context.clock())
    assert context.woken == 1
    assert settle(context.context) == 0


def test_an_open_association_is_given_more_time(workflow: WorkflowFactory) -> None:
    context = workflow()
    context.keep(ct_series(3), closed=None)
    assert context.settle_after(59.9) == 0
    assert context.settle_after(0.1) == 1


def test_a_peer_said_to_send_a_series_on_one_association_is_believed_at_once(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
    context.keep(ct_series(3))
    assert settle(context.context) == 1
    assert context.row()["evidence"] == "one_association"


def test_a_peer_observed_to_send_a_series_on_one_association_is_believed(workflow: WorkflowFactory) -> None:
    context = workflow(completion={"observed_series": 2})
    for number in (1, 2):
        ready(context.store, context.clock, series=f"2.25.{number}", study_instance_uid=f"2.25.9{number}")
    context.keep(ct_series(3, StudyInstanceUID="2.25.93"))
    assert settle(context.context) == 1
    assert context.row(3)["evidence"] == "one_association"


def test_a_gap_is_no_evidence_even_from_such_a_peer(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
    series = ct_series(5)
    context.keep(series[:2] + series[3:])
    assert settle(context.context) == 0
    assert context.settle_after(20) == 1
    assert context.row()["evidence"] == "quiet"


def test_slices_without_a_position_are_no_evidence(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
    context.keep(ct_series(3, ImagePositionPatient=None, ImageOrientationPatient=None))
    assert settle(context.context) == 0


def test_a_released_multi_frame_instance_is_whole(workflow: WorkflowFactory) -> None:
    context = workflow()
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


def test_a_head_that_shows_both_ends_is_whole_at_once(workflow: WorkflowFactory) -> None:
    context = workflow()
    context.keep(head_series())
    assert settle(context.context) == 1
    assert context.row()["evidence"] == "anatomy"


def test_the_lower_part_of_a_head_waits_for_the_rest(workflow: WorkflowFactory) -> None:
    context = workflow()
    series = head_series()
    context.keep(series[: len(series) // 2])
    assert context.settle_after(5) == 0
    context.keep(series[len(series) // 2 :])
    assert context.settle_after(0.1) == 1
    assert context.row()["evidence"] == "anatomy"


def test_slices_that_cannot_be_read_are_no_evidence_and_the_quiet_timer_decides(workflow: WorkflowFactory) -> None:
    context = workflow()
    series = context.keep(head_series())
    for _, file in context.store.settling.instances(series.id):
        context.files.discard(file)
    assert context.settle_after(1) == 0
    assert context.settle_after(19) == 1
    assert context.row()["evidence"] == "quiet"


def test_the_senders_count_decides_and_is_asked_once(workflow: WorkflowFactory, peer: PeerFactory) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port, answers_queries=True))
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
    workflow: WorkflowFactory, peer: PeerFactory, sop_class: str, evidence: str, missing: Missing
) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port, answers_queries=True))
    series = ct_series(5)
    held = pacs.held[series[0].StudyInstanceUID][series[0].SeriesInstanceUID]
    held |= {*(ds.SOPInstanceUID for ds in series), "2.25.66"}
    pacs.classes["2.25.66"] = sop_class
    context.keep(series)
    assert [context.settle_after(0.1), context.settle_after(2)] == [0, 0]
    assert context.settle_after(0.1 if evidence == "count" else 20) == 1
    assert (context.row()["evidence"], series_now(context.store, "2.25.1002").missing) == (evidence, missing)
    assert context.row()["stage"] == "ready"


def test_a_series_that_broke_off_is_reported_with_its_counts(workflow: WorkflowFactory) -> None:
    context = workflow(eligibility={"minimum_slices": 10})
    context.keep(ct_series(5), closed=AssociationEnd.ABORTED)
    assert context.settle_after(20) == 1
    row = context.row()
    assert (row["stage"], row["outcome"], row["reason"]) == ("ready", "not_analysed", "incomplete")
    assert row["detail"] == "5 slices came, then the association was aborted"


def test_a_peer_that_gives_no_answer_is_not_asked_again_for_the_same_slices(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(free_port(), answers_queries=True))
    context.keep(ct_series(3))
    asked_at = context.clock.advance(0.1)
    assert settle(context.context) == 0
    assert series_now(context.store).count_asked_at == asked_at
    assert context.settle_after(1) == 0
    assert series_now(context.store).count_asked_at == asked_at
    assert context.settle_after(19) == 1
    assert context.row()["evidence"] == "quiet"


def test_certificates_that_cannot_be_used_leave_the_end_of_a_series_to_the_quiet_timer(
    workflow: WorkflowFactory,
) -> None:
    context = workflow(peers=peers(free_port(), answers_queries=True, tls=True), node={"tls": NO_TLS_FILES})
    context.keep(ct_series(3))
    asked_at = context.clock.advance(0.1)
    assert settle(context.context) == 0
    assert series_now(context.store).count_asked_at == asked_at
    assert context.settle_after(20) == 1
    assert context.row()["evidence"] == "quiet"


def test_a_peer_that_holds_another_number_postpones_the_end_to_the_quiet_timer(
    workflow: WorkflowFactory, peer: PeerFactory
) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port, answers_queries=True, series_on_one_association=True))
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
    workflow: WorkflowFactory,
) -> None:
    context = workflow()
    context.keep(ct_series(2))
    assert context.settle_after(20) == 1
    row = context.row()
    assert (row["stage"], row["outcome"], row["reason"], row["detail"]) == (
        "set_aside", "not_eligible", "too_few_slices", "2 slices, at least 3 wanted",
    )  # fmt: skip


def test_where_every_series_is_reported_the_worker_gets_the_ineligible_ones_too(
    workflow: WorkflowFactory,
) -> None:
    context = workflow(report={"not_analysed": "always"})
    context.keep(ct_series(2))
    context.settle_after(20)
    row = context.row()
    assert (row["stage"], row["outcome"], row["reason"]) == ("ready", "not_eligible", "too_few_slices")


def test_our_own_summary_that_comes_back_is_set_aside_even_where_every_series_is_reported(
    workflow: WorkflowFactory,
) -> None:
    context = workflow(report={"not_analysed": "always"})
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


def test_slices_too_far_apart_are_measured_on_their_positions(workflow: WorkflowFactory) -> None:
    context = workflow()
    context.keep(ct_series(4, spacing_mm=5.0, SpacingBetweenSlices=0.5))
    context.settle_after(20)
    assert (context.row()["reason"], context.row()["detail"]) == (
        "slices_too_far_apart", "5.00 mm apart, at most 3 mm wanted",
    )  # fmt: skip


def two_kernels(context: Workflow) -> None:
    """A sharp series 1 and a soft series 2 of one acquisition."""
    for uid, kernel in (("2.25.1", "H60s"), ("2.25.2", "H20f")):
        received(context.store, context.clock, series=uid, convolution_kernel=kernel)


def test_of_two_reconstructions_the_soft_one_is_analysed_and_covers_the_sharp_one(
    workflow: WorkflowFactory,
) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
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


def test_a_covered_series_is_never_reported(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True), report={"not_analysed": "always"})
    two_kernels(context)
    settle(context.context)
    claim = context.store.queue.claim("w", context.clock(), timedelta(seconds=60), 3)
    assert claim is not None
    finish(context.store, context.clock, claim, Outcome.NEGATIVE)
    settle(context.context)
    assert context.row(1)["stage"] == "set_aside"


def test_a_sharp_series_alone_is_analysed_once_the_study_is_quiet(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
    received(context.store, context.clock, convolution_kernel="H60s")
    assert context.settle_after(19.9) == 0
    assert context.settle_after(0.1) == 1
    assert context.row()["stage"] == "ready"


def test_a_slice_between_the_two_reads_leaves_the_series_to_the_next_beat(
    workflow: WorkflowFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
    received(context.store, context.clock)
    with monkeypatch.context() as patched:
        patched.setattr(Settling, "contributions", lambda _self, _id: [Contribution(1, 4, AssociationEnd.RELEASED)])
        assert settle(context.context) == 0
    assert settle(context.context) == 1


def test_a_slice_that_comes_while_a_series_is_judged_keeps_it_receiving(
    workflow: WorkflowFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = workflow(peers=peers(104, series_on_one_association=True))
    received(context.store, context.clock)
    judge = eligibility.ineligibility

    def judged_late(*arguments: Any) -> Any:
        add(context.store, context.clock, header(4))
        return judge(*arguments)

    monkeypatch.setattr(eligibility, "ineligibility", judged_late)
    assert settle(context.context) == 0
    assert context.woken == 0
    assert series_now(context.store).stage is Stage.RECEIVING


def test_a_series_that_cannot_be_settled_does_not_stop_the_others(
    workflow: WorkflowFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = workflow()
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


def test_what_was_worked_out_of_a_series_is_kept_only_as_long_as_it_stands(workflow: WorkflowFactory) -> None:
    context = workflow()
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
