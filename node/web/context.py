"""What every page works with, made once when the process starts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from threading import BoundedSemaphore

from node.audit.messages import Person, SignIn, Study
from node.audit.trail import Trail
from node.config.sections import Config
from node.web.board import Board
from node.web.images import Images
from node.web.passwords import Passwords
from node.web.row_texts import RowTexts
from node.web.sign_in import FirstStart, Strangers, Tries
from storage.files.instances import Files
from storage.queries.accounts import Account
from storage.queries.worklist import Row
from storage.store import Store


@dataclass(frozen=True)
class Context:
    """Configuration, database, files, clock, and what is kept in memory: nothing that matters."""

    config: Config
    store: Store
    files: Files
    trail: Trail
    clock: Callable[[], datetime]
    passwords: Passwords
    tries: Tries
    first_start: FirstStart
    board: Board
    images: Images
    outside: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(4))
    """Held while an identity provider is asked: fewer than there are threads, so that a slow one holds up nobody else."""
    strangers: Strangers = field(default_factory=Strangers)
    row_texts: RowTexts = field(default_factory=RowTexts)

    @property
    def zone(self) -> tzinfo | None:
        """In which times are shown; None: the machine's own."""
        return self.config.report.zone

    def record_sign_in(self, what: SignIn, name: str, host: str, error: str = "") -> None:
        """It is in the audit trail."""
        at, person = self.clock(), Person(name, host)
        self.trail.record(lambda reporter: reporter.user_authentication(what, person, at, error))

    def record_account_change(self, name: str, change: str, by: Account, host: str) -> None:
        """What an administrator did to an account is in the audit trail."""
        at, person = self.clock(), Person(by.name, host)
        self.trail.record(lambda reporter: reporter.account_changed(name, change, person, at))

    def record_access(self, row: Row, account: Account, host: str, changed: bool) -> None:
        """That the account saw, or changed, what is known of the patient is in the audit trail."""
        at, person = self.clock(), Person(account.name, host)
        study = Study(row["study_instance_uid"], row["patient_id"], row["accession_number"])
        self.trail.record(lambda reporter: reporter.accessed(study, person, changed, at))
