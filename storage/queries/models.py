"""Which bundles have reported here: two of one version have two names."""

from sqlalchemy import select

from storage.database.running import ModelRow
from storage.database.transactions import Transactions


class Models:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def name_of(self, version: str, sha256: str) -> str:
        """The version; with the first digits of the manifest's digest where another bundle of that version was here before."""
        with self._transactions.writing() as session:
            session.execute(self._transactions.insert_unless_there(ModelRow).values(version=version, sha256=sha256))
            of_version = select(ModelRow.sha256).where(ModelRow.version == version).order_by(ModelRow.id)
            return version if session.scalar(of_version.limit(1)) == sha256 else f"{version} ({sha256[:8]})"
