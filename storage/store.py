"""The database, by who uses it.  Each public method of each part is one transaction."""

from storage.database.engine import open_database
from storage.database.transactions import Transactions
from storage.queries.cfind import CFind
from storage.queries.claims import Queue
from storage.queries.commitment_requests import CommitmentRequests
from storage.queries.commitments import Commitments
from storage.queries.intake import Intake
from storage.queries.outbox import Outbox
from storage.queries.receiving import Settling
from storage.queries.retention import Retention
from storage.queries.worklist import Worklist


class Store:
    """One database: the receiver's part, completion's, the worker's, the sender's, the worklist's, C-FIND's, and retention's."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the database."""
        self.transactions = transactions
        self.intake = Intake(transactions)
        self.settling = Settling(transactions)
        self.queue = Queue(transactions)
        self.outbox = Outbox(transactions)
        self.commitments = Commitments(transactions)
        self.commitment_requests = CommitmentRequests(transactions)
        self.worklist = Worklist(transactions.reading_plainly)
        self.cfind = CFind(transactions)
        self.retention = Retention(transactions)

    @classmethod
    def open(cls, url: str) -> "Store":
        """The store at `url`, migrated to this version.  Raises DatabaseUnusable."""
        return cls(Transactions(open_database(url)))

    def close(self) -> None:
        """No connection is open any longer."""
        self.transactions.engine.dispose()
