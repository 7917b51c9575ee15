"""The frozen values that cross between the packages.  Times are aware `datetime`s in UTC."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from storage.stages import DeliveryStage, Outcome, Stage


class Added(StrEnum):
    """What became of an instance that was offered to the store."""

    STORED = "stored"
    SAME = "same"
    DIFFERENT = "different"
    """The UID is known with other bytes: the first are kept."""


class AssociationEnd(StrEnum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    LOST = "lost"
    """The receiver died with it open."""


@dataclass(frozen=True)
class Header:
    """What completion, eligibility and the worklist need to know of an instance, as decoded from its dataset.

    `position_mm` and `orientation`: Image Position and Orientation (Patient), LPS; None where absent or unusable.
    `convolution_kernel`: its values, with a backslash between them.  `acquired_at`: Acquisition DateTime without its
    offset, or Acquisition Date and Time, as YYYYMMDDHHMMSS.FFFFFF; the time alone where there is no date.  `content_at`:
    Content Date and Time likewise.  `stack`: the Stack ID of a frame.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    study_id: str = ""
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    convolution_kernel: str = ""
    image_type: tuple[str, ...] = ()
    acquisition_key: str = ""
    frame_of_reference_uid: str = ""
    position_mm: tuple[float, float, float] | None = None
    orientation: tuple[float, ...] | None = None
    number_of_frames: int = 1
    instance_number: int | None = None
    has_pixels: bool = True
    acquisition_number: str = ""
    acquired_at: str = ""
    acquisition_uid: str = ""
    content_at: str = ""
    stack: str = ""
    kvp: str = ""
    temporal_position: str = ""
    contrast_agent: str = ""
    slice_thickness_mm: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The header as JSON values."""
        return dict(vars(self))  # every value is immutable: `asdict` would copy each for nothing

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Header":
        """The inverse of `as_json`."""
        tupled: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**tupled)


def name_key(patient_name: str) -> str:
    """What two names have in common that are the same but for case and empty trailing components (PS3.5 6.2.1)."""
    return "=".join(group.strip().rstrip("^ ") for group in patient_name.split("=")).rstrip("=").casefold()


@dataclass(frozen=True)
class StoredFile:
    """Bytes that are durable: `path` relative to the files' root, sha256 of the whole file's dataset bytes."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Received:
    """An instance that an association brought, and the file that is to hold it."""

    header: Header
    file: StoredFile
    association_id: int
    calling_ae: str
    at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """What instances are ordered by."""
        return self.header.series_instance_uid, self.header.sop_instance_uid


@dataclass(frozen=True)
class Opened:
    """An association that a peer opened with a receiver of ours."""

    receiver: str
    calling_ae: str
    at: datetime

    @property
    def key(self) -> tuple[str, str]:
        """What changes are ordered by: those of associations, which nobody else touches, come first."""
        return "", ""


@dataclass(frozen=True)
class Refusal:
    """An instance that was refused, as its command names it; of which series, "" where that could not be read."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str = ""


@dataclass(frozen=True)
class Ended:
    """An association that was known as open, and how it ended.

    `shortfall`: why not all may have come, in words of ours; `refused_classes`: what was offered and is not accepted.
    """

    association_id: int
    how: AssociationEnd
    at: datetime
    refusals: tuple[Refusal, ...] = ()
    shortfall: str = ""
    refused_classes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """As of `Opened`."""
        return "", ""


Change = Received | Opened | Ended
"""What a receiver writes to the database in one group with others."""


@dataclass(frozen=True)
class Contribution:
    """The part that one association had in a series."""

    association_id: int
    instances: int
    closed: AssociationEnd | None


@dataclass(frozen=True)
class Ending:
    """How an association ended that brought instances of a series, or brought them again.

    `was_last`: the last instance that it brought is of the series.  `refused`: how many of the classes asked for, of
    this series or, where it was the last, of an unreadable one, were refused on it and have not come since.
    """

    opened_at: datetime
    closed_at: datetime | None
    closed: AssociationEnd | None
    instances: int
    was_last: bool = True
    refused: int = 0
    refused_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Of the instances that a sender lists of a series and that are not here: how many may be slices, and are not.

    What is in neither is of a class that the sender does not say.
    """

    slices: int
    others: int


@dataclass(frozen=True)
class Series:
    """A series as the state machine sees it."""

    id: int
    series_instance_uid: str
    study_instance_uid: str
    calling_ae: str
    stage: Stage
    revision: int
    instance_count: int
    expected_count: int | None
    count_asked_at: datetime | None
    conflicts: tuple[str, ...]
    attempts: int
    first_instance_at: datetime
    last_instance_at: datetime
    outcome: Outcome | None = None
    reason: str = ""
    detail: str = ""
    retrievals: int = 0
    """How often its missing instances were asked for since it was last received anew."""
    retrieve_until: datetime | None = None
    """Until then a retrieval may run, or the next one waits."""
    kinds_asked_at: datetime | None = None
    missing: Missing | None = None
    """What the sender then said; None where it did not."""
    canary: bool = False
    """It is synthetic, and nobody's."""


@dataclass(frozen=True)
class Claim:
    """The right of one worker to analyse one revision of a series until the lease ends.  `token` proves it."""

    series: Series
    token: str
    lease_until: datetime
    exhausted: bool = False


@dataclass(frozen=True)
class LesionRecord:
    """One lesion of a report.  See `ai.findings.Lesion`."""

    location: str
    probability: float
    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True)
class Measures:
    """What of an analysis is compared over the months; no patient is in it.  What was not measured is None."""

    scanner: str
    kernel: str
    arterial_hu: float | None = None
    noise_hu: float | None = None
    spread_mm: float | None = None
    dose_mgy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measured(Measures):
    """The measures of one analysis, with what came of it.  `site`: the calling AE title."""

    at: datetime
    site: str
    model: str
    outcome: Outcome
    limited: bool
    p_present: float


@dataclass(frozen=True)
class Conclusion:
    """What came of a series.  `probabilities`: none, or the 14 in the challenge's order."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    model: str = ""
    probabilities: tuple[float, ...] = ()
    lesions: tuple[LesionRecord, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    """How long "volume", "inference" and "report" took."""
    limits: str = ""
    """What in the images limits the answer; nothing as a rule."""
    notify: bool | None = None
    """Whether the scan is worth an alert; None where nothing was concluded on its pixels."""
    threshold: float | None = None
    """From which probability on the scan is positive; None where nothing was concluded on its pixels."""
    measures: Measures | None = None
    """None where nothing was concluded on its pixels."""


@dataclass(frozen=True)
class ReportObject:
    """A DICOM report that is durable on disk.

    `ae_title`: that by which the series of it and of what is beside it are named; "" for those of before there was one.
    """

    sop_instance_uid: str
    file: StoredFile
    predecessor_uid: str | None = None
    ae_title: str = ""


@dataclass(frozen=True)
class ResultObject:
    """Another DICOM object that says what the report says, durable on disk, and the destinations that get it."""

    kind: str
    sop_instance_uid: str
    file: StoredFile
    destinations: tuple[str, ...]


@dataclass(frozen=True)
class Delivery:
    """One object of a report on its way to one destination.  `kind`: "report", or that of the `ResultObject`."""

    id: int
    destination: str
    stage: DeliveryStage
    attempts: int
    created_at: datetime
    sop_instance_uid: str
    file: StoredFile
    next_attempt_at: datetime | None = None
    last_error: str = ""
    delivered_at: datetime | None = None
    committed_at: datetime | None = None
    series_id: int = 0
    kind: str = "report"
    revision: int = 0
    """Of the series, that the report is of."""

    @property
    def peer(self) -> str:
        """With whom it is attempted."""
        return self.destination


@dataclass(frozen=True)
class Commitment:
    """A storage commitment transaction that a destination is to be asked for."""

    id: int
    transaction_uid: str
    delivery: Delivery
    attempts: int
    next_attempt_at: datetime | None
    asked_at: datetime | None = None
    """When the destination acknowledged the request; None while it has not."""

    @property
    def peer(self) -> str:
        """With whom it is attempted."""
        return self.delivery.destination

    @property
    def created_at(self) -> datetime:
        """When it began to be owed: when the destination had the object, however long that had taken."""
        return self.delivery.delivered_at or self.delivery.created_at


@dataclass(frozen=True)
class CommitmentRequest:
    """A storage commitment that was asked of us and whose result is owed.  `instances`: (SOP class, instance) UIDs."""

    id: int
    transaction_uid: str
    calling_ae: str
    instances: tuple[tuple[str, str], ...]
    created_at: datetime
    attempts: int = 0
    next_attempt_at: datetime | None = None

    @property
    def peer(self) -> str:
        """With whom it is attempted."""
        return self.calling_ae


class Reported(StrEnum):
    """What a destination's answer about a transaction changed."""

    COMMITTED = "committed"
    UNCOMMITTED = "uncommitted"
    """It has not kept the object: the delivery is pending again."""
    NOTHING = "nothing"
    """The transaction is known, but its delivery does not wait for an answer."""
    UNKNOWN = "unknown"
    """No such transaction: nothing changed."""
