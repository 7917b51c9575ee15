"""The database, by who uses it.  Each public method of each part is one transaction."""

from dataclasses import dataclass

from storage.commitment_requests import CommitmentRequests
from storage.commitments import Commitments
from storage.database import open_database
from storage.finding import Finding
from storage.intake import Intake
from storage.outbox import Outbox
from storage.queue import Queue
from storage.retention import Retention
from storage.settling import Settling
from storage.transactions import Transactions
from storage.worklist import Worklist


@dataclass(frozen=True)
class Store:
    """One database: the receiver's part, completion's, the worker's, the sender's, people's, programs', and retention's."""

    intake: Intake
    settling: Settling
    queue: Queue
    outbox: Outbox
    commitments: Commitments
    commitment_requests: CommitmentRequests
    worklist: Worklist
    finding: Finding
    retention: Retention
    transactions: Transactions

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
            Worklist(transactions),
            Finding(transactions),
            Retention(transactions),
            transactions,
        )

    def close(self) -> None:
        """No connection is open any longer."""
        self.transactions.engine.dispose()
