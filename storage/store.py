"""The database, by who uses it.  Each public method of each part is one transaction."""

from storage.database.changes import Changes
from storage.database.engine import open_database
from storage.database.transactions import Transactions
from storage.database.wakeups import Listening
from storage.queries.accounts import Accounts
from storage.queries.at_end import AtEnd
from storage.queries.canaries import Canaries
from storage.queries.cfind import CFind
from storage.queries.claims import Queue
from storage.queries.commitment_requests import CommitmentRequests
from storage.queries.commitments import Commitments
from storage.queries.drift import Drift
from storage.queries.earlier import Earlier
from storage.queries.intake import Intake
from storage.queries.models import Models
from storage.queries.notifications import Notifications
from storage.queries.outbox import Outbox
from storage.queries.processes import Processes
from storage.queries.receiving import Settling
from storage.queries.retention import Retention
from storage.queries.review_documents import ReviewDocuments
from storage.queries.reviews import Reviews
from storage.queries.shadow import Shadows
from storage.queries.sign_in_requests import SignInRequests
from storage.queries.statistics import Statistics
from storage.queries.tally import Tally
from storage.queries.triage import Triage
from storage.queries.uploads import Uploads
from storage.queries.worklist import Worklist


class Store:
    """One database, by who uses it: receiver, completion, worker, sender, worklist, C-FIND, retention, and the pages."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the database.  `folder`: of whose files it is told (`Files.folder`), "" without an object store."""
        self.transactions = transactions
        self.intake = Intake(transactions, folder)
        self.settling = Settling(transactions, folder)
        self.queue = Queue(transactions, folder)
        self.outbox = Outbox(transactions, folder)
        self.commitments = Commitments(transactions, folder)
        self.commitment_requests = CommitmentRequests(transactions)
        self.worklist = Worklist(transactions.reading_plainly)
        self.at_end = AtEnd(transactions)
        self.cfind = CFind(transactions)
        self.retention = Retention(transactions, folder)
        self.accounts = Accounts(transactions)
        self.sign_in_requests = SignInRequests(transactions)
        self.reviews = Reviews(transactions)
        self.review_documents = ReviewDocuments(transactions, folder)
        self.triage = Triage(transactions.reading_plainly)
        self.earlier = Earlier(transactions.reading_plainly)
        self.processes = Processes(transactions)
        self.statistics = Statistics(transactions.reading_plainly)
        self.tally = Tally(transactions)
        self.notifications = Notifications(transactions)
        self.drift = Drift(transactions)
        self.canaries = Canaries(transactions)
        self.shadows = Shadows(transactions, folder)
        self.models = Models(transactions)
        self.uploads = Uploads(transactions, folder)
        self.changes = Changes(transactions.engine)

    @classmethod
    def open(cls, url: str, folder: str = "") -> "Store":
        """The store at `url`, new where there is none.  Raises DatabaseUnusable, also where another version made it."""
        return cls(Transactions(open_database(url)), folder)

    def listening(self) -> Listening | None:
        """A connection that hears what any host makes due; None on SQLite, which has one.  Raises the driver's errors."""
        engine = self.transactions.engine
        return Listening(engine) if engine.dialect.name == "postgresql" else None

    def close(self) -> None:
        """No connection is open any longer."""
        self.changes.close()
        self.transactions.engine.dispose()
