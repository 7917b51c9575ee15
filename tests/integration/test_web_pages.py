"""The pages over a real socket, on both databases: who gets in, what is shown, what is changed, what is refused."""

import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from node.web.headers import HEADERS
from node.web.sign_in import new_token
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.stages import Outcome
from storage.store import Store
from tests.integration.web_pages import HOSTILE, with_images
from tests.support.builders import FakeClock, add, header, received, reported
from tests.support.pages import PASSWORD, Served, form_key_of, post, serving, web_context


@pytest.mark.parametrize("address", ["/", "/rows", "/cases/1", "/cases/1/review"])
def test_without_signing_in_there_is_nothing_but_the_way_in(quick: Served, clock: FakeClock, address: str) -> None:
    reported(quick.context.store, clock)
    answer = quick.client().get(address)
    assert "Password" in answer.text
    assert "Doe" not in answer.text


@pytest.mark.parametrize("address", ["/cases/1/images", "/cases/1/images/0", "/cases/1/thumbnail", "/api/cases"])
def test_without_signing_in_there_are_no_images_and_no_json(quick: Served, clock: FakeClock, address: str) -> None:
    reported(quick.context.store, clock)
    assert quick.client().get(address).status_code == 401


def test_signing_in_leads_where_one_wanted_to_go_and_signing_out_ends_it(pages: Served, clock: FakeClock) -> None:
    reported(pages.context.store, clock)
    pages.account("dr.a")
    client = pages.client()
    page = client.get("/cases/1")
    values = {"form_key": form_key_of(page), "name": " DR.A ", "password": PASSWORD, "next": "/cases/1"}
    assert "Doe, Jane" in client.post("/sign-in", data=values).text
    session = client.cookies["willis_session"]
    assert "Password" in post(client, "/", "/sign-out").text
    assert "Password" in httpx.get(pages.url, cookies={"willis_session": session}, follow_redirects=True).text


@pytest.mark.parametrize("by_script", [False, True])
def test_who_decides_after_his_session_ended_is_told_so_and_comes_back_to_the_case(
    quick: Served, clock: FakeClock, by_script: bool
) -> None:
    reported(quick.context.store, clock)
    client = quick.signed_in("dr.a")
    form = {"form_key": form_key_of(client.get("/cases/1")), "version": "0", "action": "acknowledged"}
    clock.advance(13 * 3600)
    headers = {"Referer": f"{quick.url}/cases/1"} | ({"HX-Request": "true"} if by_script else {})
    answer = client.post("/cases/1/review", data=form, headers=headers, follow_redirects=False)
    way = answer.headers["HX-Redirect" if by_script else "Location"]
    page = client.get(way)
    assert "what you asked for last was not done" in page.text
    values = {"form_key": form_key_of(page), "name": "dr.a", "password": PASSWORD, "next": "/cases/1"}
    assert f'name="next" value="{values["next"]}"' in page.text
    assert client.post("/sign-in", data=values).url.path == "/cases/1"
    assert client.get(way).url.path == "/cases/1", "who has signed in meanwhile"
    assert quick.context.store.reviews.entries(1) == []


def test_a_session_that_ended_leads_to_no_part_of_a_page_and_to_none_of_elsewhere(
    quick: Served, clock: FakeClock
) -> None:
    client = quick.signed_in("dr.a")
    key = form_key_of(client.get("/"))
    clock.advance(13 * 3600)
    signing_out = client.post("/sign-out", data={"form_key": key}, follow_redirects=False)
    assert signing_out.headers["Location"] == "/sign-in"
    part = client.get("/rows", headers={"HX-Request": "true", "Referer": f"{quick.url}/?q=a%26b"})
    assert part.headers["HX-Redirect"] == "/sign-in?next=/%3Fq%3Da%2526b"
    for elsewhere in ("https://elsewhere.example/cases/1", "http://[", ""):
        headers = {"Referer": elsewhere}
        answer = client.post("/cases/1/review", data={}, headers=headers, follow_redirects=False)
        assert answer.headers["Location"] == "/sign-in?not_done=1"


def test_no_link_leads_out_of_the_pages_after_signing_in(quick: Served) -> None:
    quick.account("dr.a")
    for goal in ("https://elsewhere.example/", "//elsewhere.example/", "/\\elsewhere.example"):
        client = quick.client()
        key = form_key_of(client.get("/sign-in"))
        values = {"form_key": key, "name": "dr.a", "password": PASSWORD, "next": goal}
        answer = client.post("/sign-in", data=values, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_sign_in_makes_a_new_session_and_ends_the_one_before(quick: Served) -> None:
    client = quick.signed_in("dr.a")
    first = client.cookies["willis_session"]
    values = {"form_key": form_key_of(client.get("/")), "name": "dr.a", "password": PASSWORD}
    client.post("/sign-in", data=values)
    assert client.cookies["willis_session"] != first
    assert "Password" in httpx.get(quick.url, cookies={"willis_session": first}, follow_redirects=True).text


def test_a_session_ends_after_its_hours(quick: Served, clock: FakeClock) -> None:
    client = quick.signed_in("dr.a")
    clock.advance(12 * 3600 - 1)
    assert "Sign out" in client.get("/").text
    clock.advance(2)
    assert "Sign out" not in client.get("/").text


def test_wrong_passwords_lock_the_account_and_the_answer_does_not_say_whose_name_exists(
    pages: Served, clock: FakeClock
) -> None:
    pages.account("dr.a")
    client = pages.client()
    unknown = post(client, "/sign-in", "/sign-in", name="nobody", password=PASSWORD)
    wrong = [post(client, "/sign-in", "/sign-in", name="dr.a", password="wrong wrong") for _ in range(3)]
    right = post(client, "/sign-in", "/sign-in", name="dr.a", password=PASSWORD)
    messages = {re.search(r'role="alert">(.*?)<', each.text)[1] for each in (unknown, *wrong, right)}  # type: ignore[index]
    assert (len(messages), right.status_code) == (1, 403)
    clock.advance(15 * 60 + 1)
    assert "Sign out" in post(client, "/sign-in", "/sign-in", name="dr.a", password=PASSWORD).text


def test_many_tries_from_one_address_are_turned_away(quick: Served, clock: FakeClock) -> None:
    quick.context.tries.most = 2
    client = quick.client()
    for _ in range(2):
        post(client, "/sign-in", "/sign-in", name="x", password="y")
    assert "Too many tries" in post(client, "/sign-in", "/sign-in", name="x", password="y").text
    clock.advance(61)
    assert "Too many tries" not in post(client, "/sign-in", "/sign-in", name="x", password="y").text


def test_the_first_account_is_made_once_with_the_link_from_the_log(pages: Served) -> None:
    pages.context.first_start.token = token = new_token()
    assert pages.client().get("/first?token=guessed").status_code == 403
    client, link = pages.client(), f"/first?token={token}"
    values = {"token": token, "name": "Chief", "password": PASSWORD, "again": PASSWORD}
    assert "differ" in post(client, link, "/first", **{**values, "again": "another one"}).text
    assert "at least 10" in post(client, link, "/first", **{**values, "password": "short", "again": "short"}).text
    key = form_key_of(client.get(link))
    assert "Sign out" in client.post("/first", data={"form_key": key, **values}).text
    [account] = pages.context.store.accounts.all()
    assert (account.name, account.role) == ("chief", Role.ADMINISTRATOR)
    assert pages.client().get(link).status_code == 403


def test_every_answer_forbids_scripts_frames_and_anything_from_elsewhere(quick: Served, clock: FakeClock) -> None:
    client = quick.signed_in("dr.a")
    for address in ("/", "/sign-in", "/static/willis.js", "/nothing", "/api/cases", "/cases/99"):
        answer = client.get(address)
        assert {name: answer.headers[name] for name in HEADERS if name != "Cache-Control"} == {
            name: value for name, value in HEADERS.items() if name != "Cache-Control"
        }, address
    assert client.get("/").headers["Cache-Control"] == "no-store"
    cookie = client.get("/sign-in").headers.get("set-cookie", "") + quick.client().get("/sign-in").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie


def test_over_https_cookies_are_sent_over_tls_alone(sqlite_store: Store, files: Files, tmp_path: Path) -> None:
    context = web_context(sqlite_store, files, tmp_path, url="https://willis.example")
    with serving(context):
        answer = httpx.get(f"http://127.0.0.1:{context.config.web.port}/sign-in")
    assert "Secure" in answer.headers["set-cookie"]


def test_no_page_has_a_script_or_a_style_in_it_or_an_address_elsewhere(quick: Served, clock: FakeClock) -> None:
    reported(quick.context.store, clock)
    client = quick.signed_in("dr.a", Role.LEAD)
    for address in ("/", "/cases/1", "/sign-in", "/cases/9"):
        text = client.get(address).text
        assert re.findall(r"<script(?![^>]*src=)|<style|\son\w+=|style=|javascript:|https?://", text) == [], address


def test_what_comes_from_a_dataset_is_text_on_every_page(quick: Served, clock: FakeClock) -> None:
    hostile: dict[str, Any] = dict.fromkeys(
        ("patient_name", "patient_id", "accession_number", "series_description"), HOSTILE
    )
    claim_of = reported(quick.context.store, clock, **hostile)
    client = quick.signed_in("dr.a")
    for address in ("/", f"/cases/{claim_of.series.id}", f"/?q={HOSTILE[:20]}&show={HOSTILE}&page={HOSTILE}"):
        text = client.get(address).text
        assert "<script>alert" not in text and "<img src=x" not in text
        assert "&lt;script&gt;alert(1)" in text or "q=" in address


def test_a_form_that_is_not_from_a_page_of_ours_changes_nothing(pages: Served, clock: FakeClock) -> None:
    reported(pages.context.store, clock)
    client, other = pages.signed_in("dr.a"), pages.signed_in("dr.b")
    for key in ("", "0" * 64, form_key_of(other.get("/cases/1"))):
        values = {"form_key": key, "version": "0", "action": "acknowledged"}
        assert client.post("/cases/1/review", data=values).status_code == 403
    assert pages.context.store.reviews.entries(1) == []
    assert pages.client().post("/sign-in", data={"name": "dr.a", "password": PASSWORD}).status_code == 403


def test_a_form_counts_by_its_own_key_however_old_the_page_around_it_is(quick: Served, clock: FakeClock) -> None:
    reported(quick.context.store, clock)
    client = quick.signed_in("dr.a")
    old = form_key_of(before := client.get("/cases/1"))
    seen = re.search(r'hx-get="([^"]*seen=[^"]*)"', before.text)
    assert seen is not None and client.get(seen[1]).status_code == 204
    post(client, "/accounts", "/sign-out")
    post(client, "/sign-in", "/sign-in", name="dr.a", password=PASSWORD)
    new = form_key_of(client.get(seen[1]))
    form, header = {"version": "0", "action": "acknowledged"}, {"X-Form-Key": old, "HX-Request": "true"}
    assert client.post("/cases/1/review", data={"form_key": old, **form}, headers=header).status_code == 403
    assert client.post("/cases/1/review", data={"form_key": new, **form}, headers=header).status_code == 200


def test_who_decides_the_same_twice_is_not_told_of_somebody_faster(quick: Served, clock: FakeClock) -> None:
    reported(quick.context.store, clock)
    client = quick.signed_in("dr.a")
    for _ in range(2):
        answer = post(client, "/cases/1", "/cases/1/review", version="0", action="acknowledged")
    assert (answer.status_code, "You acknowledged the case at" in answer.text) == (409, True)
    assert "faster" not in answer.text


def test_a_form_of_ten_megabytes_is_not_read_to_its_end(quick: Served) -> None:
    client = quick.signed_in("dr.a")
    try:
        status = client.post("/cases/1/review", content=b"a=" + b"b" * 10_000_000).status_code
    except httpx.WriteError:  # the server has closed the connection by then
        status = 413
    assert status == 413
    assert client.get("/").status_code == 200


def test_of_two_people_the_second_hears_what_the_first_did(pages: Served, clock: FakeClock) -> None:
    reported(pages.context.store, clock)
    one, other = pages.signed_in("dr.a"), pages.signed_in("dr.b")
    key = form_key_of(other.get("/cases/1"))
    assert "Acknowledged by" in post(one, "/cases/1", "/cases/1/review", version="0", action="acknowledged").text
    answer = other.post("/cases/1/review", data={"form_key": key, "version": "0", "action": "acknowledged"})
    assert answer.status_code == 409
    assert "dr.a was faster: acknowledged the case" in answer.text
    assert len(pages.context.store.reviews.entries(1)) == 1


def test_a_finding_is_rejected_with_a_reason_and_that_is_undone(pages: Served, clock: FakeClock) -> None:
    reported(pages.context.store, clock)
    client = pages.signed_in("dr.a")
    values = {"version": "0", "action": "rejected", "finding": "1", "reason": "infundibulum"}
    assert "rejected: infundibulum" in post(client, "/cases/1", "/cases/1/review", **values).text
    page = post(client, "/cases/1", "/cases/1/review", version="1", action="undone").text
    assert "✕ rejected" not in page
    assert "undid the last change" in page


def test_a_reader_takes_a_case_and_only_a_lead_gives_it_to_another(quick: Served, clock: FakeClock) -> None:
    reported(quick.context.store, clock)
    reader, lead = quick.signed_in("dr.a"), quick.signed_in("lead", Role.LEAD)
    refused = post(reader, "/cases/1", "/cases/1/review", version="0", action="assigned", assigned_to="lead")
    assert "Only a lead" in refused.text
    assert (
        "no account nobody"
        in post(lead, "/cases/1", "/cases/1/review", version="0", action="assigned", assigned_to="nobody").text
    )
    post(reader, "/cases/1", "/cases/1/review", version="0", action="assigned", assigned_to="dr.a")
    assert "Doe, Jane" in reader.get("/?show=mine").text
    assert "Doe, Jane" not in lead.get("/?show=mine").text


def test_a_case_of_a_disabled_account_is_said_to_be_his_and_none_is_given_to_him(
    quick: Served, clock: FakeClock
) -> None:
    reported(quick.context.store, clock)
    quick.account("bob")
    lead = quick.signed_in("lead", Role.LEAD)
    assigned = {"action": "assigned", "assigned_to": "bob"}
    assert (
        '<option value="bob" selected>bob</option>'
        in post(lead, "/cases/1", "/cases/1/review", version="0", **assigned).text
    )
    assert quick.context.store.accounts.change("bob", disabled_at=clock())
    assert '<option value="bob" selected>bob, disabled</option>' in lead.get("/cases/1").text
    post(lead, "/cases/1", "/cases/1/review", version="1", action="assigned", assigned_to="")
    assert "bob, disabled" not in lead.get("/cases/1").text
    refused = post(lead, "/cases/1", "/cases/1/review", version="2", **assigned)
    assert (refused.status_code, "The account bob is disabled." in refused.text) == (409, True)
    review = quick.context.store.reviews.of(1)
    assert review is not None and review.assigned_to == ""


@pytest.mark.parametrize(
    "values",
    [
        {"action": "acknowledged", "version": "-1"},
        {"action": "acknowledged", "version": "9" * 30},
        {"action": "deleted", "version": "0"},
        {"action": "accepted", "version": "0", "finding": "99"},
        {"action": "rejected", "version": "0", "finding": "1", "reason": HOSTILE},
        {"action": "accepted", "version": "0", "finding": "1", "reason": "nonsense"},
        {"action": "acknowledged", "version": "0", "finding": "1"},
        {},
    ],
)
def test_a_forged_form_is_answered_and_changes_nothing(quick: Served, clock: FakeClock, values: dict[str, str]) -> None:
    reported(quick.context.store, clock)
    clock.advance(1)
    quick.context.store.reviews.of(1)
    answer = post(quick.signed_in("dr.a"), "/cases/1", "/cases/1/review", **values)
    assert answer.status_code == 409
    assert quick.context.store.reviews.entries(1) == []


def test_the_list_is_ranked_and_filters_are_in_its_address(pages: Served, clock: FakeClock) -> None:
    store = pages.context.store
    reported(store, clock, Outcome.NEGATIVE, series="2.25.1", patient_name="Calm^Carl")
    reported(store, clock, Outcome.NOT_ANALYSED, series="2.25.2", patient_name="Gap^Gerda")
    received(store, clock, series="2.25.3", patient_name="New^Nora")
    reported(store, clock, series="2.25.4", patient_name="Urgent^Uwe")
    client = pages.signed_in("dr.a")
    names = re.findall(r'class="name">(\w+), ', client.get("/").text)
    assert names == ["Urgent", "Gap", "New", "Calm"]
    assert "Slices are missing between the first and the last" in client.get("/").text
    assert re.findall(r'class="name">(\w+), ', client.get("/?q=gerda").text) == ["Gap"]
    assert re.findall(r'class="name">(\w+), ', client.get("/?outcome=negative").text) == ["Calm"]
    assert re.findall(r'class="name">(\w+), ', client.get("/?q=L+MCA").text) == ["Urgent"]
    post(client, "/cases/4", "/cases/4/review", version="0", action="acknowledged")
    assert "Urgent" not in client.get("/rows").text
    assert "Urgent" in client.get("/?show=done").text


def test_a_page_shows_fifty_cases_and_the_way_to_the_next(quick: Served, clock: FakeClock) -> None:
    for number in range(51):
        received(quick.context.store, clock, count=1, series=f"2.25.{number}")
    client = quick.signed_in("dr.a")
    assert client.get("/").text.count("<tr data-case") == 50
    assert client.get("/?page=2").text.count("<tr data-case") == 1
    assert client.get("/?page=77").text.count("<tr data-case") == 1
    assert "1–50 of 51" in client.get("/").text


def test_a_case_that_is_not_there_is_said_so(quick: Served) -> None:
    client = quick.signed_in("dr.a")
    assert "removed to make room" in client.get("/cases/7").text
    assert client.get("/cases/7/images").status_code == 404
    assert client.get("/cases/x").status_code == 404


def test_a_slice_is_in_hounsfield_units_and_the_finding_is_where_the_report_says(
    pages: Served, files: Files, clock: FakeClock
) -> None:
    with_images(pages, files, clock)
    client = pages.signed_in("dr.a")
    about = client.get("/cases/1/images").json()
    assert about["slices"] == 8
    answer = client.get("/cases/1/images/3")
    hu = np.frombuffer(answer.content, "<i2")
    assert hu.size == about["rows"] * about["columns"]
    [found] = about["findings"]
    assert 0 <= found["slice"] < 8
    assert client.get("/cases/1/images/8").status_code == 404
    kept = client.get("/cases/1/images/3", params={"key": about["key"]})
    assert (kept.content, "max-age" in kept.headers["cache-control"]) == (answer.content, True)
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/cases/1/thumbnail").content[:4] == b"\x89PNG"


def test_images_that_are_gone_from_the_disk_are_said_to_be_gone(quick: Served, files: Files, clock: FakeClock) -> None:
    with_images(quick, files, clock)
    client = quick.signed_in("dr.a")
    assert client.get("/cases/1/images").status_code == 200
    for path in (files.root / "instances").rglob("*.dcm"):
        path.unlink()
    assert client.get("/cases/1/images/0").status_code == 410
    assert client.get("/cases/1/thumbnail").headers["content-type"] == "image/svg+xml"
    assert client.get("/cases/1").status_code == 200
    add(quick.context.store, clock, header(20))
