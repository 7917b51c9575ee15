"""Notifications to a real SMTP server: who is told, when, once, and of whom; what the outbox keeps; what the configuration takes."""

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.config.loading import load
from node.config.sections import Config
from node.errors import ConfigError
from node.scu.alerting import TIMEOUT_SECONDS
from node.workflow import notifications
from node.workflow.context import Context
from storage.database.running import NotificationRow
from storage.queries.reviews import Action, Wanted
from storage.running import Process
from storage.store import Store
from tests.support.builders import FakeClock, reported
from tests.support.receivers import PATIENT, Mailbox, Make, a_round, error_of, made, mailbox, positive, rows

__all__ = ["made", "mailbox"]


def acknowledge(context: Context) -> None:
    context.store.reviews.change(Wanted(1, 0, Action.ACKNOWLEDGED, "dr.a"), context.clock())


# --- who is told, and when


def test_a_mail_tells_once_of_a_positive_case_and_names_no_patient(
    made: Make, mailbox: Mailbox, clock: FakeClock
) -> None:
    context = made({"name": "on-call", "kind": "apprise", "url": mailbox.start()})
    positive(context, clock)
    assert a_round(context) == 1
    clock.advance(3600)
    assert a_round(context) == 0
    [text] = mailbox.texts()
    assert "case 1, not acknowledged" in text and "P 0.90" in text and "http://127.0.0.1:11180/cases/1" in text
    assert not [word for word in PATIENT if word in text]


def test_with_patient_data_the_mail_names_the_patient(made: Make, mailbox: Mailbox, clock: FakeClock) -> None:
    context = made({"name": "on-call", "kind": "apprise", "url": mailbox.start(), "patient_data": True})
    positive(context, clock)
    assert a_round(context) == 1
    assert all(word in mailbox.texts()[0] for word in PATIENT[:4])


def test_below_the_notify_threshold_and_before_two_days_nobody_is_told(
    made: Make, mailbox: Mailbox, clock: FakeClock
) -> None:
    context = made({"name": "on-call", "kind": "apprise", "url": mailbox.start()})
    positive(context, clock, notify=False)
    positive(context, clock, series="2.25.9")
    clock.advance(49 * 3600)
    assert a_round(context) == 0
    assert rows(context) == []


@pytest.mark.parametrize("acknowledged", [False, True])
def test_the_next_in_the_chain_is_told_unless_somebody_acknowledges(
    store: Store, made: Make, mailbox: Mailbox, clock: FakeClock, acknowledged: bool
) -> None:
    url = mailbox.start()
    first = {"name": "reader", "kind": "apprise", "url": url}
    context = made(first, {"name": "lead", "kind": "apprise", "url": url, "after_minutes": 15}, store=store)
    positive(context, clock)
    assert a_round(context) == 1
    clock.advance(14 * 60)
    assert a_round(context) == 0
    if acknowledged:
        acknowledge(context)
    clock.advance(61)
    assert a_round(context) == (0 if acknowledged else 1)
    assert [row[:2] for row in rows(context)] == [
        ("reader", "delivered"), ("lead", "needless" if acknowledged else "delivered"),
    ]  # fmt: skip


def test_quiet_hours_hold_a_notification_until_they_end(made: Make, mailbox: Mailbox, clock: FakeClock) -> None:
    clock.now = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)
    context = made({"name": "office", "kind": "apprise", "url": mailbox.start(), "quiet_hours": "22:00-06:30"})
    positive(context, clock)
    clock.now = datetime(2026, 11, 24, 6, 29, tzinfo=UTC)
    assert a_round(context) == 0
    clock.now = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
    assert a_round(context) == 1


def test_a_case_that_takes_too_long_is_told_of_once(made: Make, mailbox: Mailbox, clock: FakeClock) -> None:
    target = {
        "name": "it",
        "kind": "apprise",
        "url": mailbox.start(),
        "events": ["turnaround"],
        "turnaround_minutes": 10,
    }
    context = made(target)
    reported(context.store, clock)  # its delivery is pending
    clock.advance(599)
    assert a_round(context) == 0
    clock.advance(2)
    assert (a_round(context), a_round(context)) == (1, 0)
    assert "no report is delivered 10 min after the last slice" in mailbox.texts()[0]


def test_an_ill_node_is_told_of_each_time_that_it_falls_ill(made: Make, mailbox: Mailbox, clock: FakeClock) -> None:
    context = made({"name": "it", "kind": "apprise", "url": mailbox.start(), "events": ["unhealthy"]})

    def beat(*roles: str) -> None:
        for role in roles:
            folder = str(context.config.storage.directory)
            context.store.processes.beat(Process(role, role, "far", 1, folder, clock(), clock(), {"model": "0.7.0"}))

    def look() -> int:
        notifications.notice_health(context)
        return a_round(context)

    everything = ("serve", "receive", "work", "web")

    def fall_ill() -> None:
        beat(*everything)
        assert look() == 0
        clock.advance(20)
        beat("serve", "receive", "web")

    fall_ill()
    assert (look(), look()) == (1, 0)
    assert "`willis work`" in mailbox.texts()[0]
    fall_ill()
    assert look() == 0, "within the hour that is no news"
    clock.advance(3600)
    beat("serve", "receive", "web")
    assert (look(), look()) == (1, 0), "but after it, where it goes on"
    clock.advance(3600)
    fall_ill()
    assert look() == 1
    clock.advance(20)
    beat("serve", "web")
    assert look() == 1, "it is worse: nothing is received"


def test_a_second_peer_that_goes_down_while_one_is_down_is_news(made: Make, mailbox: Mailbox, clock: FakeClock) -> None:
    target = {"name": "it", "kind": "apprise", "url": mailbox.start(), "events": ["unhealthy"]}
    peers = {name: {"ae_title": "X", "host": "127.0.0.1", "port": 104} for name in ("PACS 1", "ARCHIVE")}
    context = made(target)
    context.config = Config.model_validate(context.config.model_dump(exclude={"peers", "web"}) | {"peers": peers})

    def look(**of_worker: object) -> list[str]:
        for role in ("serve", "receive", "work", "web"):
            folder = str(context.config.storage.directory)
            details = {"model": "0.7.0", **(of_worker if role == "work" else {})}
            context.store.processes.beat(Process(role, role, "far", 1, folder, clock(), clock(), details))
        notifications.notice_health(context)
        a_round(context)
        texts, mailbox.mails = mailbox.texts(), []
        return texts

    context.store.processes.peer_answered("PACS 1", "far", clock(), "connection refused")
    [first] = look()
    assert "PACS 1 does not answer" in first
    context.store.processes.peer_answered("ARCHIVE", "far", clock(), "connection refused")
    [second] = look()
    assert "ARCHIVE does not answer" in second
    assert "PACS 1" not in second
    assert look() == []
    [third] = look(reload={"error": "[ai] bundle: it is broken"})
    assert "could not reload" in third and "[ai] bundle: it is broken" in third


def test_of_two_hosts_one_tells_what_makes_the_node_ill_and_the_other_takes_nothing_back(
    made: Make, mailbox: Mailbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = {"name": "it", "kind": "apprise", "url": mailbox.start(), "events": ["unhealthy"]}
    context = made(target)
    peers = {"PACS 1": {"ae_title": "X", "host": "127.0.0.1", "port": 104}}
    context.config = Config.model_validate(context.config.model_dump(exclude={"peers", "web"}) | {"peers": peers})
    for host in ("a", "b"):
        for role in ("serve", "receive", "work", "web"):
            folder, name = str(context.config.storage.directory), f"{host} {role}"
            process = Process(name, role, host, 1, folder, clock(), clock(), {"model": "0.7.0"})
            context.store.processes.beat(process)
    context.store.processes.peer_answered("PACS 1", "b", clock(), "connection refused")

    def on(host: str) -> int:
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        notifications.notice_health(context)
        return a_round(context)

    assert (on("b"), rows(context)) == (0, []), "it is for the other"
    monkeypatch.setattr(socket, "gethostname", lambda: "a")
    notifications.notice_health(context)
    assert (on("b"), [row[:2] for row in rows(context)]) == (1, [("it", "delivered")]), "whoever is free sends it"
    assert "PACS 1 does not answer" in mailbox.texts()[0]
    assert (on("a"), on("b")) == (0, 0), "it goes on, and is told of once"


def test_the_lease_of_a_message_is_longer_than_any_target_is_waited_for(made: Make) -> None:
    context = made({"name": "ris", "kind": "hl7", "url": "mllp://127.0.0.1:2575"})
    node = context.config.node.model_copy(update={"network_timeout_seconds": 1.0})
    context.config = context.config.model_copy(update={"node": node})
    assert context.lease.total_seconds() < TIMEOUT_SECONDS < notifications.lease(context).total_seconds()


# --- the outbox


def test_during_an_outage_nothing_is_lost_and_after_it_each_comes_once(
    made: Make, mailbox: Mailbox, clock: FakeClock
) -> None:
    url = mailbox.start()
    mailbox.stop()
    context = made({"name": "on-call", "kind": "apprise", "url": url})
    for number in range(3):
        positive(context, clock, series=f"2.25.{number + 5}")
    for _ in range(4):
        assert a_round(context) == 0
        clock.advance(6 * 3600)
    assert {stage for _, stage, _ in rows(context)} == {"pending"}
    assert error_of_any(context).startswith("on-call did not take it")
    mailbox.start()
    taken = 0
    for _ in range(5):
        taken += a_round(context)
        clock.advance(700)
    assert (taken, len(mailbox.mails)) == (3, 3)


def error_of_any(context: Context) -> str:
    with context.store.transactions.reading() as session:
        return max(str(row.last_error) for row in session.query(NotificationRow))


def test_what_a_node_that_died_was_sending_is_sent_after_its_lease(
    made: Make, mailbox: Mailbox, clock: FakeClock
) -> None:
    context = made({"name": "on-call", "kind": "apprise", "url": mailbox.start()})
    positive(context, clock)
    notifications.notice(context)
    assert context.store.notifications.due.claim(clock(), context.lease) is not None  # and its node dies
    assert a_round(context) == 0
    clock.advance(context.lease.total_seconds() + 1)
    assert a_round(context) == 1


def test_what_was_sent_long_ago_is_forgotten_and_a_dead_letter_is_not(
    made: Make, mailbox: Mailbox, clock: FakeClock
) -> None:
    context = made({"name": "on-call", "kind": "apprise", "url": mailbox.start()})
    positive(context, clock)
    assert a_round(context) == 1
    mailbox.stop()
    positive(context, clock, series="2.25.9")
    clock.advance(3600)
    a_round(context)
    clock.advance(73 * 3600)
    a_round(context)
    assert context.store.notifications.forget(clock() - notifications.KEPT) == 0
    assert context.store.notifications.forget(clock()) == 1
    assert [row[1] for row in rows(context)] == ["dead"]


def test_what_cannot_be_sent_for_days_is_a_dead_letter_that_health_names_and_a_person_revives(
    made: Make, mailbox: Mailbox, clock: FakeClock
) -> None:
    from node.rules.health import judge
    from node.workflow.health import facts_of

    url = mailbox.start()
    mailbox.refuses = True
    context = made({"name": "on-call", "kind": "apprise", "url": url})
    positive(context, clock)
    a_round(context)
    clock.advance(73 * 3600)
    a_round(context)
    assert [row[1] for row in rows(context)] == ["dead"]
    facts = facts_of(context.config, clock(), context.store.transactions.reading_plainly)
    assert "1 notification was refused or given up" in " ".join(reason.message for reason in judge(facts).reasons)
    mailbox.refuses = False
    assert context.store.notifications.requeue(clock()) == 1
    assert notifications.send(context) == 1


def test_a_target_that_is_configured_no_longer_is_a_dead_letter(made: Make, mailbox: Mailbox, clock: FakeClock) -> None:
    context = made({"name": "old", "kind": "apprise", "url": mailbox.start()})
    positive(context, clock)
    notifications.notice(context)
    assert notifications.send(made()) == 0
    assert "name = 'old' is not configured any longer" in error_of(context)


# --- the configuration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"\nkind = "apprise"', "write either url, or url_file"),
        ('name = "a"\nkind = "hl7"\nurl = "http://ris:1"', "write mllp://HOST:PORT"),
        ('name = "a"\nkind = "hl7"\nurl = "mllp://ris"', "has no port; write mllp://HOST:2575"),
        ('name = "a"\nkind = "hl7"\nurl = "mailtos://u:hush@h"', "url begins with 'mailtos'"),
        ('name = "a"\nkind = "hl7"\nurl = "mllp://u:hush@h:70000"', "port is a number from 1 to 65535"),
        ('name = "a"\nkind = "apprise"\nurl = ["mailtos://u:hush@h"]', "url: input should be a valid string"),
        ('name = "a"\nkind = "fhir"\nurl = "https://f"\nevents = ["unhealthy"]', 'events = ["positive"]'),
        ('name = "a"\nkind = "fhir"\nurl = "https://f"\nquiet_hours = "22-6"', 'write for example "22:00-06:30"'),
        ('name = "a"\nkind = "fhir"\nurl = "https://f"\nafter_minute = 3', "did you mean after_minutes?"),
    ],
)
def test_a_target_that_cannot_be_used_is_a_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[[notifications]]\n{text}\n")
    with pytest.raises(ConfigError, match="notifications") as raised:
        load(path, {})
    assert said in str(raised.value) and "hush" not in str(raised.value)


def test_two_targets_of_one_name_are_an_error_and_files_are_beside_the_configuration(tmp_path: Path) -> None:
    target = '[[notifications]]\nname = "a"\nkind = "apprise"\nurl_file = "mail.url"\n'
    path = tmp_path / "config.toml"
    path.write_text(target)
    (tmp_path / "mail.url").write_text("mailto://x\n")
    assert load(path, {}).notifications[0].address() == "mailto://x"
    path.write_text(target + target)
    with pytest.raises(ConfigError, match="is there twice"):
        load(path, {})


def test_quiet_hours_within_a_day_and_over_midnight() -> None:
    from node.config.notifications import Target

    def until(hours: str, at: str) -> str:
        target = Target.model_validate({"name": "a", "kind": "apprise", "url": "x://", "quiet_hours": hours})
        return f"{target.not_before(datetime.fromisoformat(f'2026-11-23T{at}:00+00:00'), UTC):%d %H:%M}"

    assert until("12:00-13:00", "12:30") == "23 13:00"
    assert until("12:00-13:00", "13:00") == "23 13:00"
    assert until("22:00-06:00", "23:00") == "24 06:00"
    assert until("22:00-06:00", "05:59") == "23 06:00"
    assert until("22:00-06:00", "21:59") == "23 21:59"
    assert until("", "21:59") == "23 21:59"
