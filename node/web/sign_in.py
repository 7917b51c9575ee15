"""Signing in: wrong passwords lock an account, many tries from one address are turned away, sessions are tokens."""

import hashlib
import hmac
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.config.sections import Web
from node.config.sign_in import Ldap
from node.errors import Refused
from node.web.identity import LOCAL_GO_ON, NotAdmitted, Note, Reason, admitted, highest_role
from node.web.passwords import Passwords
from storage.queries.accounts import Account, Accounts, Provider, TokenKind

NOT_SIGNED_IN = "Not signed in: the name or the password is wrong, or the account is locked for a while after too many wrong passwords."
TOO_MANY = "Too many tries from this address; wait a minute."
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_MOST_ADDRESSES = 4096


def checked_name(name: str) -> str:
    """The account's name in lower case.  Raises Refused when it can be none."""
    lower = name.strip().lower()
    if not _NAME.fullmatch(lower):
        raise Refused("a name has up to 64 letters a-z, digits, and . _ @ -")
    return lower


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def form_key(token: str) -> str:
    """What a form carries to show that it is from a page of ours: only who has the token can know it (CSRF)."""
    return hashlib.sha256(b"form\0" + token.encode()).hexdigest()


def is_form_key(token: str, given: str) -> bool:
    """Whether the form is from a page that was served to the holder of this token."""
    return bool(token) and hmac.compare_digest(form_key(token).encode(), given.encode())


@dataclass
class Tries:
    """Counts tries to sign in by address: at most so many a minute."""

    most: int = 20
    within: timedelta = timedelta(minutes=1)
    _times: dict[str, deque[datetime]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allowed(self, host: str, now: datetime) -> bool:
        """Whether the address may try once more; if so, that is counted."""
        with self._lock:
            if len(self._times) >= _MOST_ADDRESSES:
                self._times.clear()
            times = self._times.setdefault(host, deque())
            while times and now - times[0] > self.within:
                times.popleft()
            if len(times) >= self.most:
                return False
            times.append(now)
            return True


@dataclass
class FirstStart:
    """The one-time link with which the first account is made; none once there is an account."""

    token: str = ""

    def fits(self, given: str) -> bool:
        """Whether this is the link's token."""
        return bool(self.token) and hmac.compare_digest(self.token.encode(), given.encode())


@dataclass
class Strangers:
    """Wrong passwords of people whom the directory knows and who have no account yet: locked as accounts are."""

    _failures: dict[str, tuple[int, datetime | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def failed(self, subject: str, most: int, lock_for: timedelta, now: datetime) -> None:
        """One more wrong password; with `most` of them in a row the person is locked."""
        with self._lock:
            if len(self._failures) >= _MOST_ADDRESSES:
                self._failures.clear()
            count = self._failures.get(subject, (0, None))[0] + 1
            self._failures[subject] = (0, now + lock_for) if count >= most else (count, None)

    def is_locked(self, subject: str, now: datetime) -> bool:
        """Whether he had too many wrong passwords a short while ago."""
        with self._lock:
            until = self._failures.get(subject, (0, None))[1]
            return until is not None and until > now


@dataclass(frozen=True)
class SigningIn:
    """Who signs in with what, from where; `instead_of` is the token that the browser held before."""

    accounts: Accounts
    passwords: Passwords
    tries: Tries
    settings: Web
    clock: Callable[[], datetime]
    strangers: Strangers
    outside: threading.BoundedSemaphore
    note: Note
    """Is told what the directory's answer makes of an account."""

    def sign_in(self, name: str, password: str, host: str, instead_of: str = "") -> tuple[Account, str]:
        """The account, and a new token for its session.  Raises Refused; which of name and password was wrong stays unsaid.

        A local account is never asked for elsewhere; any other name is the directory's, where there is one.
        """
        now = self.clock()
        if not self.tries.allowed(host, now):
            raise Refused(TOO_MANY)
        named = self.accounts.named(name.strip().lower())
        is_local = named is not None and named.provider is Provider.LOCAL
        if self.settings.ldap is None or is_local:
            account = self._by_password(named if is_local else None, password, now)
        else:
            account = self._by_directory(self.settings.ldap, name.strip(), password, now)
        self.accounts.succeeded(account)
        return account, self.session(account, instead_of)

    @property
    def _lock(self) -> tuple[int, timedelta]:
        """After how many wrong passwords, and for how long."""
        return self.settings.failed_passwords, timedelta(minutes=self.settings.locked_minutes)

    def _by_password(self, account: Account | None, password: str, now: datetime) -> Account:
        """The account, whose own password it is.  Raises Refused."""
        usable = account is not None and account.disabled_at is None and not is_locked(account, now)
        fits = self.passwords.fits(account.password_hash if account and usable else "", password)
        if account is None or not usable:
            raise Refused(NOT_SIGNED_IN)
        if not fits:
            self.accounts.failed(account, *self._lock, now)
            raise Refused(NOT_SIGNED_IN)
        return account

    def _by_directory(self, settings: Ldap, name: str, password: str, now: datetime) -> Account:
        """The account of who has this name and password there.  Raises Refused, and NotAdmitted with the reason."""
        from node.web.directory import Directory  # who has none need not load it

        if not password:
            raise Refused(NOT_SIGNED_IN)
        if not self.outside.acquire(blocking=False):
            raise NotAdmitted(Reason.AWAY, f"Too many are signing in at once, or the directory is slow; {LOCAL_GO_ON}.")
        try:
            directory = Directory(settings)
            found = directory.find(name)
            if found is None:
                raise Refused(NOT_SIGNED_IN)
            subject = found.identity.subject
            known = self.accounts.with_subject(Provider.LDAP, subject)
            if (known and (known.disabled_at is not None or is_locked(known, now))) or self.strangers.is_locked(
                subject, now
            ):
                raise Refused(NOT_SIGNED_IN)
            if not directory.is_password(found, password):
                if known:
                    self.accounts.failed(known, *self._lock, now)
                else:
                    self.strangers.failed(subject, *self._lock, now)
                raise Refused(NOT_SIGNED_IN)
        finally:
            self.outside.release()
        role = highest_role(found.groups, settings.roles, settings.default_role)
        remedy = "an administrator gives one to a group of the directory in [web.ldap] roles"
        return admitted(self.accounts, found.identity, role, remedy, now, self.note)

    def session(self, account: Account, instead_of: str = "") -> str:
        """A new session of the account; the one before is void."""
        now, token = self.clock(), new_token()
        expires_at = now + timedelta(hours=self.settings.session_hours)
        self.accounts.give_token(account, hash_of(token), TokenKind.SESSION, now, expires_at, hash_of(instead_of))
        return token


def is_locked(account: Account, now: datetime) -> bool:
    """Whether it had too many wrong passwords a short while ago."""
    return account.locked_until is not None and account.locked_until > now
