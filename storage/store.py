"""The database, by who uses it.  Each public method of each part is one transaction."""

from dataclasses import dataclass

from storage.database.changes import Changes
from storage.database.engine import open_database
from storage.database.transactions import Transactions
from storage.queries.accounts import Accounts
from storage.queries.cfind import CFind
from storage.queries.claims import Queue
from storage.queries.commitment_requests import CommitmentRequests
from storage.queries.commitments import Commitments
from storage.queries.intake import Intake
from storage.queries.outbox import Outbox
from storage.queries.receiving import Settling
from storage.queries.retention import Retention
from storage.queries.reviews import Reviews
from storage.queries.triage import Triage
from storage.queries.worklist import Worklist


@dataclass(frozen=True)
class Store:
    """One database, by who uses it: receiver, completion, worker, sender, worklist, C-FIND, retention, and the pages."""

    intake: Intake
    settling: Settling
    queue: Queue
    outbox: Outbox
    commitments: Commitments
    commitment_requests: CommitmentRequests
    worklist: Worklist
    cfind: CFind
    retention: Retention
    transactions: Transactions
    accounts: Accounts
    reviews: Reviews
    triage: Triage
    changes: Changes

    @classmethod
    def open(cls, url: str) -> "Store":
        """The store at `url`, migrated to this version.  Raises DatabaseUnusable."""
        transactions = Transactions(open_database(url))
        return cls(
            Intake(transactions),
            Settling(transactions),
            Queue(transactions),
            Outbox(transactions),
            Commitments(transactions),
            CommitmentRequests(transactions),
            Worklist(transactions.reading_plainly),
            CFind(transactions),
            Retention(transactions),
            transactions,
            Accounts(transactions),
            Reviews(transactions),
            Triage(transactions.reading_plainly),
            Changes(transactions.engine),
        )

    def close(self) -> None:
        """No connection is open any longer."""
        self.changes.close()
        self.transactions.engine.dispose()
