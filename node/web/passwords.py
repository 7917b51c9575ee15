"""Passwords: hashed with Argon2id, at most two at a time, so that many sign-ins at once cannot fill the memory."""

import threading
from dataclasses import dataclass, field

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from node.errors import Refused

_ITERATIONS, _MEMORY_KIB = 6, 32 * 1024
"""Half the memory of RFC 9106's second choice and twice its passes: the pages' process is to stay small."""
LEAST_LENGTH = 10
MOST_LENGTH = 256


@dataclass(frozen=True)
class Passwords:
    """Hashes and compares passwords; `hasher` decides how long that takes."""

    hasher: PasswordHasher = field(default_factory=lambda: PasswordHasher(_ITERATIONS, _MEMORY_KIB))
    _turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))

    def hashed(self, password: str) -> str:
        """What is kept of the password."""
        with self._turns:
            return self.hasher.hash(password)

    def fits(self, password_hash: str, password: str) -> bool:
        """Whether it is the password that was hashed; with no hash, False after the same time."""
        with self._turns:
            try:
                return bool(self.hasher.verify(password_hash or self._nobodys, password)) and bool(password_hash)
            except (VerificationError, InvalidHashError):
                return False

    @property
    def _nobodys(self) -> str:
        if not _NOBODYS:
            _NOBODYS.append(self.hasher.hash("nobody has this password"))
        return _NOBODYS[0]


_NOBODYS: list[str] = []


def checked_password(name: str, password: str) -> str:
    """`password`.  Raises Refused, saying what is wrong with it."""
    if not LEAST_LENGTH <= len(password) <= MOST_LENGTH:
        raise Refused(f"a password has at least {LEAST_LENGTH} and at most {MOST_LENGTH} characters")
    if name in password.lower():
        raise Refused("a password does not contain the name")
    return password
