"""What programs get of the pages over a real socket: events, the audit trail, the API."""

import re
import socket
import threading
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from node.web.sign_in import hash_of, new_token
from storage.queries.accounts import Role, TokenKind
from storage.stages import Outcome
from tests.support.builders import FakeClock, reported
from tests.support.pages import PASSWORD, Served, post


def events_of(client: httpx.Client, count: int, then: threading.Event) -> list[str]:
    """The first events; `then` is set after the first of them."""
    heard: list[str] = []
    with client.stream("GET", "/events", timeout=20) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                heard.append(line.removeprefix("event: "))
                then.set()
                if len(heard) == count:
                    break
    return heard


def test_an_open_page_hears_of_a_change_within_moments(pages: Served, clock: FakeClock) -> None:
    client, began = pages.signed_in("dr.a"), threading.Event()
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.extend(events_of(client, 3, began)))
    thread.start()
    assert began.wait(10)
    for number in range(3):
        thread.join(1.5)
        reported(pages.context.store, clock, series=f"2.25.{number}")
    thread.join(10)
    assert heard == ["changed"] * 3


def test_who_has_not_signed_in_hears_nothing(quick: Served) -> None:
    assert quick.client().get("/events").status_code == 204


def away(served: Served) -> str:
    raise OperationalError("", {}, served.context.store.transactions.engine.dialect.loaded_dbapi.OperationalError())


def test_without_a_database_the_page_says_so_and_recovers(
    quick: Served, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = quick.signed_in("dr.a")

    with monkeypatch.context() as patched:
        patched.setattr(quick.context.store.changes, "stamp", lambda: away(quick))
        answer = client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "tries again by itself" in answer.text
        assert answer.headers["Content-Security-Policy"]
    assert client.get("/").status_code == 200


def test_a_page_that_comes_while_the_database_is_away_hears_so_at_once(
    quick: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = quick.signed_in("dr.a")
    with monkeypatch.context() as patched:
        patched.setattr(quick.context.store.changes, "stamp", lambda: away(quick))
        assert events_of(client, 2, threading.Event()) == ["changed", "away"]
        assert events_of(client, 1, threading.Event()) == ["away"]
    assert events_of(client, 2, threading.Event()) == ["away", "changed"]
    assert events_of(client, 1, threading.Event()) == ["changed"]


def test_what_failed_is_in_the_log_with_what_was_asked_for_and_programs_are_told_in_json(
    quick: Served, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(quick.context.store, clock)
    browser = quick.signed_in("dr.a")

    def broken(_case: str) -> None:
        raise ValueError("Doe^Jane")

    with httpx.Client(base_url=f"{quick.url}/api", headers=token_of(quick, "ris")) as program:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(quick.context.store.worklist, "case", broken)
            assert browser.get("/cases/1/review?seen=Doe").status_code == 500
            answer = program.get("/cases/1")
            assert (answer.status_code, "node's log" in answer.json()["detail"]) == (500, True)
        where = ["GET /cases/(case)/review", "GET /api/cases/(case_id)"]
        assert [(log["event"], log["where"], log["error"]) for log in logs] == [
            ("page_failed", each, "ValueError") for each in where
        ]
        assert all(log["evidence"].startswith("test_web_api.py:") and int(log["case"]) == 1 for log in logs)
        assert "Doe" not in str(logs)
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(quick.context.store.changes, "stamp", lambda: away(quick))
            answer = program.get("/cases")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.headers["content-type"] == "application/json"
        assert logs[0]["error"].startswith("the database failed")
        assert program.get("/cases").status_code == 200


def test_the_audit_trail_tells_who_signed_in_saw_and_changed(quick: Served, clock: FakeClock, tmp_path: Path) -> None:
    reported(quick.context.store, clock)
    client = quick.signed_in("dr.a")
    post(client, "/sign-in", "/sign-in", name="dr.a", password="wrong wrong")
    post(client, "/cases/1", "/cases/1/review", version="0", action="acknowledged")
    post(client, "/", "/sign-out")
    quick.context.trail.close()
    lines = (tmp_path / "audit.log").read_text().splitlines()
    found = [
        (re.search(r'csd-code="(\d+)"', line)[1], re.search(r'Indicator="(\d)"', line)[1], 'UserID="dr.a"' in line)  # type: ignore[index]
        for line in lines
    ]
    assert found[0] == ("110114", "0", True)
    assert found[-1] == ("110114", "0", True)
    assert {("110103", "0", True), ("110114", "4", True)} <= set(found)
    assert any('EventActionCode="U"' in line and "P-0001" in line for line in lines)
    assert PASSWORD not in "".join(lines)


def token_of(served: Served, name: str, role: Role = Role.READER) -> dict[str, str]:
    accounts, now, token = served.context.store.accounts, served.context.clock(), new_token()
    account = accounts.named(served.account(name, role))
    assert account is not None
    accounts.give_token(account, hash_of(token), TokenKind.API, now, now + timedelta(days=1))
    return {"Authorization": f"Bearer {token}"}


def test_the_api_says_and_does_what_the_pages_do(pages: Served, clock: FakeClock) -> None:
    reported(pages.context.store, clock)
    client = httpx.Client(base_url=f"{pages.url}/api", headers=token_of(pages, "ris"))
    with client:
        assert client.get("/cases").json()["cases"][0]["case_id"] == 1
        case = client.get("/cases/1").json()
        assert set(pages.context.store.worklist.rows()[0]) < set(case)
        wanted = {"version": 0, "action": "rejected", "finding": 1, "reason": "vein"}
        changed = client.post("/cases/1/review", json=wanted)
        assert changed.json()["verdicts"][0]["reason"] == "vein"
        again = client.post("/cases/1/review", json=wanted)
        assert (again.status_code, "ris rejected finding 1" in again.text) == (409, True)
        assert [each["action"] for each in client.get("/cases/1/history").json()] == ["rejected"]
        assert client.get("/cases/2").status_code == 404
        assert client.post("/cases/1/review", json={"version": 1, "action": "nothing"}).status_code == 422
        far = client.post("/cases/1/review", json={"version": 1, "action": "acknowledged", "finding": 10**20})
        assert (far.status_code, "only a finding that is accepted or rejected" in far.text) == (409, True)
        given = client.post("/cases/1/review", json={"version": 1, "action": "assigned", "assigned_to": "dr.b"})
        assert given.status_code == 403


def test_the_api_takes_no_cookie_no_old_token_and_no_session(quick: Served, clock: FakeClock) -> None:
    session = quick.signed_in("dr.a").cookies["willis_session"]
    headers = token_of(quick, "ris")
    assert httpx.get(f"{quick.url}/api/cases", headers=headers).status_code == 200
    for other in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Bearer {session}"}):
        assert httpx.get(f"{quick.url}/api/cases", headers=other).status_code == 401
    assert httpx.get(f"{quick.url}/api/cases", cookies={"willis_session": session}).status_code == 401
    clock.advance(24 * 3600 + 1)
    assert httpx.get(f"{quick.url}/api/cases", headers=headers).status_code == 401


def test_the_api_filters_by_what_it_prints_and_refuses_what_it_does_not_know(quick: Served, clock: FakeClock) -> None:
    outcomes = (Outcome.POSITIVE, Outcome.NOT_ANALYSED, Outcome.NEGATIVE, Outcome.NOT_ELIGIBLE)
    for number, outcome in enumerate(outcomes, start=1):
        reported(quick.context.store, clock, outcome, series=f"2.25.{number}")
    with httpx.Client(base_url=f"{quick.url}/api", headers=token_of(quick, "ris")) as client:

        def found(**values: str) -> list[str]:
            answer = client.get("/cases", params=values)
            assert answer.status_code == 200, answer.text
            return [case["outcome"] for case in answer.json()["cases"]]

        for outcome in outcomes:
            assert found(show="all", outcome=outcome) == [outcome]
        assert found(outcome="not-analysed") == found(outcome="not_analysed") == ["not_analysed"]
        assert found(show="all", outcome="other") == ["not_eligible"]
        assert found(show="done") == []
        for values in ({"outcome": "bogus"}, {"show": "acknowledged"}, {"outcom": "positive"}, {"show": "open\n"}):
            assert client.get("/cases", params=values).status_code == 422, values


def test_the_api_describes_itself(quick: Served) -> None:
    described = httpx.get(f"{quick.url}/api/", follow_redirects=True).json()
    assert set(described["paths"]) == {
        "/cases", "/cases/{case_id}", "/cases/{case_id}/history", "/cases/{case_id}/review",
    }  # fmt: skip


def test_nothing_that_is_no_request_holds_up_the_others(quick: Served) -> None:
    host, port = "127.0.0.1", quick.context.config.web.port
    with socket.create_connection((host, port)) as silent, socket.create_connection((host, port)) as garbled:
        garbled.sendall(b"\x01\0\0\0" * 1000)
        assert quick.client().get("/sign-in").status_code == 200
        silent.sendall(b"GET / HT")
