"""Which bundles have reported here: two of one version have two names."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.database.running import ModelRow
from storage.database.transactions import Transactions


class Models:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def name_of(self, version: str, sha256: str) -> str:
        """The version; with the first digits of the bundle's digest where another one of that version has that name.

        Changes nothing: a bundle that was only loaded takes no name.
        """
        with self._transactions.reading() as session:
            return _name(session, version, sha256)

    def take_name(self, version: str, sha256: str) -> str:
        """The same, for good: the bundle is about to report a patient's series."""
        with self._transactions.reading() as session:
            mine = select(ModelRow.id).where(ModelRow.version == version, ModelRow.sha256 == sha256)
            if session.scalar(mine) is not None:
                return _name(session, version, sha256)
        with self._transactions.writing() as session:
            session.execute(self._transactions.insert_unless_there(ModelRow).values(version=version, sha256=sha256))
            return _name(session, version, sha256)


def _name(session: Session, version: str, sha256: str) -> str:
    of_version = select(ModelRow.sha256).where(ModelRow.version == version).order_by(ModelRow.id)
    return version if session.scalar(of_version.limit(1)) in (None, sha256) else f"{version} ({sha256[:8]})"
