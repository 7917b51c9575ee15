"""Every series that is whole leaves RECEIVING: to be analysed, or set aside.  Safe to repeat and to be killed in."""

from functools import partial

from node.audit.recording import asking
from node.errors import told
from node.rules import completion, eligibility
from node.rules.completion import Sender, Wait, Whole
from node.rules.eligibility import Covered, NotEligible, Sibling, Turn
from node.runtime import log
from node.scu import dicomweb, dimse, query_scu
from node.workflow.context import Desk
from node.workflow.series_view import Slices
from storage.records import Series
from storage.stages import Event, Outcome


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
        with asking(desk.trail, desk.clock, peer, query_scu.count_query(*uids)):
            if peer.url:
                with dicomweb.Service(peer, timeouts, node.tls) as service:
                    expected = dicomweb.ask_count(service, *uids)
            else:
                expected = query_scu.ask_count(dimse.entity(node.ae_title, timeouts, node.tls), peer, *uids)
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
