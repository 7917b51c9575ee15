"""Every series that is whole leaves RECEIVING: to be analysed, or set aside.  Safe to repeat and to be killed in."""

from functools import partial

from ai.errors import Reason
from node.config.sections import Eligibility
from node.dicom.conformance import CT_CLASSES
from node.errors import safe_message
from node.rules import completion, eligibility, parts
from node.rules.acquisitions import acquisition_of
from node.rules.completion import Sender, Wait, Whole
from node.rules.eligibility import Covered, NotEligible, Sibling, Turn
from node.rules.ineligible import Ineligible
from node.runtime import log
from node.runtime.job import still_working
from node.scu.dimse import Timeouts
from node.scu.remote import remote_of
from node.scu.source import Listed
from node.workflow.context import Context
from node.workflow.series_view import Slices
from storage.records import Header, Missing, Series
from storage.stages import Event, Outcome

_MAY_BE_A_PART = (Ineligible.TOO_FEW_SLICES, Ineligible.SLICES_TOO_FAR_APART)
"""What may be so only because the rest has not come."""
COUNT_TIMEOUTS = Timeouts(acse=3, dimse=5, network=5)
"""Whoever does not say so soon how many there are: the quiet timer decides."""

MOST_RECONSTRUCTIONS = 1000
"""So many are remembered between the rounds."""


def settle(context: Context) -> int:
    """Every series that is whole has left RECEIVING; returns how many did.  One that fails does not stop the others."""
    receiving = context.store.settling.receiving()
    known = {_key(series) for series in receiving}
    context.slices = {key: slices for key, slices in context.slices.items() if key in known}
    settled = 0
    for series in receiving:
        if context.stopping.is_set():
            break
        still_working()
        try:
            settled += _settle_one(context, series)
        except Exception as error:  # noqa: BLE001  the edge: the next run tries this one again
            log.get().error("settle_failed", case=series.id, error=type(error).__name__)
    if settled:
        context.wake_worker()
    return settled


def _settle_one(context: Context, series: Series) -> bool:
    contributions = context.store.settling.contributions(series.id)
    if sum(part.instances for part in contributions) != series.instance_count:
        return False  # a slice came between the two reads; the next run sees both
    slices = _slices(context, series)
    verdict = completion.assess(
        series, contributions, _sender(context, series), slices.geometry, context.clock(), context.config.completion
    )
    if isinstance(verdict, Whole):
        return _leave(context, series, slices, verdict)
    if verdict.retrieve:
        context.lacking[series.id] = series
    _ask_count(context, series, verdict)
    if verdict.ask_kinds:
        _ask_kinds(context, series)
    return False


def _slices(context: Context, series: Series) -> Slices:
    if _key(series) not in context.slices:
        load = partial(context.store.settling.instances, series.id)
        context.slices[_key(series)] = Slices(
            load, context.files, context.config.completion.coverage_margin_mm, context.config.eligibility
        )
    return context.slices[_key(series)]


def _key(series: Series) -> tuple[int, int, int]:
    return series.id, series.revision, series.instance_count


def _sender(context: Context, series: Series) -> Sender:
    found = context.config.peer_named(series.calling_ae)
    retrieves = bool(found and found[1].retrieve)
    if found and found[1].series_on_one_association:
        return Sender(found[1].answers_queries, True, retrieves)
    enough = context.config.completion.observed_series
    habit = completion.is_habit(context.store.settling.habits(series.calling_ae, enough), enough)
    return Sender(bool(found and found[1].answers_queries), habit, retrieves)


def _ask_count(context: Context, series: Series, verdict: Wait) -> None:
    found = context.config.peer_named(series.calling_ae)
    if not verdict.ask_count or found is None:
        return
    name, peer = found
    expected: int | None = None
    try:
        sender = remote_of(context.config, peer, context.trail, context.clock, COUNT_TIMEOUTS)
        expected = sender.count(series.study_instance_uid, series.series_instance_uid)
    except Exception as error:  # noqa: BLE001  the edge: an answer that cannot be had is none, and the quiet timer decides
        log.get().warning("count_unanswered", case=series.id, peer=name, error=safe_message(error))
    context.store.settling.note_expected_count(series.id, expected, context.clock())
    log.get().info("count_asked", case=series.id, peer=name, expected=expected, instances=series.instance_count)


def _ask_kinds(context: Context, series: Series) -> None:
    """What of the sender's count is not here is known to be slices or other objects, where it says so."""
    found = context.config.peer_named(series.calling_ae)
    if found is None:
        return
    name, peer = found
    lacks: Missing | None = None
    try:
        sender = remote_of(context.config, peer, context.trail, context.clock, COUNT_TIMEOUTS)
        listed = sender.instances(Listed(series.study_instance_uid, series.series_instance_uid))
        lacks = parts.missing(listed, context.store.settling.held(series.series_instance_uid)) if listed else None
    except Exception as error:  # noqa: BLE001  the edge: an answer that cannot be had is none, and the count decides
        log.get().warning("kinds_unanswered", case=series.id, peer=name, error=safe_message(error))
    context.store.settling.note_kinds(series.id, lacks, context.clock())
    log.get().info(
        "kinds_asked", case=series.id, peer=name, slices=lacks and lacks.slices, count=lacks and lacks.others
    )


def _leave(context: Context, series: Series, slices: Slices, whole: Whole) -> bool:
    """The series is READY or set aside; False when it waits for another reconstruction, or a slice came meanwhile."""
    rules, now = context.config.eligibility, context.clock()
    verdict = eligibility.ineligibility(slices.headers, rules, parts.lacking(series))
    if slices.holds_ct:
        is_short = verdict is not None and verdict.reason in _MAY_BE_A_PART
        endings = context.store.settling.endings(series, CT_CLASSES)
        if is_short and parts.is_under_way(endings, now):
            return False
        if part := parts.part_of(endings, now, is_short):
            incomplete = Reason.INCOMPLETE.value
            return _decline(context, series, whole, Outcome.NOT_ANALYSED, incomplete, part.detail)
    if isinstance(verdict, NotEligible):
        return _decline(context, series, whole, Outcome.NOT_ELIGIBLE, verdict.reason, verdict.detail)
    siblings = [_known_sibling(context, sibling) for sibling in context.store.settling.siblings(series)]
    quiet_since = context.store.settling.last_instance_in_study(series.study_instance_uid)
    turn = eligibility.choose(_sibling(series, slices.headers, rules), siblings, quiet_since, now, rules)
    if turn is Turn.WAIT:
        return False
    if isinstance(turn, Covered):
        return _decline(context, series, whole, Outcome.COVERED, "covered", f"by case {turn.by_case}")
    changed = context.store.settling.leave(series, Event.SETTLED, whole.evidence, now)
    if changed:
        log.get().info("series_ready", case=series.id, revision=series.revision, evidence=whole.evidence)
    return changed


def _known_sibling(context: Context, series: Series) -> Sibling:
    """Its headers are loaded once, as long as it stands as it does."""
    known, key = context.reconstructions, _key(series)
    if key not in known:
        if len(known) >= MOST_RECONSTRUCTIONS:
            known.clear()
        sibling = _sibling(series, context.store.settling.headers(series.id), context.config.eligibility)
        known[key] = sibling.sharp, sibling.acquisition
    return Sibling(series, *known[key])


def _sibling(series: Series, headers: list[Header], rules: Eligibility) -> Sibling:
    left = eligibility.ct_slices(headers, rules)
    return Sibling(series, eligibility.is_sharp(left, rules), acquisition_of(left))


def _decline(context: Context, series: Series, whole: Whole, outcome: Outcome, reason: str, detail: str) -> bool:
    """The series ends without analysis; where the configuration wants a report on it, the worker writes one.

    Not on a result of ours that comes back: its report's summary would come back too, and so on.  Nor on what holds no
    image: of the reports of another such system there would be reports without end.
    """
    log.get().info("series_not_analysed", case=series.id, outcome=outcome, reason=reason)
    is_image = reason != Ineligible.NO_IMAGE
    wanted = context.config.report.not_analysed == "always" and outcome is Outcome.NOT_ELIGIBLE and is_image
    wanted = wanted or outcome is Outcome.NOT_ANALYSED
    reported = wanted and not context.store.settling.holds_a_result_of_ours(series.id)
    event = Event.SETTLED if reported else Event.SET_ASIDE
    return context.store.settling.leave(series, event, whole.evidence, context.clock(), outcome, reason, detail)
