"""The canary: over DIMSE from the node to itself, seen by nobody, judged, timed, and removed."""

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from node.config.sections import Config
from node.rules.access import Caller, Refusal, refusal
from node.rules.health import Verdict
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from node.scp.receiver import Receiver
from node.workflow import canary, retention
from node.workflow.context import Context
from node.workflow.health import health_of
from storage.conditions import Level
from storage.database.schema import DeliveryRow, RemovalRow
from storage.files.instances import Files
from storage.records import Claim, LesionRecord
from storage.running import Process
from storage.stages import Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, conclusion, keep, ready, report_object, series_now
from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import SHIPPED, NodeFactory, node_in, positive_series, without_finding
from tests.support.running import free_port, wait_until

__all__ = ["node_in", "positive_series", "without_finding"]
LEFT_MCA = "Left Middle Cerebral Artery"
PAINTED = {"location": LEFT_MCA, "centre_lps_mm": [45.09, 14.66, -31.37]}
"""Of `willis demo`'s positive study."""
RIGHT = LesionRecord(LEFT_MCA, 0.9, (45.0, 14.0, -31.0), 8.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(utc_now())


@pytest.fixture
def context(tmp_path: Path, sqlite_url: str, clock: FakeClock) -> Iterator[Context]:
    """A node that receives, with a canary of six slices every ten minutes, and everybody configured to get reports."""
    folder = tmp_path / "files"
    values = {
        "node": {"port": free_port(), "allowed_calling_ae": ["PACS"], "network_timeout_seconds": 5},
        "storage": {"directory": folder, "database_url": sqlite_url},
        "delivery": {"default_destination": "PACS"},
        "canary": {"minutes": 10, "late_seconds": 60},
        "web": {"enabled": False},
        "peers": {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}},
    }
    made = Context(Config.model_validate(values), Store.open(sqlite_url), Files(folder), lambda: None, clock)
    series = folder / "canary" / "series"
    series.mkdir(parents=True)
    save(ct_series(6), series)
    (series / "painted.json").write_text(json.dumps(PAINTED))
    receiver = Receiver(made.config, made.store, made.files, lambda: None)
    receiver.start()
    Heartbeat(made.store.processes, "receive", folder)._beat()
    yield made
    receiver.stop()
    made.store.close()


def uid_of(context: Context) -> str:
    run = context.store.canaries.last()
    assert run is not None
    return run.series_instance_uid


def claimed_canary(context: Context) -> Claim:
    """The canary was sent, settled and claimed."""
    canary.look_after(context)
    series = series_now(context.store, uid_of(context))
    assert (series.canary, series.instance_count, series.calling_ae) == (True, 6, "WILLIS")
    assert context.store.settling.leave(series, Event.SETTLED, "quiet", context.clock())
    claim = context.store.queue.claim("worker:1", context.clock(), LEASE, 3)
    assert claim is not None
    return claim


def answered(context: Context, claim: Claim, *lesions: LesionRecord) -> None:
    """The worker has ended it, with a report for everybody."""
    outcome = Outcome.POSITIVE if lesions else Outcome.NEGATIVE
    what = conclusion(outcome, lesions=lesions, notify=bool(lesions))
    assert context.store.queue.finish(claim, what, report_object(), ("PACS",), context.clock())


def seen_anywhere(context: Context) -> list[str]:
    """Where people, peers and programs would meet a case."""
    store, now = context.store, context.clock()
    since = now - timedelta(days=1)
    everywhere = {
        "worklist": store.worklist.rows(),
        "case": [row for row in [store.worklist.case(uid_of(context))] if row],
        "triage": store.triage.cases(),
        "query": store.cfind.find(Level.STUDY, {}, 10) + store.cfind.find(Level.SERIES, {}, 10),
        "counts": [each for each in store.worklist.counts().stages.values() if each],
        "reported": list(store.statistics.since(since).reported),
        "notified": store.notifications.unacknowledged(since) + store.notifications.late(now, since),
        "counted": list(store.tally.all()),
        "owed": [each for each in [store.outbox.due.claim(now + timedelta(days=1), LEASE)] if each],
        "aged": store.retention.candidates(now + timedelta(days=1), 10),
    }
    with store.transactions.reading() as session:
        everywhere["deliveries"] = list(session.query(DeliveryRow))
    return [where for where, found in everywhere.items() if found]


def test_a_right_answer_is_timed_and_seen_by_nobody_and_nothing_of_it_is_left(
    context: Context, clock: FakeClock
) -> None:
    claim = claimed_canary(context)
    assert seen_anywhere(context) == []
    clock.advance(7)
    answered(context, claim, RIGHT)
    assert seen_anywhere(context) == []
    canary.look_after(context)
    run = context.store.canaries.last()
    assert run is not None
    assert (run.trouble, round(run.seconds or 0)) == ("", 7)
    assert [each for each in health_of(context.config, clock()).reasons if each.about == "canary"] == []
    canary.look_after(context)
    assert context.store.canaries.left() == []
    retention.retain(context)
    assert not [path for path in context.files.root.rglob("*.dcm") if "canary" not in path.parts]
    with context.store.transactions.reading() as session:
        assert session.query(RemovalRow).count() == 0
    assert uid_of(context) == claim.series.series_instance_uid, "the next one is not due"
    clock.advance(600)
    canary.look_after(context)
    assert uid_of(context) != claim.series.series_instance_uid


@pytest.mark.parametrize(
    ("lesions", "seconds", "said"),
    [
        ((), 5, "the answer is negative"),
        ((LesionRecord("Other Posterior Circulation", 0.9, (45.0, 14.0, -31.0), 8.0),), 5, "the findings are at Other"),
        ((LesionRecord(RIGHT.location, 0.9, (45.0, 14.0, -21.0), 8.0),), 5, "the finding lies 10.4 mm"),
        ((RIGHT,), 61, "it took 61 s"),
    ],
)
def test_a_wrong_or_late_answer_makes_the_node_degraded(
    context: Context, clock: FakeClock, lesions: tuple[LesionRecord, ...], seconds: float, said: str
) -> None:
    claim = claimed_canary(context)
    clock.advance(seconds)
    answered(context, claim, *lesions)
    canary.look_after(context)
    [reason] = [each for each in health_of(context.config, clock()).reasons if each.about == "canary"]
    assert reason.verdict is Verdict.DEGRADED
    assert said in reason.message
    canary.look_after(context)
    assert context.store.canaries.left() == []


def test_one_that_is_not_answered_or_not_received_makes_the_node_degraded(context: Context, clock: FakeClock) -> None:
    canary.look_after(context)
    clock.advance(61)
    canary.look_after(context)
    [said] = [each.message for each in health_of(context.config, clock()).reasons if each.about == "canary"]
    assert "no answer after 61 s: it is receiving" in said
    clock.advance(600)
    canary.look_after(context)
    assert len(context.store.canaries.left()) == 1, "none is sent while one is left"
    series = series_now(context.store, uid_of(context))
    assert context.store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "localizer")
    canary.look_after(context)
    node = context.config.node.model_copy(update={"port": free_port()})
    context.config = context.config.model_copy(update={"node": node})
    canary.look_after(context)
    [said] = [each.message for each in health_of(context.config, clock()).reasons if each.about == "canary"]
    assert "it was not received: " in said


def test_none_is_sent_before_the_receiver_listens(context: Context) -> None:
    store = context.store
    store.processes.forget("receive", str(context.files.root.absolute()), lambda _host, _pid: True, context.clock())
    canary.look_after(context)
    assert store.canaries.last() is None
    Heartbeat(store.processes, "receive", context.files.root)._beat()
    canary.look_after(context)
    assert store.canaries.last() is not None


def test_a_patients_series_comes_first(context: Context, clock: FakeClock) -> None:
    real = keep(context.store, context.files, clock, ct_series(6, SeriesInstanceUID="2.25.5"))
    canary.look_after(context)
    assert context.store.canaries.last() is None, "none is sent while one is received"
    assert context.store.settling.leave(real, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "localizer")
    canary.look_after(context)
    series = series_now(context.store, uid_of(context))
    assert context.store.settling.leave(series, Event.SETTLED, "quiet", clock())
    clock.advance(5)
    ready(context.store, clock, series="2.25.6")
    assert context.store.queue.other_waits(None)
    order = [context.store.queue.claim("worker:1", clock(), LEASE, 3) for _ in range(2)]
    assert [each and each.series.canary for each in order] == [False, True]
    clock.advance(61)
    canary.look_after(context)
    assert [each for each in health_of(context.config, clock()).reasons if each.about == "canary"] == []


def canary_reasons(context: Context, clock: FakeClock, started_at: datetime) -> list[str]:
    """What health says of it while a node runs that started then."""
    process = Process("serve@elsewhere", "serve", "elsewhere", 7, str(context.files.root), started_at, clock())
    context.store.processes.beat(process)
    return [each.message for each in health_of(context.config, clock()).reasons if each.about == "canary"]


def test_one_that_never_has_its_turn_makes_the_node_degraded(context: Context, clock: FakeClock) -> None:
    started_at = clock()
    claim = claimed_canary(context)
    answered(context, claim, RIGHT)
    canary.look_after(context)
    canary.look_after(context)
    answered_at = clock()
    real = keep(context.store, context.files, clock, ct_series(6, SeriesInstanceUID="2.25.5"))
    clock.advance(6 * 3600)
    canary.look_after(context)
    assert canary_reasons(context, clock, started_at) == []
    clock.advance(60)
    canary.look_after(context)
    [said] = canary_reasons(context, clock, started_at)
    assert (
        f"no canary was answered since {answered_at:%Y-%m-%d %H:%M} UTC (none was sent: a patient's series was" in said
    )
    assert canary_reasons(context, clock, clock()) == [], "the node was away meanwhile, and has just begun"
    assert context.store.settling.leave(real, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "localizer")
    canary.look_after(context)
    ready(context.store, clock, series="2.25.6")
    canary.look_after(context)
    [said] = canary_reasons(context, clock, started_at)
    assert "1 was sent and gave way to patients' series" in said
    settings = context.config.canary.model_copy(update={"minutes": 0})
    context.config = context.config.model_copy(update={"canary": settings})
    assert canary_reasons(context, clock, started_at) == []


def test_after_a_kill_what_is_left_is_removed_and_says_nothing(context: Context, clock: FakeClock) -> None:
    claim = claimed_canary(context)
    clock.advance(3600)  # the node was away
    canary.resume(context)
    canary.look_after(context)
    assert len(context.store.canaries.left()) == 1, "it is in work still"
    answered(context, claim, RIGHT)
    canary.look_after(context)
    assert context.store.canaries.left() == [claim.series.id][:0]
    assert [each for each in health_of(context.config, clock()).reasons if each.about == "canary"] == []


def test_only_what_was_recorded_before_is_one_whoever_sends_it(context: Context, clock: FakeClock) -> None:
    series = keep(context.store, context.files, clock, ct_series(6, PatientID="WILLIS-CANARY"), calling_ae="WILLIS")
    assert not series.canary
    assert len(context.store.worklist.rows()) == 1


@pytest.mark.parametrize(
    ("host", "minutes", "why"),
    [("127.0.0.1", 10, None), ("10.0.0.7", 10, Refusal.CALLING_AE), ("127.0.0.1", 0, Refusal.CALLING_AE)],
)
def test_the_node_may_call_itself_from_its_own_host_alone(
    context: Context, host: str, minutes: float, why: Refusal | None
) -> None:
    settings = context.config.canary.model_copy(update={"minutes": minutes})
    config = context.config.model_copy(update={"canary": settings})
    assert refusal(config, Caller("WILLIS", "WILLIS", host)) is why


def test_a_canary_that_cannot_be_painted_is_a_reason_and_is_tried_again_after_its_time(
    context: Context, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(context.config.storage.directory / "canary" / "series")
    monkeypatch.setattr("sys.executable", "/bin/false")
    canary.look_after(context)
    [reason] = [each for each in health_of(context.config, clock()).reasons if each.about == "canary"]
    assert "could not be painted" in reason.message and reason.verdict is Verdict.DEGRADED
    first = uid_of(context)
    canary.look_after(context)
    assert uid_of(context) == first
    clock.advance(601)
    canary.look_after(context)
    assert uid_of(context) != first


def test_a_node_of_its_own_finds_the_painted_aneurysm(
    node_in: NodeFactory, positive_series: list[Path], unmeasured_children: None
) -> None:
    node = node_in(
        start=False, canary__minutes="60", canary__late_seconds="120", completion__quiet_seconds="2", **SHIPPED
    )
    series = node.config.storage.directory / "canary" / "series"
    series.mkdir(parents=True)
    for path in positive_series:
        shutil.copy(path, series)
    (series / "painted.json").write_text(json.dumps(PAINTED))
    node.start()
    run = wait_until(
        lambda: (last := node.store.canaries.last()) and last.ended_at and last, 120, "the canary's answer"
    )
    assert run.trouble == ""
    assert 0 < run.seconds < 120
    wait_until(lambda: node.store.canaries.left() == [], 30, "it is removed")
    assert node.store.worklist.rows() == []
    assert not list((node.folder / "pacs").glob("*.dcm"))
    assert node.store.worklist.counts().stages.get(Stage.REPORTED, 0) == 0
