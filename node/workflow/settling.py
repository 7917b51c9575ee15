"""The verbs of the node's own process: settle, deliver, rescue.  Each is safe to repeat and to be killed in.

`Desk` holds what they work with; nothing in it matters after a crash.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from random import Random

import numpy as np

from ai.coverage import head_extent
from ai.errors import NotAnalysable
from ai.stack import Stack, stack_geometry
from ai.volume import subsampled_volume
from node.audit.recording import asking, sending
from node.audit.trail import Trail
from node.config.sections import Config
from node.dicom.commitment import new_transaction_uid
from node.errors import Refused, Unavailable, told
from node.rules import completion, eligibility
from node.rules.completion import Geometry, Sender, Wait, Whole
from node.rules.eligibility import Covered, NotEligible, Sibling, Turn
from node.runtime import log
from node.runtime.processes import has_died
from node.scu import dicomweb, dimse, stow
from storage.errors import Damaged
from storage.files.instances import Files
from storage.killpoints import here
from storage.records import Delivery, Header, Series, StoredFile
from storage.stages import Event, Outcome
from storage.store import Store


def utc_now() -> datetime:
    """The clock of a running node; tests pass their own."""
    return datetime.now(UTC)


@dataclass
class Desk:
    """What the verbs work with.  `wake_worker` is rung when a series has become ready."""

    config: Config
    store: Store
    files: Files
    wake_worker: Callable[[], None]
    clock: Callable[[], datetime] = utc_now
    random: Random = field(default_factory=Random)
    slices: dict[tuple[int, int, int], "Slices"] = field(default_factory=dict)
    """What was worked out of a series as it stood: (id, revision, instances)."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set: nothing more is begun."""
    lacking: dict[int, Series] = field(default_factory=dict)
    """The series, by id, whose sender is to be asked for what they may lack."""
    held: list[Callable[[datetime], None]] = field(default_factory=list)
    """How to give back what is leased to this process now."""
    trail: Trail = field(default_factory=Trail)
    """The audit trail of what is sent and asked."""

    @contextmanager
    def holding(self, give_back: Callable[[datetime], None]) -> Iterator[None]:
        """Should the node stop within, `give_back` makes due at once what would else wait for the end of its lease."""
        self.held.append(give_back)
        try:
            yield
        finally:
            self.held.remove(give_back)

    def give_back(self) -> None:
        """What this process had begun and not ended is due at once."""
        for give_back in tuple(self.held):
            give_back(self.clock())


class Slices:
    """The instances of a series at one moment, and what they show; each question is worked out once."""

    def __init__(self, load: Callable[[], list[tuple[Header, StoredFile]]], files: Files, margin_mm: float) -> None:
        """`load` gives the instances in any order."""
        self._load = load
        self._files = files
        self._margin_mm = margin_mm

    @cached_property
    def _instances(self) -> list[tuple[Header, StoredFile]]:
        return self._load()

    @property
    def headers(self) -> list[Header]:
        """Of every instance."""
        return [header for header, _ in self._instances]

    @property
    def is_multi_frame(self) -> bool:
        """One instance that holds the whole volume."""
        return len(self.headers) == 1 and self.headers[0].number_of_frames > 1

    @cached_property
    def stack(self) -> Stack | None:
        """The slices' geometry, None when they form no even stack."""
        nowhere = (np.nan,) * 3
        try:
            return stack_geometry(
                [header.position_mm or nowhere for header in self.headers],
                [header.orientation or nowhere * 2 for header in self.headers],
                frames_of_reference=[header.frame_of_reference_uid for header in self.headers],
            )
        except NotAnalysable:
            return None

    @cached_property
    def shows_both_ends(self) -> bool:
        """Whether the region around the circle of Willis lies inside the slices with a margin.

        Never of compressed slices: a codec that crashes would end the node here, and costs an attempt in the worker.
        """
        if self.stack is None:
            return False
        try:
            volume = subsampled_volume([self._files.path(file) for _, file in self._instances], self.stack)
            return head_extent(volume).covers_circle_of_willis(self._margin_mm)
        except Exception:  # noqa: BLE001  the edge: whatever cannot be read shows nothing, and the quiet timer decides
            return False

    @property
    def geometry(self) -> Geometry:
        """The questions as completion asks them."""
        return Geometry(lambda: self.is_multi_frame, lambda: self.stack is not None, lambda: self.shows_both_ends)


def settle(desk: Desk) -> int:
    """Every series that is whole has left RECEIVING; returns how many did.  One that fails does not stop the others."""
    receiving = desk.store.settling.receiving()
    known = {_key(series) for series in receiving}
    desk.slices = {key: slices for key, slices in desk.slices.items() if key in known}
    settled = 0
    for series in receiving:
        if desk.stopping.is_set():
            break
        try:
            settled += _settle_one(desk, series)
        except Exception as error:  # noqa: BLE001  the edge: the next beat tries this one again
            log.get().error("settle_failed", case=series.id, error=type(error).__name__)
    if settled:
        desk.wake_worker()
    return settled


def _settle_one(desk: Desk, series: Series) -> bool:
    contributions = desk.store.settling.contributions(series.id)
    if sum(part.instances for part in contributions) != series.instance_count:
        return False  # a slice came between the two reads; the next beat sees both
    slices = _slices(desk, series)
    verdict = completion.judge(
        series, contributions, _sender(desk, series), slices.geometry, desk.clock(), desk.config.completion
    )
    if isinstance(verdict, Whole):
        return _leave(desk, series, slices, verdict)
    if verdict.retrieve:
        desk.lacking[series.id] = series
    _ask_count(desk, series, verdict)
    return False


def _slices(desk: Desk, series: Series) -> Slices:
    if _key(series) not in desk.slices:
        load = partial(desk.store.settling.instances, series.id)
        desk.slices[_key(series)] = Slices(load, desk.files, desk.config.completion.coverage_margin_mm)
    return desk.slices[_key(series)]


def _key(series: Series) -> tuple[int, int, int]:
    return series.id, series.revision, series.instance_count


def _sender(desk: Desk, series: Series) -> Sender:
    found = desk.config.peer_named(series.calling_ae)
    retrieves = bool(found and found[1].retrieve)
    if found and found[1].series_on_one_association:
        return Sender(found[1].answers_queries, True, retrieves)
    enough = desk.config.completion.observed_series
    habit = completion.is_habit(desk.store.settling.habits(series.calling_ae, enough), enough)
    return Sender(bool(found and found[1].answers_queries), habit, retrieves)


def _ask_count(desk: Desk, series: Series, verdict: Wait) -> None:
    found = desk.config.peer_named(series.calling_ae)
    if not verdict.ask_count or found is None:
        return
    name, peer = found
    expected: int | None = None
    try:
        node, timeouts = desk.config.node, dimse.Timeouts(acse=3, dimse=5, network=5)
        uids = series.study_instance_uid, series.series_instance_uid
        with asking(desk.trail, desk.clock, peer, dimse.count_query(*uids)):
            if peer.url:
                with dicomweb.Service(peer, timeouts, node.tls) as service:
                    expected = dicomweb.ask_count(service, *uids)
            else:
                expected = dimse.ask_count(dimse.entity(node.ae_title, timeouts, node.tls), peer, *uids)
    except Exception as error:  # noqa: BLE001  the edge: an answer that cannot be had is none, and the quiet timer decides
        log.get().warning("count_unanswered", case=series.id, peer=name, error=told(error))
    desk.store.settling.note_expected_count(series.id, expected, desk.clock())
    log.get().info("count_asked", case=series.id, peer=name, expected=expected, instances=series.instance_count)


def _leave(desk: Desk, series: Series, slices: Slices, whole: Whole) -> bool:
    """The series is READY or set aside; False when it waits for another reconstruction, or a slice came meanwhile."""
    rules, now = desk.config.eligibility, desk.clock()
    spacing_mm = slices.stack.spacing_mm if slices.stack else None
    verdict = eligibility.judge(slices.headers, spacing_mm, rules, series.expected_count)
    if isinstance(verdict, NotEligible):
        return _decline(desk, series, whole, Outcome.NOT_ELIGIBLE, verdict.reason, verdict.detail)
    siblings = [
        Sibling(sibling, eligibility.is_sharp(header, rules))
        for sibling, header in desk.store.settling.siblings(series)
    ]
    quiet_since = desk.store.settling.last_arrival_in_study(series.study_instance_uid)
    mine = Sibling(series, eligibility.is_sharp(slices.headers[0], rules))
    turn = eligibility.choose(mine, siblings, quiet_since, now, rules)
    if turn is Turn.WAIT:
        return False
    if isinstance(turn, Covered):
        return _decline(desk, series, whole, Outcome.COVERED, "covered", f"by case {turn.by_case}")
    changed = desk.store.settling.leave(series, Event.SETTLED, whole.evidence, now)
    if changed:
        log.get().info("series_ready", case=series.id, revision=series.revision, evidence=whole.evidence)
    return changed


def _decline(desk: Desk, series: Series, whole: Whole, outcome: Outcome, reason: str, detail: str) -> bool:
    """The series ends without analysis; where the configuration wants a report on it, the worker writes one.

    Not on a result of ours that comes back: its report's summary would come back too, and so on.
    """
    log.get().info("series_not_analysed", case=series.id, outcome=outcome, reason=reason)
    wanted = desk.config.report.not_analysed == "always" and outcome is Outcome.NOT_ELIGIBLE
    reported = wanted and not desk.store.settling.holds_a_result_of_ours(series.id)
    event = Event.SETTLED if reported else Event.SET_ASIDE
    return desk.store.settling.leave(series, event, whole.evidence, desk.clock(), outcome, reason, detail)


def deliver(desk: Desk) -> int:
    """Every delivery that is due was tried once; returns how many were accepted.

    A destination that cannot take one now gets no other in this round: its timeouts must not hold up the others.
    """
    accepted = 0
    lease = timedelta(seconds=3 * desk.config.node.network_timeout_seconds)
    outbox, away = desk.store.outbox, set[str]()
    while not desk.stopping.is_set() and (delivery := outbox.claim_due(desk.clock(), lease, away)):
        with desk.holding(partial(outbox.give_back, delivery)):
            try:
                accepted += _deliver_one(desk, delivery)
            except Unavailable as error:
                _postpone(desk, delivery, str(error))
                away.add(delivery.destination)
    return accepted


def _deliver_one(desk: Desk, delivery: Delivery) -> bool:
    """Whether the destination has it.  Raises Unavailable when it cannot be had now."""
    settings, logger = desk.config.node, log.get().bind(case=delivery.series_id, destination=delivery.destination)
    timeouts = dimse.timeouts(settings)
    peer = desk.config.peers.get(delivery.destination)
    try:
        if peer is None:
            raise Refused(f"[peers.{delivery.destination}] is not configured")
        desk.files.verify(delivery.file)
        path = desk.files.path(delivery.file)
        with sending(desk.trail, desk.clock, peer, path):
            if peer.url:
                asked = partial(asking, desk.trail, desk.clock, peer)
                word = stow.deliver(peer, timeouts, settings.tls, path, asked)
            else:
                word = dimse.deliver(dimse.entity(settings.ae_title, timeouts, settings.tls), peer, path)
    except (Refused, Damaged) as error:
        desk.store.outbox.refused(delivery, str(error))
        logger.error("delivery_refused", error=str(error), attempts=delivery.attempts)
        return False
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, the other deliveries go on
        _postpone(desk, delivery, told(error))
        return False
    here("after_acceptance")
    transaction_uid = new_transaction_uid(desk.random) if peer.storage_commitment else None
    desk.store.outbox.accepted(delivery, desk.clock(), transaction_uid)
    logger.info("delivery_accepted", status=word, attempts=delivery.attempts)
    return True


def _postpone(desk: Desk, delivery: Delivery, error: str) -> None:
    """The delivery is due again later, or a dead letter after `give_up_hours`."""
    settings, now = desk.config.delivery, desk.clock()
    logger = log.get().bind(case=delivery.series_id, destination=delivery.destination, attempts=delivery.attempts)
    if now - delivery.created_at >= timedelta(hours=settings.give_up_hours):
        desk.store.outbox.refused(delivery, f"given up after {settings.give_up_hours:g} h: {error}")
        logger.error("delivery_given_up", error=error)
        return
    seconds = backoff_seconds(
        delivery.attempts, settings.first_retry_seconds, settings.maximum_retry_seconds, desk.random.random()
    )
    desk.store.outbox.postponed(delivery, error, now + timedelta(seconds=seconds))
    logger.warning("delivery_postponed", error=error, next_attempt_seconds=round(seconds, 1))


def backoff_seconds(attempts: int, first: float, maximum: float, jitter: float) -> float:
    """How long to wait after the nth attempt: doubling from `first` up to `maximum`, shortened by up to a quarter.

    `jitter` in 0..1 keeps many deliveries from knocking at once.
    """
    doubled = first * 2.0 ** min(attempts - 1, 32)
    return min(doubled, maximum) * (1.0 - 0.25 * jitter)


LEASE_SLACK_SECONDS = 30
"""The alarm kills a hung analysis before its lease ends."""


def rescue(desk: Desk) -> int:
    """What a dead worker held is ready again: at once on this host, else after its lease; returns how many."""
    _after_the_clock_was_set_back(desk)
    queue = desk.store.queue
    returned = queue.expire(desk.clock(), timedelta(seconds=desk.config.ai.time_limit_seconds + LEASE_SLACK_SECONDS))
    returned += sum(queue.give_back(worker, refund=False) for worker in queue.claimants() if has_died(worker))
    if returned:
        log.get().warning("claims_given_back", count=returned)
        desk.wake_worker()
    return returned


def _after_the_clock_was_set_back(desk: Desk) -> None:
    """Nothing waits for a time that the clock, set back meanwhile, will show only much later."""
    now, node, delivery, store = desk.clock(), desk.config.node, desk.config.delivery, desk.store
    longest_seconds = max(delivery.maximum_retry_seconds, 3 * node.network_timeout_seconds)
    answered_seconds = max(longest_seconds + LEASE_SLACK_SECONDS, delivery.commitment_timeout_seconds)
    changed = store.settling.stamp_anew(now) + store.outbox.hasten(now, timedelta(seconds=longest_seconds))
    for waiting in (store.commitments, store.commitment_requests):
        changed += waiting.hasten(now, timedelta(seconds=answered_seconds))
    if changed:
        log.get().warning("clock_was_set_back", count=changed)
