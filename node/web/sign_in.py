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
from node.errors import Refused
from node.web.passwords import Passwords
from storage.queries.accounts import Account, Accounts, TokenKind

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


@dataclass(frozen=True)
class SigningIn:
    """Who signs in with what, from where; `instead_of` is the token that the browser held before."""

    accounts: Accounts
    passwords: Passwords
    tries: Tries
    settings: Web
    clock: Callable[[], datetime]

    def sign_in(self, name: str, password: str, host: str, instead_of: str = "") -> tuple[Account, str]:
        """The account, and a new token for its session.  Raises Refused; which of name and password was wrong stays unsaid."""
        now = self.clock()
        if not self.tries.allowed(host, now):
            raise Refused(TOO_MANY)
        account = self.accounts.named(name.strip().lower())
        usable = account is not None and account.disabled_at is None and not is_locked(account, now)
        fits = self.passwords.fits(account.password_hash if account and usable else "", password)
        if account is None or not usable:
            raise Refused(NOT_SIGNED_IN)
        if not fits:
            lock_for = timedelta(minutes=self.settings.locked_minutes)
            self.accounts.failed(account, self.settings.failed_passwords, lock_for, now)
            raise Refused(NOT_SIGNED_IN)
        self.accounts.succeeded(account)
        return account, self.session(account, instead_of)

    def session(self, account: Account, instead_of: str = "") -> str:
        """A new session of the account; the one before is void."""
        now, token = self.clock(), new_token()
        expires_at = now + timedelta(hours=self.settings.session_hours)
        self.accounts.give_token(account, hash_of(token), TokenKind.SESSION, now, expires_at, hash_of(instead_of))
        return token


def is_locked(account: Account, now: datetime) -> bool:
    """Whether it had too many wrong passwords a short while ago."""
    return account.locked_until is not None and account.locked_until > now
