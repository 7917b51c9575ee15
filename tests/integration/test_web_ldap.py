"""Signing in by a real directory, OpenLDAP's slapd."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ldap3
import pytest
from ldap3.core.exceptions import LDAPOperationResult

from node.cli import checks
from node.config.sections import Config
from node.config.sign_in import Ldap
from node.web.directory import Directory, Found, _entries
from node.web.identity import NotAdmitted, Reason
from storage.files.instances import Files
from storage.queries.accounts import Identity, Provider, Role
from storage.store import Store
from tests.support.builders import FakeClock
from tests.support.certificates import Certificates, certificates
from tests.support.pages import PASSWORD, Served, account_changes, post, serving, web_context
from tests.support.running import free_port
from tests.support.slapd import BASE, LEADS, PERSON_PASSWORD, READERS, Slapd, running_slapd

__all__ = ["certificates"]


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd"), certificates) as running:
        yield running


@pytest.fixture
def pages(sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock, slapd: Slapd) -> Iterator[Served]:
    settings = web_context(sqlite_store, files, tmp_path, clock, failed_passwords=3, ldap=slapd.settings())
    with serving(settings) as served:
        yield served


def enter(served: Served, name: str, password: str = PERSON_PASSWORD) -> httpx.Response:
    return post(served.client(), "/sign-in", "/sign-in", name=name, password=password)


def is_in(answer: httpx.Response) -> bool:
    return "Sign out" in answer.text


def test_a_person_of_the_directory_gets_an_account_with_the_role_of_his_highest_group(pages: Served) -> None:
    assert is_in(enter(pages, "dr.kim")) and is_in(enter(pages, "DR.LEAD"))
    assert [(each.name, each.role, each.provider) for each in pages.context.store.accounts.all()] == [
        ("dr.kim", Role.READER, Provider.LDAP),
        ("dr.lead", Role.LEAD, Provider.LDAP),
    ]
    assert {each.person_name for each in pages.context.store.accounts.all()} == {"Kim^Jane van"}, "of displayName"
    refused = enter(pages, "clerk")
    assert (refused.status_code, "No group of clerk has a role in Willis" in refused.text) == (403, True)
    pages.context.trail.close()
    trail = (pages.context.config.storage.directory / "audit.log").read_text("utf-8")
    assert 'UserID="dr.kim"' in trail and "No group of clerk" in trail and PERSON_PASSWORD not in trail
    assert account_changes(pages)[1] == ("dr.lead", "dr.lead", "made, lead by LDAP")


def test_a_role_that_the_directory_takes_away_is_gone_at_the_next_sign_in(pages: Served, slapd: Slapd) -> None:
    assert is_in(enter(pages, "dr.lead"))
    member = f"member: uid=dr.lead,ou=people,{BASE}\n"

    def change(how: str) -> None:
        entries = f"dn: {LEADS}\nchangetype: modify\n{how}: member\n{member}"
        extra = f"-\nadd: member\nmember: cn=willis,{BASE}\n" if how == "delete" else ""
        done = slapd.run("ldapmodify", "-D", f"cn=admin,{BASE}", "-w", "admin", entries=f"{entries}{extra}")
        assert done.returncode == 0, done.stderr

    change("delete")
    try:
        assert is_in(enter(pages, "dr.lead"))
        [account] = pages.context.store.accounts.all()
        assert account.role is Role.READER
    finally:
        change("add")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("dr.kim", "wrong"),
        ("dr.kim", ""),
        ("dr.kim", "\0"),
        ("*", PERSON_PASSWORD),
        ("dr.*", PERSON_PASSWORD),
        ("dr.kim)(uid=*", PERSON_PASSWORD),
        ("dr.kim\0", PERSON_PASSWORD),
        ("nobody", PERSON_PASSWORD),
        ("", PERSON_PASSWORD),
        ("x" * 300, PERSON_PASSWORD),
    ],
)
def test_neither_wrong_nor_empty_passwords_nor_searches_in_a_name_let_anybody_in(
    pages: Served, name: str, password: str
) -> None:
    answer = enter(pages, name, password)
    assert (answer.status_code, "Not signed in: the name or the password is wrong" in answer.text) == (403, True)
    assert pages.context.store.accounts.all() == []


def test_the_server_itself_would_take_an_empty_password(slapd: Slapd) -> None:
    done = slapd.run("ldapwhoami", "-D", f"uid=dr.kim,ou=people,{BASE}", "-w", "")
    assert (done.returncode, done.stdout.strip()) == (0, "anonymous")


def test_a_name_with_the_letters_of_filters_is_found_as_it_is(pages: Served) -> None:
    assert is_in(enter(pages, "odd(name)*"))
    assert [each.name for each in pages.context.store.accounts.all()] == ["odd-name"]


@pytest.mark.parametrize("has_account", [True, False])
def test_too_many_wrong_passwords_lock_a_person_of_the_directory(
    pages: Served, clock: FakeClock, has_account: bool
) -> None:
    if has_account:
        assert is_in(enter(pages, "dr.kim"))
    for _ in range(3):
        assert not is_in(enter(pages, "dr.kim", "wrong"))
    assert not is_in(enter(pages, "dr.kim"))
    assert is_in(enter(pages, "dr.lead"))
    clock.advance(15 * 60 + 1)
    assert is_in(enter(pages, "dr.kim"))


def test_a_local_account_is_never_the_directory_s_and_a_disabled_person_stays_out(pages: Served) -> None:
    pages.account("dr.kim", Role.ADMINISTRATOR)
    assert not is_in(enter(pages, "dr.kim"))
    assert is_in(enter(pages, "dr.kim", PASSWORD))
    assert is_in(enter(pages, "dr.lead"))
    pages.context.store.accounts.change("dr.lead", disabled_at=pages.context.clock())
    assert not is_in(enter(pages, "dr.lead"))


@pytest.mark.parametrize(
    "changes",
    [
        {"group_attribute": "nothing", "group_base": f"ou=groups,{BASE}"},
        {"roles": {READERS.upper().replace(",", ", "): "reader"}},
        {"roles": {}, "default_role": "reader"},
    ],
)
def test_groups_are_found_by_search_too_and_in_any_spelling(
    sqlite_store: Store, files: Files, tmp_path: Path, slapd: Slapd, changes: dict[str, Any]
) -> None:
    with serving(web_context(sqlite_store, files, tmp_path, ldap=slapd.settings(**changes))) as served:
        assert is_in(enter(served, "dr.kim"))


def test_starttls_and_plain_ldap_on_this_machine_work_too(
    sqlite_store: Store, files: Files, tmp_path: Path, slapd: Slapd
) -> None:
    for name, settings in (("dr.kim", slapd.plain(starttls=True)), ("dr.lead", slapd.plain(ca=None))):
        with serving(web_context(sqlite_store, files, tmp_path, ldap=settings)) as served:
            assert is_in(enter(served, name))


def test_a_directory_that_is_away_hinders_no_local_account(
    sqlite_store: Store, files: Files, tmp_path: Path, slapd: Slapd
) -> None:
    away = slapd.settings(url=f"ldaps://127.0.0.1:{free_port()}")
    with serving(web_context(sqlite_store, files, tmp_path, ldap=away)) as served:
        answer = enter(served, "dr.kim")
        assert (answer.status_code, "local accounts can sign in meanwhile" in answer.text) == (503, True)
        served.signed_in("dr.a")
        for _ in range(4):
            served.context.outside.acquire()
        assert "Too many are signing in at once" in enter(served, "dr.kim").text
        assert is_in(enter(served, "dr.a", PASSWORD))


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"ca": "other.pem"}, Reason.AWAY, "is not trusted, or TLS failed"),
        ({"bind_password_file": "ca.pem.wrong"}, Reason.CLIENT, "does not let Willis search"),
        ({"bind_dn": "", "bind_password_file": None}, Reason.ANSWER, "corrects user_base or group_base"),
        ({"user_base": f"ou=nowhere,{BASE}"}, Reason.ANSWER, "corrects user_base or group_base"),
        ({"user_base": "nowhere"}, Reason.ANSWER, "corrects user_base or group_base"),
        ({"user_filter": "(uid={name}"}, Reason.ANSWER, "corrects user_filter or group_filter"),
        ({"user_filter": "(|(uid={name})(mail=same@hospital.example))"}, Reason.ANSWER, "finds several persons"),
        ({"subject_attribute": "nothing"}, Reason.ANSWER, "gives no nothing of the person"),
    ],
)
def test_what_is_wrong_with_the_directory_is_said(
    slapd: Slapd, certificates: Certificates, changes: dict[str, Any], reason: Reason, message: str
) -> None:
    (certificates.folder / "ca.pem.wrong").write_text("not the password")
    files = {key: certificates.folder / changes[key] for key in ("ca", "bind_password_file") if changes.get(key)}
    with pytest.raises(NotAdmitted) as caught:
        Directory(Ldap.model_validate(slapd.settings(**changes | files))).find("dr.kim")
    assert caught.value.reason is reason
    assert message in str(caught.value) and "local accounts can sign in meanwhile" in str(caught.value)


def test_a_directory_that_never_answers_is_waited_for_no_longer_than_it_may_take(slapd: Slapd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for scheme in ("ldap", "ldaps"):
            url = f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}"
            with pytest.raises(NotAdmitted, match="does not answer within 1 s") as caught:
                Directory(Ldap.model_validate(slapd.settings(url=url, timeout_seconds=1))).find("dr.kim")
            assert caught.value.reason is Reason.AWAY


def test_a_missing_file_of_the_directory_s_password_is_said_on_the_login_page(
    sqlite_store: Store, files: Files, tmp_path: Path, slapd: Slapd
) -> None:
    settings = slapd.settings(bind_password_file=tmp_path / "gone")
    with serving(web_context(sqlite_store, files, tmp_path, ldap=settings)) as served:
        answer = enter(served, "dr.kim")
        assert (answer.status_code, "No such file or directory; local accounts" in answer.text) == (503, True)


def test_a_certificate_of_another_name_is_not_trusted(
    sqlite_store: Store,
    files: Files,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> None:
    with running_slapd(tmp_path_factory.mktemp("slapd"), certificates, "elsewhere", "read") as other:
        for settings in (other.settings(), other.plain(starttls=True)):
            with serving(web_context(sqlite_store, files, tmp_path, ldap=settings)) as served:
                assert "is not trusted, or TLS failed" in enter(served, "dr.kim").text
        anonymous = other.plain(bind_dn="", bind_password_file=None)
        with serving(web_context(sqlite_store, files, tmp_path, ldap=anonymous)) as served:
            assert is_in(enter(served, "dr.kim"))


def test_the_check_of_the_configuration_asks_the_directory_when_that_is_wanted(
    slapd: Slapd, certificates: Certificates, tmp_path: Path
) -> None:
    def checked(**changes: Any) -> list[str]:
        config = Config.model_validate({"web": {"ldap": slapd.settings(**changes)}})
        return [("" if each.is_fatal else "warning: ") + each.message for each in checks._ldap(config.web, ask=True)]

    assert checked() == []
    [message] = checked(user_base=f"ou=nowhere,{BASE}")
    assert message.startswith("[web] The directory at 127.0.0.1:") and "corrects user_base or group_base" in message
    [message] = checked(bind_password_file=certificates.folder / "ca.key")
    assert message.startswith("[web.ldap] bind_password_file = ") and message.endswith(
        "must hold one line and nothing else"
    )
    [message] = checked(ca=tmp_path / "gone")
    assert message.startswith("[web.ldap] ca = ") and message.endswith("No such file or directory")
    [message] = checked(url=f"ldaps://127.0.0.1:{free_port()}")
    assert message.startswith("warning: [web] The directory at") and "does not answer within 5 s" in message
    [message] = checked(url="ldaps://dc.invalid")
    assert message.startswith("[web.ldap] the host of its url = 'dc.invalid': the host name cannot be resolved")


@contextmanager
def answering(bind: int, search: int, extended: int = 0) -> Iterator[str]:
    """The URL of a server whose answers to bind, search and StartTLS are these result codes (RFC 4511 4.1.9)."""

    class Answering(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while asked := self.request.recv(4096):
                number = 2 + (asked[1] & 0x7F if asked[1] & 0x80 else 0)
                kind = number + 2 + asked[number + 1]
                tag, result = {0x60: (0x61, bind), 0x63: (0x65, search), 0x77: (0x78, extended)}.get(
                    asked[kind], (0, 0)
                )
                if not tag:  # unbind
                    return
                message = asked[number:kind] + bytes([tag, 7, 0x0A, 1, result, 4, 0, 4, 0])
                self.request.sendall(bytes([0x30, len(message)]) + message)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ldap://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_referral_in_answer_to_a_bind_lets_nobody_in(slapd: Slapd) -> None:
    his = Found(Identity(Provider.LDAP, "subject", "dr.kim"), f"uid=dr.kim,ou=people,{BASE}", ())
    with answering(bind=10, search=0) as url:
        directory = Directory(Ldap.model_validate(slapd.settings(url=url)))
        for asked in (lambda: directory.is_password(his, PERSON_PASSWORD), lambda: directory.find("dr.kim")):
            with pytest.raises(NotAdmitted, match=r"refuses with LDAP result 10; an administrator .+ RFC 4511"):
                asked()


@pytest.mark.parametrize("result", [2, 51, 52, 80])
def test_a_directory_that_refuses_starttls_says_so_and_gets_no_password(slapd: Slapd, result: int) -> None:
    with answering(bind=0, search=0, extended=result) as url:
        directory = Directory(Ldap.model_validate(slapd.settings(url=url, starttls=True)))
        with pytest.raises(
            NotAdmitted, match=r"refuses StartTLS; an administrator .+ ldaps://.+ local accounts"
        ) as caught:
            directory.find("dr.kim")
    assert caught.value.reason is Reason.ANSWER


@pytest.mark.parametrize("result", [3, 4, 10])
def test_a_search_that_is_not_whole_is_no_answer(slapd: Slapd, result: int) -> None:
    with answering(bind=0, search=result) as url:
        server = ldap3.Server(url, get_info=ldap3.NONE)
        with (
            ldap3.Connection(server, auto_referrals=False) as connection,
            pytest.raises(LDAPOperationResult, match=str(result)),
        ):
            _entries(connection, BASE, "(member=x)", [])
        if result != 4:  # of a person the second is not asked for: there more than were wanted are expected
            with pytest.raises(NotAdmitted, match=f"refuses with LDAP result {result}"):
                Directory(Ldap.model_validate(slapd.settings(url=url))).find("dr.kim")
