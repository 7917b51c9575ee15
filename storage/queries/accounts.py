"""Who may use the pages, and what proves that a request is theirs.  Passwords and tokens come hashed, and leave as they came."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, bindparam, delete, select, update
from sqlalchemy.orm import Session

from storage.database.schema import AccountRow, AccountTokenRow
from storage.database.transactions import Transactions
from storage.errors import StorageError
from storage.queries.rows import alike


class Role(StrEnum):
    """What an account may do; each may what those before it may."""

    READER = "reader"
    """Sees cases, acknowledges them, judges findings, takes cases."""
    LEAD = "lead"
    """Gives cases to others and undoes what others did."""
    ADMINISTRATOR = "administrator"


class TokenKind(StrEnum):
    """What a token is for."""

    SESSION = "session"
    API = "api"


class Provider(StrEnum):
    """Who says whether a person is who he claims to be."""

    LOCAL = "local"
    """The account's own password."""
    OIDC = "oidc"
    LDAP = "ldap"


class NameTaken(StorageError):
    """An account of this name is there; nothing was changed."""


class NotPossible(StorageError):
    """The account cannot be changed so; nothing was changed."""


@dataclass(frozen=True)
class Identity:
    """A person as an identity provider knows him.  `subject`: issuer, a space, and what never changes of him there."""

    provider: Provider
    subject: str
    name: str
    person_name: str = ""
    """As DICOM writes it, `Doe^Jane`; "" where the provider says none."""


@dataclass(frozen=True)
class Account:
    """One person.  `locked_until`: after too many wrong passwords."""

    id: int
    name: str
    role: Role
    password_hash: str
    failures: int
    locked_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    provider: Provider = Provider.LOCAL
    subject: str | None = None
    person_name: str = ""
    """As DICOM writes it, `Doe^Jane`; "" where it is not known."""

    def may(self, role: Role) -> bool:
        """Whether it may what `role` may."""
        order = list(Role)
        return order.index(self.role) >= order.index(role)


class Accounts:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def add(
        self,
        name: str,
        role: Role,
        password_hash: str,
        now: datetime,
        only_first: bool = False,
        person_name: str = "",
    ) -> Account:
        """The account is there.  Raises NameTaken, also when it is to be the first and accounts have begun."""
        with self._transactions.writing() as session:
            taken = select(AccountRow.id).where(AccountRow.name == name)
            if session.scalar(taken) or (only_first and _have_begun(session)):
                raise NameTaken(f"there is an account {name!r} already; change it with `willis user set`")
            row = AccountRow(
                name=name, role=role.value, password_hash=password_hash, person_name=person_name, created_at=now
            )
            session.add(row)
            session.flush()
            return _account(row)

    def have_begun(self) -> bool:
        """Whether there is anybody who was let in by this node's own people: a local account, or an administrator."""
        with self._transactions.reading() as session:
            return _have_begun(session)

    def change(self, name: str, **values: Any) -> bool:
        """The account has these values, its failures are forgotten, and its tokens are void.  False when there is none.

        Raises NotPossible for role and password of an identity provider's account, and for the last active administrator, of
        all or of those with a password here: the others may lose their role there, or Willis its provider.
        """
        with self._transactions.writing() as session:
            administrators = _active_administrators(session)
            row = session.scalar(select(AccountRow).where(AccountRow.name == name).with_for_update())
            if row is None:
                return False
            if row.provider != Provider.LOCAL and {"role", "password_hash"} & values.keys():
                raise NotPossible(f"{name} signs in by {row.provider.upper()}: role and password are changed there")
            stays = {"role": row.role, "disabled_at": row.disabled_at} | values
            local = [each for each in administrators if each.provider == Provider.LOCAL]
            if [row] in (administrators, local) and (
                stays["role"] != Role.ADMINISTRATOR or stays["disabled_at"] is not None
            ):
                raise NotPossible(
                    f"{name} is the last administrator who may sign in with a password here; make another one first"
                )
            for key, value in {**values, "failures": 0, "locked_until": None}.items():
                setattr(row, key, value)
            session.execute(delete(AccountTokenRow).where(AccountTokenRow.account_id == row.id))
            return True

    def of_identity(self, identity: Identity, role: Role, now: datetime) -> Account:
        """The account of a person whom a provider knows, with this role; made if there is none.  A disabled one is unchanged.

        It is found by provider and subject alone.  A new one whose name another account has gets a number behind it.
        The provider's name of the person is taken when the account is made: what an administrator makes of it stays.
        """
        with self._transactions.writing() as session:
            insert = self._transactions.insert_unless_there(AccountRow)
            number, row = 1, _of_subject(session, identity)
            while row is None:
                name = identity.name if number == 1 else f"{identity.name[:58]}-{number}"
                values = {"provider": identity.provider.value, "subject": identity.subject}
                values |= {"person_name": identity.person_name}
                new = values | {"name": name, "role": role.value, "password_hash": "", "failures": 0, "created_at": now}
                session.execute(insert.values(new))
                number, row = number + 1, _of_subject(session, identity)
            if row.disabled_at is None:
                row.role = role.value
            return _account(row)

    def with_subject(self, provider: Provider, subject: str) -> Account | None:
        """The account of this person of the provider."""
        with self._transactions.reading() as session:
            row = _of_subject(session, Identity(provider, subject, ""))
            return None if row is None else _account(row)

    def sign_out_everywhere(self, account: Account) -> None:
        """No token of the account proves anything any longer."""
        with self._transactions.writing() as session:
            session.execute(delete(AccountTokenRow).where(AccountTokenRow.account_id == account.id))

    def all(self) -> list[Account]:
        """Every account, by name."""
        with self._transactions.reading() as session:
            return [_account(row) for row in session.scalars(select(AccountRow).order_by(AccountRow.name))]

    def named(self, name: str) -> Account | None:
        """The account of this name."""
        with self._transactions.reading() as session:
            row = session.scalar(select(AccountRow).where(AccountRow.name == name))
            return None if row is None else _account(row)

    def failed(self, account: Account, most: int, lock_for: timedelta, now: datetime) -> bool:
        """One more wrong password; with `most` of them in a row the account is locked, and True is returned."""
        with self._transactions.writing() as session:
            row = session.get_one(AccountRow, account.id, with_for_update=True)
            row.failures += 1
            if row.failures < most:
                return False
            row.failures, row.locked_until = 0, now + lock_for
            return True

    def succeeded(self, account: Account) -> None:
        """The wrong passwords before this are forgotten."""
        with self._transactions.writing() as session:
            session.execute(update(AccountRow).where(AccountRow.id == account.id).values(failures=0, locked_until=None))

    def give_token(
        self, account: Account, sha256: str, kind: TokenKind, now: datetime, expires_at: datetime, instead_of: str = ""
    ) -> None:
        """The token with this hash is the account's; the one `instead_of`, and all that have expired, are void."""
        with self._transactions.writing() as session:
            expired = (AccountTokenRow.expires_at < now) | (AccountTokenRow.sha256 == instead_of)
            session.execute(delete(AccountTokenRow).where(expired))
            session.add(
                AccountTokenRow(
                    account_id=account.id, sha256=sha256, kind=kind.value, created_at=now, expires_at=expires_at
                )
            )

    def of_token(self, sha256: str, kind: TokenKind, now: datetime) -> Account | None:
        """Whose token this is; None when it is nobody's, of another kind, expired, or its account disabled."""
        with self._transactions.reading() as session:
            row = session.execute(_OF_TOKEN, {"sha256": sha256, "kind": kind.value, "now": now}).one_or_none()
            return None if row is None else _account(row)

    def void(self, sha256: str) -> None:
        """The token proves nothing any longer."""
        with self._transactions.writing() as session:
            session.execute(delete(AccountTokenRow).where(AccountTokenRow.sha256 == sha256))


_OF_TOKEN = (
    select(*AccountRow.__table__.columns)
    .join(AccountTokenRow, AccountTokenRow.account_id == AccountRow.id)
    .where(
        AccountTokenRow.sha256 == bindparam("sha256"),
        AccountTokenRow.kind == bindparam("kind"),
        AccountTokenRow.expires_at > bindparam("now"),
        AccountRow.disabled_at.is_(None),
    )
)
"""Made once, and without the ORM's objects: every request of the pages asks this."""


def _account(row: AccountRow | Row[Any]) -> Account:
    return Account(**alike(Account, row) | {"role": Role(row.role), "provider": Provider(row.provider)})


def _active_administrators(session: Session) -> list[AccountRow]:
    """Nobody else changes one of them before this transaction has ended."""
    found = select(AccountRow).where(AccountRow.role == Role.ADMINISTRATOR, AccountRow.disabled_at.is_(None))
    return list(session.scalars(found.order_by(AccountRow.id).with_for_update()))


def _have_begun(session: Session) -> bool:
    """Whether there is a local account, or an administrator of a provider, who makes the others."""
    local = AccountRow.provider == Provider.LOCAL
    administrator = (AccountRow.role == Role.ADMINISTRATOR) & AccountRow.disabled_at.is_(None)
    return session.scalar(select(AccountRow.id).where(local | administrator).limit(1)) is not None


def _of_subject(session: Session, identity: Identity) -> AccountRow | None:
    same = (AccountRow.provider == identity.provider, AccountRow.subject == identity.subject)
    return session.scalar(select(AccountRow).where(*same))
