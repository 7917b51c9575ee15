"""Storage commitment without I/O (PS3.4 annex J): requests, results and what they mean.  Both sides use it."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.dicom import status as dimse_status
from node.dicom.header import is_uid
from node.errors import Refused, Unavailable

INSTANCE_UID = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance that every request and result is about."""
REQUEST = 1
"""The only Action Type (J.3.2.1)."""
ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""The Event Types (J.3.3.1)."""
CONTEXTS = [(str(StorageCommitmentPushModel), syntax) for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")]
_TAKEN = (
    dimse_status.SUCCESS,
    dimse_status.ATTRIBUTE_LIST_ERROR,
    dimse_status.ATTRIBUTE_OUT_OF_RANGE,
    dimse_status.DUPLICATE_TRANSACTION,
)
_TRANSIENT = (dimse_status.PROCESSING_FAILURE, dimse_status.RESOURCE_LIMITATION)
Item = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


def new_transaction_uid(random: Random) -> str:
    """A UID derived from a random UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.UUID(int=random.getrandbits(128), version=4).int}"


@dataclass(frozen=True)
class Result:
    """What becomes of the instances of a transaction: kept, or not, each with its Failure Reason."""

    transaction_uid: str
    committed: tuple[Item, ...] = ()
    failed: Mapping[Item, int] = field(default_factory=dict)

    @property
    def event_type(self) -> int:
        """The Event Type ID."""
        return FAILURES_EXIST if self.failed else ALL_COMMITTED

    def of(self, sop_instance_uid: str) -> str:
        """Why this instance is not committed; "" when it is."""
        reasons = [reason for (_, instance), reason in self.failed.items() if instance == sop_instance_uid]
        if reasons:
            return f"not committed: reason 0x{reasons[0]:04X}"
        if any(instance == sop_instance_uid for _, instance in self.committed):
            return ""
        return "not committed: the answer does not name the object"


def request_dataset(transaction_uid: str, items: Iterable[Item]) -> Dataset:
    """The Action Information that asks for commitment."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = Sequence(_reference(item) for item in items)
    return ds


def read_request(ds: Dataset) -> tuple[str, tuple[Item, ...]]:
    """Transaction UID and instances of Action Information.  Raises ValueError when it is not a request."""
    transaction_uid, items = str(ds.get("TransactionUID", "")), _items(ds.get("ReferencedSOPSequence"))
    if not is_uid(transaction_uid) or not items or not all(is_uid(uid) for item in items for uid in item):
        raise ValueError("no transaction UID or no instances")
    return transaction_uid, items


def result_dataset(result: Result) -> Dataset:
    """The Event Information that tells the result."""
    ds = Dataset()
    ds.TransactionUID = result.transaction_uid
    if result.committed:
        ds.ReferencedSOPSequence = Sequence(_reference(item) for item in result.committed)
    if result.failed:
        ds.FailedSOPSequence = Sequence(_reference(item, reason) for item, reason in result.failed.items())
    return ds


def report_of(result: Result) -> N_EVENT_REPORT:
    """The request that tells it; the Event Information is `result_dataset`."""
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = StorageCommitmentPushModel, INSTANCE_UID
    report.EventTypeID = result.event_type
    return report


def read_result(ds: Dataset) -> Result:
    """The result that Event Information tells."""
    failed = ds.get("FailedSOPSequence") or ()
    return Result(
        str(ds.get("TransactionUID", "")),
        _items(ds.get("ReferencedSOPSequence")),
        {
            item: int(each.get("FailureReason", None) or dimse_status.PROCESSING_FAILURE)
            for item, each in zip(_items(failed), failed, strict=True)
        },
    )


def _items(sequence: Iterable[Dataset] | None) -> tuple[Item, ...]:
    return tuple(
        (str(each.get("ReferencedSOPClassUID", "")), str(each.get("ReferencedSOPInstanceUID", "")))
        for each in sequence or ()
    )


def _reference(item: Item, reason: int | None = None) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = item
    if reason is not None:
        ds.FailureReason = reason
    return ds


def check_taken(status: int) -> None:
    """The peer has the request.  Raises Unavailable where asking again may help, Refused where it will not.

    A transaction UID that it knows already is one whose first answer was lost.
    """
    if status in _TAKEN:
        return
    if status in _TRANSIENT:
        raise Unavailable(f"storage commitment: status 0x{status:04X}")
    raise Refused(f"storage commitment: status 0x{status:04X}")
