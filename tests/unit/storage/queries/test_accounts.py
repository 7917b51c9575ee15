"""Accounts, and the tokens that prove who asks."""

from datetime import timedelta

import pytest

from storage.queries.accounts import Account, NameTaken, Role, TokenKind
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
