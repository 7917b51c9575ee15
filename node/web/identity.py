"""Persons whom an identity provider knows: which role they get, which name, and why one is not let in."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from node.errors import Refused
from storage.queries.accounts import Account, Accounts, Identity, Role

LOCAL_GO_ON = "local accounts can sign in meanwhile"


class Reason(StrEnum):
    """Why somebody whom a provider was asked about is not let in."""

    AWAY = "provider_away"
    ANSWER = "provider_answer"
    """It answers, but not as it should."""
    CLIENT = "wrong_client_secret"
    REFUSED = "refused_by_provider"
    STATE = "replayed_or_foreign_state"
    CODE = "used_or_expired_code"
    SIGNATURE = "wrong_signature"
    ISSUER = "wrong_issuer"
    AUDIENCE = "wrong_audience"
    NONCE = "wrong_nonce"
    EXPIRED = "token_expired"
    SKEW = "clock_skew"
    NOT_VALID = "not_valid"
    NO_ROLE = "no_role"
    DISABLED = "disabled"


class NotAdmitted(Refused):
    """The person is not let in.  The message is a sentence for him and for the administrator."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def highest_role(groups: Iterable[str], roles: Mapping[str, str], default: str) -> Role | None:
    """The highest role that one of the groups gives, else the default; None when there is none."""
    given = [Role(roles[group]) for group in groups if group in roles] or ([Role(default)] if default else [])
    return max(given, key=list(Role).index, default=None)


def account_name(wanted: str, subject: str) -> str:
    """`wanted` as an account can be called: a-z, digits and . _ @ -, up to 64 of them; without any, one of the subject."""
    plain = unicodedata.normalize("NFKD", wanted.strip()).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._@-]+", "-", plain).strip("._@-")[:64]
    return name or f"person-{hashlib.sha256(subject.encode()).hexdigest()[:12]}"


Note = Callable[[Account, str], None]
"""Is told of an account what was done to it."""


def admitted(
    accounts: Accounts, identity: Identity, role: Role | None, remedy: str, now: datetime, note: Note
) -> Account:
    """The person's account, made at his first sign-in, with the role that the provider gives him now.

    `note` is told that it was made, or has another role.  Raises NotAdmitted: without a role (then his sessions and tokens
    are void too), or where the account is disabled.
    """
    known = accounts.with_subject(identity.provider, identity.subject)
    if role is None:
        if known is not None:
            accounts.sign_out_everywhere(known)
        raise NotAdmitted(Reason.NO_ROLE, f"No group of {identity.name} has a role in Willis; {remedy}.")
    account = accounts.of_identity(identity, role, now)
    if account.disabled_at is not None:
        raise NotAdmitted(Reason.DISABLED, f"The account {account.name} is disabled; an administrator can enable it.")
    if known is None or known.role is not account.role:
        note(account, f"{'made,' if known is None else 'role'} {account.role} by {identity.provider.upper()}")
    return account
