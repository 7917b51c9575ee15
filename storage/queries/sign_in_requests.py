"""Sign-ins that were begun at an identity provider: each comes back once, in time, and to the browser that began it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete

from storage.database.schema import SignInRequestRow
from storage.database.transactions import Transactions
from storage.queries.rows import alike


@dataclass(frozen=True)
class SignInRequest:
    """What is compared when it comes back, and where the person wants to go.  Of state and browser only the hashes."""

    state_sha256: str
    browser_sha256: str
    nonce: str
    code_verifier: str
    goal: str


class SignInRequests:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def begin(self, request: SignInRequest, now: datetime, expires_at: datetime) -> None:
        """The sign-in is awaited until it expires; those that have are gone."""
        with self._transactions.writing() as session:
            session.execute(delete(SignInRequestRow).where(SignInRequestRow.expires_at < now))
            session.add(SignInRequestRow(**alike(SignInRequest, request), expires_at=expires_at))

    def take(self, state_sha256: str, now: datetime) -> SignInRequest | None:
        """The sign-in, which cannot be taken again; None when none with this state is awaited."""
        found = delete(SignInRequestRow).where(SignInRequestRow.state_sha256 == state_sha256)
        with self._transactions.writing() as session:
            row = session.scalar(found.returning(SignInRequestRow))
            return None if row is None or row.expires_at <= now else SignInRequest(**alike(SignInRequest, row))
