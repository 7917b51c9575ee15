"""The page of accounts over a real socket."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from node.cli.main import app
from node.web.sign_in import new_token
from storage.queries.accounts import Account, Identity, Provider, Role
from tests.support.builders import FakeClock
from tests.support.pages import PASSWORD, Served, account_changes, form_key_of, post

NEW = {"action": "add", "name": "dr.new", "role": "lead", "password": PASSWORD, "again": PASSWORD}


def account(served: Served, name: str) -> Account:
    found = served.context.store.accounts.named(name)
    assert found is not None
    return found


def enters(served: Served, name: str, password: str = PASSWORD) -> bool:
    answer = post(served.client(), "/sign-in", "/sign-in", name=name, password=password)
    return "Sign out" in answer.text


def test_an_administrator_makes_an_account_that_can_sign_in(pages: Served) -> None:
    root = pages.signed_in("root", Role.ADMINISTRATOR)
    answer = post(root, "/accounts", "/accounts", **NEW)
    assert answer.status_code == 200
    assert account(pages, "dr.new").role is Role.LEAD
    assert enters(pages, "dr.new")


def test_an_account_that_was_changed_or_disabled_is_signed_out_at_once(quick: Served) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    reader = quick.signed_in("dr.a")
    post(root, "/accounts", "/accounts", action="role", name="dr.a", role="lead")
    assert account(quick, "dr.a").role is Role.LEAD
    assert "Password" in reader.get("/").text
    post(root, "/accounts", "/accounts", action="disable", name="dr.a")
    assert not enters(quick, "dr.a")
    post(root, "/accounts", "/accounts", action="enable", name="dr.a")
    assert enters(quick, "dr.a")
    again = {"password": "another horse", "again": "another horse"}
    post(root, "/accounts", "/accounts", action="password", name="dr.a", **again)
    assert (enters(quick, "dr.a"), enters(quick, "dr.a", "another horse")) == (False, True)


def test_a_person_s_name_is_set_changed_and_taken_away_on_the_page(quick: Served, clock: FakeClock) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    post(root, "/accounts", "/accounts", **NEW, person_name="Doe^Jane")
    assert account(quick, "dr.new").person_name == "Doe^Jane"
    kim = Identity(Provider.OIDC, "https://id.example 7", "dr.kim", "Kim^Jo")
    assert quick.context.store.accounts.of_identity(kim, Role.READER, clock()).person_name == "Kim^Jo"
    for name, person in (("dr.new", "Doe^Janet"), ("dr.new", ""), ("dr.kim", "Kim^Joanna")):
        answer = post(root, "/accounts", "/accounts", action="person", name=name, person_name=person)
        assert (answer.status_code, person in answer.text, account(quick, name).person_name) == (200, True, person)
    again = quick.context.store.accounts.of_identity(kim, Role.READER, clock())
    assert again.person_name == "Kim^Joanna", "what an administrator wrote stays"
    post(root, "/accounts", "/accounts", action="person", name="dr.kim", person_name="")
    emptied = quick.context.store.accounts.of_identity(kim, Role.READER, clock())
    assert emptied.person_name == "", "and what he took away does not come back"
    post(root, "/accounts", "/accounts", action="person", name="dr.kim", person_name="Kim^Joanna")
    refused = post(root, "/accounts", "/accounts", action="person", name="dr.kim", person_name="Jo Kim")
    assert (refused.status_code, "is written family^given" in refused.text) == (422, True)
    assert account(quick, "dr.kim").person_name == "Kim^Joanna"


@pytest.mark.parametrize("role", [Role.READER, Role.LEAD])
def test_whoever_is_no_administrator_sees_and_changes_no_account(quick: Served, role: Role) -> None:
    quick.account("root", Role.ADMINISTRATOR)
    client = quick.signed_in("dr.a", role)
    key = form_key_of(client.get("/"))
    assert client.get("/accounts").status_code == 403
    for form in (NEW, {"action": "role", "name": "dr.a", "role": "administrator"}):
        assert client.post("/accounts", data={"form_key": key, **form}).status_code == 403
    assert [each.name for each in quick.context.store.accounts.all()] == ["dr.a", "root"]
    assert account(quick, "dr.a").role is role


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (NEW | {"again": "other words"}, "The two passwords differ."),
        (NEW | {"name": "a b"}, "A name has up to 64 letters"),
        (NEW | {"role": "god"}, "A role is one of reader, lead, administrator."),
        (NEW | {"password": "short", "again": "short"}, "10"),
        (NEW | {"name": "root"}, "There is an account"),
        ({"action": "disable", "name": "root"}, "Another administrator"),
        ({"action": "role", "name": "root", "role": "reader"}, "Another administrator"),
        ({"action": "disable", "name": "nobody"}, "There is no account nobody."),
        ({"action": "delete", "name": "dr.a"}, "That cannot be done with an account."),
        ({"name": "dr.a"}, "That cannot be done with an account."),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(quick: Served, form: dict[str, Any], message: str) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    before = quick.context.store.accounts.all()
    answer = post(root, "/accounts", "/accounts", **form)
    assert (answer.status_code, message in answer.text) == (422, True), answer.text
    assert quick.context.store.accounts.all() == before


def test_the_last_administrator_is_not_disabled_by_another_page_nor_by_the_command(
    quick: Served, clock: FakeClock, tmp_path: Path, logging_restored: None
) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    quick.account("other", Role.ADMINISTRATOR)
    key = form_key_of(root.get("/accounts"))
    assert quick.context.store.accounts.change("other", disabled_at=clock())
    (tmp_path / "willis.toml").write_text(
        f'[storage]\ndatabase_url = "{quick.context.store.transactions.engine.url}"\n'
    )
    for change in ("--disable", "--role=reader"):
        done = CliRunner().invoke(app, ["user", "set", "root", change, "--config", str(tmp_path / "willis.toml")])
        assert (done.exit_code, "root is the last administrator who may sign in" in done.stderr) == (2, True)
    assert root.post("/accounts", data={"form_key": key, "action": "disable", "name": "root"}).status_code == 422
    assert account(quick, "root").disabled_at is None


def test_the_account_of_a_provider_s_person_is_marked_and_can_be_disabled_alone(
    quick: Served, clock: FakeClock
) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    kim = Identity(Provider.OIDC, "https://id.example 7", "dr.kim")
    quick.context.store.accounts.of_identity(kim, Role.READER, clock())
    page = root.get("/accounts").text
    assert '<bdi>dr.kim</bdi> <span class="tag">OIDC</span>' in page
    assert "Role of dr.kim" not in page and 'aria-label="Disable dr.kim"' in page
    forms: list[dict[str, str]] = [{"action": "role", "role": "administrator"}]
    forms.append({"action": "password", "password": PASSWORD, "again": PASSWORD})
    for form in forms:
        answer = post(root, "/accounts", "/accounts", name="dr.kim", **form)
        assert (answer.status_code, "signs in by OIDC: role and password are changed there" in answer.text) == (
            422,
            True,
        )
    for _ in range(4):
        assert not enters(quick, "dr.kim")
    assert account(quick, "dr.kim").locked_until is None, "nobody locks out who has no password here"
    assert post(root, "/accounts", "/accounts", name="dr.kim", action="disable").status_code == 200
    assert account(quick, "dr.kim").disabled_at is not None


def test_a_forged_form_makes_no_account(quick: Served) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    cookies = dict(root.cookies)
    assert httpx.post(f"{quick.url}/accounts", data=NEW, cookies=cookies).status_code == 403
    assert quick.context.store.accounts.named("dr.new") is None


def test_the_audit_trail_tells_who_changed_which_account(quick: Served, clock: FakeClock) -> None:
    root = quick.signed_in("root", Role.ADMINISTRATOR)
    post(root, "/accounts", "/accounts", **NEW)
    quick.context.trail.close()
    trail = (quick.context.config.storage.directory / "audit.log").read_text("utf-8")
    [line] = [line for line in trail.splitlines() if "110137" in line]
    assert 'UserID="root"' in line and 'ParticipantObjectID="dr.new"' in line
    assert PASSWORD not in trail


def test_the_audit_trail_tells_of_the_first_account_too(quick: Served) -> None:
    quick.context.first_start.token = token = new_token()
    values = {"token": token, "name": "chief", "password": PASSWORD, "again": PASSWORD}
    assert "Sign out" in post(quick.client(), f"/first?token={token}", "/first", **values).text
    assert account_changes(quick) == [("chief", "chief", "made, administrator")]
