"""People and other systems are told: what is noteworthy goes into an outbox, and from there to each target, or is a dead letter."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from node.config.notifications import AlertEvent, Target
from node.errors import Refused
from node.results.alert import Alert, condition_of, diagnostic_report_of, finding_of, oru_of, text_of
from node.rules.health import Reason, judge, speaks
from node.rules.health_facts import Facts
from node.runtime import log
from node.scu.alerting import TIMEOUT_SECONDS, import_what_sends, send_fhir, send_hl7, send_text
from node.workflow.context import Context
from node.workflow.due import Attempts, each_due
from node.workflow.health import facts_of
from storage.queries.notifications import Noteworthy, Notification

CALM = timedelta(hours=1)
"""What is wrong again within this time after it was told waits: a peer that comes and goes would be told of all day."""
KEPT = timedelta(days=30)
LOOK_BACK = timedelta(hours=48)
"""What is older is not told of for the first time: who adds a target does not want the past."""

LONGEST_SUBJECT = 40


def tell(context: Context) -> int:
    """Each target has been told of what cases call for, if it could be; returns how many notifications were taken."""
    import_what_sends(context.config.notifications)
    notice(context)
    return send(context)


def notice(context: Context) -> None:
    """Whatever cases call for is in the outbox, for each target once."""
    now = context.clock()
    for target in context.config.notifications:
        found: list[Notification] = []
        if AlertEvent.POSITIVE in target.events:
            cases = context.store.notifications.unacknowledged(now - LOOK_BACK)
            found += _of_cases(context, target, AlertEvent.POSITIVE, cases, timedelta(minutes=target.after_minutes))
        if AlertEvent.TURNAROUND in target.events:
            longest = timedelta(minutes=target.turnaround_minutes)
            cases = context.store.notifications.late(now - longest, now - LOOK_BACK)
            found += _of_cases(context, target, AlertEvent.TURNAROUND, cases, longest)
        context.store.notifications.add(found)


def _of_cases(
    context: Context, target: Target, event: AlertEvent, cases: list[Noteworthy], after: timedelta
) -> Iterator[Notification]:
    zone, now = context.config.report.zone, context.clock()
    for case in cases:
        due_at = target.not_before(max(case.since + after, now - LOOK_BACK), zone)
        subject = f"{case.case_id}.{case.revision}"
        yield Notification(target.name, event.value, subject, now, due_at, case.case_id, case.revision)


def notice_health(context: Context) -> None:
    """What makes the node ill is in the outbox, once for each time that it begins; a target hears of it after its minutes.

    Of several hosts one sees to it: each sees some things otherwise, and would take what another has noticed for over.
    """
    context.store.notifications.forget(context.clock() - KEPT)
    wanting = [target for target in context.config.notifications if AlertEvent.UNHEALTHY in target.events]
    if not wanting:
        return
    now, event, store = context.clock(), AlertEvent.UNHEALTHY.value, context.store.notifications
    facts = _facts(context)
    if not speaks(facts):
        return
    wrong = {_topic(reason) for reason in judge(facts).reasons}
    going_on, notified = store.going_on(event), store.notified_since(event, now - CALM)
    for target in wanting:
        known = {what for name, what in going_on if name == target.name}
        store.over(event, target.name, known - wrong, now)
        new = []
        for what in sorted(wrong - known):
            calm_until = notified[target.name, what] + CALM if (target.name, what) in notified else now
            at = max(now + timedelta(minutes=target.after_minutes), calm_until)
            due_at = target.not_before(at, context.config.report.zone)
            new.append(Notification(target.name, event, f"{what} {now.isoformat()}", now, due_at))
        store.add(new)


def _facts(context: Context) -> Facts:
    return facts_of(context.config, context.clock(), context.store.transactions.reading_plainly, of_all_hosts=True)


def _topic(reason: Reason) -> str:
    """What a target is notified of once as long as it goes on; what gets worse is another, and so is another peer."""
    subject = quote(reason.subject, safe="")
    if len(subject) > LONGEST_SUBJECT:
        subject = hashlib.sha256(subject.encode()).hexdigest()[:LONGEST_SUBJECT]
    return ":".join(filter(None, (reason.about, reason.verdict.value, subject)))


def send(context: Context) -> int:
    """Every notification that is due was tried once; returns how many were taken."""
    return each_due(context, context.store.notifications, _NOTIFICATIONS, lease(context))


def lease(context: Context) -> timedelta:
    """How long one message may take, before another process may send it: longer than any target is waited for."""
    return max(context.lease, timedelta(seconds=4 * TIMEOUT_SECONDS))


def _send_one(context: Context, notification: Notification) -> bool:
    """Whether the target has it."""
    store, now = context.store.notifications, context.clock()
    target = next((each for each in context.config.notifications if each.name == notification.target), None)
    try:
        if target is None:
            raise Refused(f"[[notifications]] name = '{notification.target}' is not configured any longer")
        due_at = target.not_before(now, context.config.report.zone)
        if due_at > now:
            store.postponed(notification, "", due_at)  # the hours are quiet
            return False
        alert = _alert_of(context, notification, target)
        if alert is None:
            store.needless(notification, now)
            return False
        _deliver(context, target, alert)
    except Refused as error:
        store.refused(notification, str(error), now)
        _logger(notification).error("notification_refused", error=str(error))
        return False
    store.delivered(notification, context.clock())
    _logger(notification).info("notification_accepted")
    return True


def _alert_of(context: Context, notification: Notification, target: Target) -> Alert | None:
    """What to say now; None where there is nothing to say any longer."""
    key, at = _key(context, notification), notification.created_at
    event = AlertEvent(notification.event)
    if event is AlertEvent.UNHEALTHY:
        what = notification.subject.partition(" ")[0]
        facts = _facts(context)
        health = judge(facts)
        causes = tuple(reason.message for reason in health.reasons if _topic(reason) == what)
        if not causes and not speaks(facts):  # whether it has passed is for the host to say that noticed it
            causes = ("another host sees it: `willis status` there says more",)
        ae_title = context.config.node.ae_title
        return Alert(key, at, f"{ae_title} is {health.verdict}: {what.partition(':')[0]}", causes) if causes else None
    if not context.store.notifications.is_open(notification):
        return None
    row = context.store.worklist.case(str(notification.case_id))
    if row is None or (event is AlertEvent.TURNAROUND and row["delivery"] in ("delivered", "committed")):
        return None
    link = f"{context.config.web.address}/cases/{row['case_id']}" if context.config.web.enabled else ""
    if event is AlertEvent.POSITIVE:
        return Alert(
            key, at, f"case {row['case_id']}, not acknowledged", (finding_of(row),), row, target.patient_data, link
        )
    late = f"no report is delivered {target.turnaround_minutes:g} min after the last slice; it is {row['stage']}"
    return Alert(key, at, f"case {row['case_id']} is late", (late,), row, target.patient_data, link)


def _key(context: Context, notification: Notification) -> str:
    """The same at every attempt and no other node's, nor that of a database before: at most 20 characters (MSH-10)."""
    what = (notification.target, notification.event, notification.subject, notification.created_at.isoformat())
    return f"W{hashlib.sha256(repr((context.config.node.ae_title, *what)).encode()).hexdigest()[:19]}"


def _deliver(context: Context, target: Target, alert: Alert) -> None:
    match target.kind:
        case "apprise":
            send_text(target, *text_of(alert))
        case "hl7":
            send_hl7(target, oru_of(alert, context.config.node.ae_title), alert.key)
        case "fhir":
            send_fhir(target, diagnostic_report_of(alert), condition_of(alert))


def _give_up(context: Context, notification: Notification, error: str) -> None:
    given_up = f"given up after {context.config.delivery.give_up_hours:g} h: {error}"
    context.store.notifications.refused(notification, given_up, context.clock())
    _logger(notification).error("notification_given_up", error=error)


def _logger(notification: Notification) -> Any:
    return log.get().bind(
        destination=notification.target,
        reason=notification.event,
        case=notification.case_id,
        attempts=notification.attempts,
    )


_NOTIFICATIONS = Attempts("notification", _send_one, _give_up, _logger)
