"""A case with a report of two findings, and people who decide on it."""

from typing import Any

from node.config.sections import Config
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.queries.reviews import Action, Rejection, Wanted
from storage.records import Claim, LesionRecord, ReportObject
from storage.store import Store
from tests.support.builders import FakeClock, claimed, finish
from tests.support.reports import POSITIVE, encoded

READER, READER_NAME = "j.doe", "Doe^Jane"
REPORT_UID = "2.25.7701"
REASON = Rejection.VESSEL_LOOP.value


def configuration(reviews: bool = True, **peer: Any) -> Config:
    """[peers.PACS] gets reviews ten quiet minutes after the last change."""
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": 11113, "reviews": reviews} | peer
    return Config.model_validate({"report": {"organization": "St. Elsewhere"}, "peers": {"PACS": pacs}})


def case_with_report(store: Store, files: Files, clock: FakeClock, person_name: str = READER_NAME) -> Claim:
    """Case 1 has the report of `tests.support.reports.POSITIVE`, which waits for its delivery; the reader has an account."""
    store.accounts.add(READER, Role.READER, "hash", clock(), person_name=person_name)
    claim = claimed(store, clock)
    file = files.write_report(REPORT_UID, encoded(report_uid=REPORT_UID, instance_number=100))
    lesions = tuple(
        LesionRecord(each.location, each.probability, each.centre_lps_mm, each.diameter_mm) for each in POSITIVE.lesions
    )
    assert finish(store, clock, claim, report=ReportObject(REPORT_UID, file), lesions=lesions)
    return claim


def decide(store: Store, clock: FakeClock, action: Action, account: str = READER, **values: Any) -> None:
    """The change, asked for by who sees the review as it is."""
    now = store.reviews.of(1)
    assert now is not None
    store.reviews.change(Wanted(1, now.version, action, account, **values), clock())


def accept_one_and_reject_one(store: Store, clock: FakeClock) -> None:
    """The first finding is accepted, the second rejected, and the case acknowledged."""
    decide(store, clock, Action.ACCEPTED, finding=1)
    decide(store, clock, Action.REJECTED, finding=2, reason=REASON)
    decide(store, clock, Action.ACKNOWLEDGED)
