"""Accounts, and the tokens that prove who asks."""

import threading
from datetime import timedelta

import pytest

from storage.queries.accounts import Account, Identity, NameTaken, NotPossible, Provider, Role, TokenKind
from storage.queries.sign_in_requests import SignInRequest
from storage.store import Store
from tests.support.builders import FakeClock

LOCK, HOUR = timedelta(minutes=15), timedelta(hours=1)


def added(store: Store, clock: FakeClock, name: str = "dr.a", role: Role = Role.READER) -> Account:
    return store.accounts.add(name, role, f"hash of {name}", clock())


def test_an_account_is_as_it_was_added(store: Store, clock: FakeClock) -> None:
    account = added(store, clock, role=Role.LEAD)
    assert store.accounts.named("dr.a") == account
    assert (account.role, account.created_at, account.failures, account.locked_until) == (Role.LEAD, clock(), 0, None)
    assert store.accounts.named("dr.b") is None


def test_a_name_is_taken_once_and_the_first_account_is_the_first(store: Store, clock: FakeClock) -> None:
    added(store, clock)
    with pytest.raises(NameTaken):
        added(store, clock)
    with pytest.raises(NameTaken):
        store.accounts.add("dr.b", Role.ADMINISTRATOR, "x", clock(), only_first=True)
    assert [each.name for each in store.accounts.all()] == ["dr.a"]


def test_too_many_wrong_passwords_in_a_row_lock_an_account_for_a_while(store: Store, clock: FakeClock) -> None:
    account = added(store, clock)
    assert not store.accounts.failed(account, 3, LOCK, clock())
    store.accounts.succeeded(account)
    assert [store.accounts.failed(account, 3, LOCK, clock()) for _ in range(3)] == [False, False, True]
    found = store.accounts.named("dr.a")
    assert found is not None
    assert (found.locked_until, found.failures) == (clock() + LOCK, 0)
    assert store.accounts.change("dr.a")
    assert store.accounts.named("dr.a") == account


def test_a_token_proves_an_account_until_it_expires_or_is_void(store: Store, clock: FakeClock) -> None:
    account = added(store, clock)
    store.accounts.give_token(account, "a" * 64, TokenKind.SESSION, clock(), clock() + HOUR)
    assert store.accounts.of_token("a" * 64, TokenKind.SESSION, clock()) == account
    assert store.accounts.of_token("a" * 64, TokenKind.API, clock()) is None
    assert store.accounts.of_token("b" * 64, TokenKind.SESSION, clock()) is None
    assert store.accounts.of_token("a" * 64, TokenKind.SESSION, clock() + HOUR) is None
    store.accounts.void("a" * 64)
    assert store.accounts.of_token("a" * 64, TokenKind.SESSION, clock()) is None


def test_a_new_session_ends_the_one_before_and_a_changed_account_all(store: Store, clock: FakeClock) -> None:
    account = added(store, clock)
    for token, before in (("a" * 64, ""), ("b" * 64, "a" * 64)):
        store.accounts.give_token(account, token, TokenKind.SESSION, clock(), clock() + HOUR, before)
    assert store.accounts.of_token("a" * 64, TokenKind.SESSION, clock()) is None
    assert store.accounts.of_token("b" * 64, TokenKind.SESSION, clock()) == account
    assert store.accounts.change("dr.a", role=Role.LEAD.value)
    assert store.accounts.of_token("b" * 64, TokenKind.SESSION, clock()) is None


def test_a_disabled_account_proves_nothing(store: Store, clock: FakeClock) -> None:
    account = added(store, clock)
    assert store.accounts.change("dr.a", disabled_at=clock())
    store.accounts.give_token(account, "a" * 64, TokenKind.SESSION, clock(), clock() + HOUR)
    assert store.accounts.of_token("a" * 64, TokenKind.SESSION, clock()) is None
    assert not store.accounts.change("nobody")


def test_each_role_may_what_those_before_it_may(store: Store, clock: FakeClock) -> None:
    lead = added(store, clock, role=Role.LEAD)
    assert [lead.may(role) for role in Role] == [True, True, False]


def test_the_last_administrator_who_may_sign_in_stays(store: Store, clock: FakeClock) -> None:
    added(store, clock, "root", Role.ADMINISTRATOR)
    added(store, clock, "other", Role.ADMINISTRATOR)
    assert store.accounts.change("other", disabled_at=clock())
    for values in ({"disabled_at": clock()}, {"role": Role.LEAD.value}):
        with pytest.raises(NotPossible, match="root is the last administrator who may sign in"):
            store.accounts.change("root", **values)
    assert store.accounts.change("root", password_hash="another")
    assert store.accounts.change("other", disabled_at=None)
    assert store.accounts.change("root", role=Role.READER.value)
    found = store.accounts.named("root")
    assert found is not None and found.role is Role.READER


def test_an_administrator_of_a_provider_does_not_take_the_place_of_the_last_with_a_password(
    store: Store, clock: FakeClock
) -> None:
    added(store, clock, "root", Role.ADMINISTRATOR)
    of_provider = store.accounts.of_identity(known(name="dr.lead"), Role.ADMINISTRATOR, clock())
    with pytest.raises(NotPossible, match="root is the last administrator who may sign in with a password here"):
        store.accounts.change("root", disabled_at=clock())
    assert store.accounts.change(of_provider.name, disabled_at=clock())


def test_the_last_administrator_of_all_stays_where_no_other_has_a_password_either(
    store: Store, clock: FakeClock
) -> None:
    only = store.accounts.of_identity(known(name="dr.lead"), Role.ADMINISTRATOR, clock())
    with pytest.raises(NotPossible, match=r"dr\.lead is the last administrator"):
        store.accounts.change(only.name, disabled_at=clock())


def test_a_reader_of_a_provider_does_not_use_up_the_first_start(store: Store, clock: FakeClock) -> None:
    store.accounts.of_identity(known(), Role.READER, clock())
    assert not store.accounts.have_begun()
    assert store.accounts.add("root", Role.ADMINISTRATOR, "x", clock(), only_first=True).name == "root"
    assert store.accounts.have_begun()
    with pytest.raises(NameTaken):
        store.accounts.add("second", Role.ADMINISTRATOR, "x", clock(), only_first=True)


def test_of_two_administrators_who_disable_each_other_at_once_one_stays(store: Store, clock: FakeClock) -> None:
    for round_ in range(5):
        pair = [added(store, clock, f"{name}{round_}", Role.ADMINISTRATOR).name for name in "ab"]
        for before in store.accounts.all():
            if before.name not in pair and before.disabled_at is None:
                store.accounts.change(before.name, disabled_at=clock())
        together, refused = threading.Barrier(2), list[str]()

        def disable(name: str, together: threading.Barrier = together, refused: list[str] = refused) -> None:
            together.wait()
            try:
                store.accounts.change(name, disabled_at=clock())
            except NotPossible as error:
                refused.append(str(error))

        threads = [threading.Thread(target=disable, args=(name,)) for name in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        active = [each.name for each in store.accounts.all() if each.disabled_at is None]
        assert len(active) == 1 and active[0] in pair


def known(subject: str = "https://id.example 1", name: str = "dr.a") -> Identity:
    return Identity(Provider.OIDC, subject, name)


def test_a_person_of_a_provider_is_found_by_his_subject_and_never_by_a_name(store: Store, clock: FakeClock) -> None:
    local = added(store, clock, role=Role.ADMINISTRATOR)
    first = store.accounts.of_identity(known(), Role.READER, clock())
    assert (first.name, first.provider, first.password_hash) == ("dr.a-2", Provider.OIDC, "")
    assert store.accounts.of_identity(known("https://id.example 2"), Role.READER, clock()).name == "dr.a-3"
    again = store.accounts.of_identity(known(name="dr.married"), Role.LEAD, clock())
    assert (again.id, again.name, again.role) == (first.id, "dr.a-2", Role.LEAD)
    elsewhere = Identity(Provider.LDAP, first.subject or "", "dr.b")
    assert store.accounts.with_subject(Provider.LDAP, elsewhere.subject) is None
    assert store.accounts.named("dr.a") == local


def test_role_and_password_of_a_provider_s_account_are_not_changed_here(store: Store, clock: FakeClock) -> None:
    account = store.accounts.of_identity(known(), Role.READER, clock())
    for values in ({"role": "administrator"}, {"password_hash": "x"}):
        with pytest.raises(NotPossible, match="signs in by OIDC"):
            store.accounts.change("dr.a", **values)
    assert store.accounts.change("dr.a", disabled_at=clock())
    disabled = store.accounts.of_identity(known(), Role.ADMINISTRATOR, clock())
    assert (disabled.id, disabled.role, disabled.disabled_at) == (account.id, Role.READER, clock())


def test_a_person_who_signs_in_twice_at_once_gets_one_account(store: Store, clock: FakeClock) -> None:
    together, got = threading.Barrier(2), list[Account]()

    def sign_in() -> None:
        together.wait()
        got.append(store.accounts.of_identity(known(), Role.READER, clock()))

    threads = [threading.Thread(target=sign_in) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] == got[1] and len(store.accounts.all()) == 1


def test_a_sign_in_that_was_begun_comes_back_once_and_in_time(store: Store, clock: FakeClock) -> None:
    begun = SignInRequest("a" * 64, "b" * 64, "nonce", "verifier", "/cases/1")
    store.sign_in_requests.begin(begun, clock(), clock() + HOUR)
    assert store.sign_in_requests.take("c" * 64, clock()) is None
    assert store.sign_in_requests.take("a" * 64, clock()) == begun
    assert store.sign_in_requests.take("a" * 64, clock()) is None
    store.sign_in_requests.begin(begun, clock(), clock() + HOUR)
    assert store.sign_in_requests.take("a" * 64, clock() + HOUR) is None
