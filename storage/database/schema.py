"""The tables.  What users and other programs may rely on is the view `worklist`, not these."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Computed,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.database.times import UtcDateTime
from storage.database.urgency import P_ABSENT, PRIORITY
from storage.records import StoredFile


class Base(DeclarativeBase):
    """The root of the typed tables."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


_OPEN, _SHORT = text("closed IS NULL"), text("shortfall <> ''")
_ANALYSIS = text("stage = 'ready' OR stage = 'analysing'")
_ERROR, _SEVERAL = text("last_error <> ''"), text("instance_count > 1")
_OTHERS = "outcome = 'not_eligible' AND {} AND promised_at IS NULL"


class OfFile:
    """The columns of a row that has a file."""

    path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)

    @property
    def file(self) -> StoredFile:
        """The file."""
        return StoredFile(self.path, self.sha256, self.size_bytes)


class AssociationRow(Base):
    """An association that brought instances."""

    __tablename__ = "association"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    receiver: Mapped[str] = mapped_column(String(80))
    calling_ae: Mapped[str] = mapped_column(String(16))
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    closed: Mapped[str | None] = mapped_column(String(16))
    shortfall: Mapped[str] = mapped_column(Text, server_default="")
    """Why not all may have come that the peer had, in words of ours; "" when nothing shows that."""
    refused_classes: Mapped[str] = mapped_column(Text, server_default="")
    """The storage SOP classes that were offered on it and are not accepted, with commas between them."""

    __table_args__ = (
        Index("ix_association_open", "receiver", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("ix_association_short", "id", sqlite_where=_SHORT, postgresql_where=_SHORT),
        Index("ix_association_closed_at", "closed_at"),
    )


class SeriesRow(Base):
    """A series: the unit of work."""

    __tablename__ = "series"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    patient_id: Mapped[str] = mapped_column(Text)
    issuer_of_patient_id: Mapped[str] = mapped_column(Text)
    patient_name: Mapped[str] = mapped_column(Text)
    name_key: Mapped[str] = mapped_column(Text)
    """`storage.records.name_key` of the patient's name."""
    accession_number: Mapped[str] = mapped_column(Text)
    study_date: Mapped[str] = mapped_column(Text, index=True)
    study_time: Mapped[str] = mapped_column(Text)
    study_id: Mapped[str] = mapped_column(Text)
    modality: Mapped[str] = mapped_column(Text)
    series_number: Mapped[int | None]
    series_description: Mapped[str] = mapped_column(Text)
    acquisition_key: Mapped[str] = mapped_column(Text)
    calling_ae: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[str] = mapped_column(Text, default="")
    evidence: Mapped[str] = mapped_column(Text, default="")
    conflicts: Mapped[list[Any]] = mapped_column(default=list)
    revision: Mapped[int] = mapped_column(Integer, default=1)
    instance_count: Mapped[int] = mapped_column(Integer, default=0)
    expected_count: Mapped[int | None]
    count_asked_at: Mapped[datetime | None]
    retrievals: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    retrieve_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    claim_token: Mapped[str | None] = mapped_column(String(32))
    claimed_by: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[datetime | None]
    report_id: Mapped[int | None] = mapped_column(Integer)
    first_instance_at: Mapped[datetime]
    last_instance_at: Mapped[datetime]
    ready_at: Mapped[datetime | None]
    turn: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """In which turn it is claimed, since it was last ready: see `storage.queries.turns`."""
    claimed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    sent_again_at: Mapped[datetime | None]
    """When an instance of it last came that was here already."""
    sent_again_by: Mapped[int | None] = mapped_column(Integer)
    """The id of the association that brought it."""
    kinds_asked_at: Mapped[datetime | None]
    """When the sender was asked of which SOP classes its instances are, that are not here; how many, see `Missing`."""
    missing_slices: Mapped[int | None] = mapped_column(Integer)
    missing_others: Mapped[int | None] = mapped_column(Integer)
    promised_at: Mapped[datetime | None]
    """When a sender was last promised that we keep instances of it (storage commitment)."""
    canary: Mapped[bool] = mapped_column(default=False, server_default=false())
    """It is synthetic, and nobody's: see `storage.queries.canaries`."""
    holds_images: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Retention has seen that it holds more than other objects; until something comes (`reopen`).

    It stays so if a later version takes fewer classes for images.
    """
    p_present: Mapped[float | None]
    """As its report says; here, so that the worklist is read in the order of an index."""
    priority: Mapped[int | None] = mapped_column(Integer, Computed(PRIORITY))
    p_absent: Mapped[float | None] = mapped_column(Double, Computed(P_ABSENT))

    __table_args__ = (
        Index("ix_series_stage", "stage", "canary", "turn", "ready_at"),
        # Small, whatever has ended.  SQLite prefers the one above to one without the stage in front; PostgreSQL does not
        # look for a stage that the index's own condition names alone.
        Index(
            "ix_series_ready_site", "stage", "calling_ae", "turn", sqlite_where=_ANALYSIS, postgresql_where=_ANALYSIS
        ),
        Index(
            "ix_series_ready_attempts", "stage", "attempts", "turn", sqlite_where=_ANALYSIS, postgresql_where=_ANALYSIS
        ),
        Index("ix_series_calling_ae", "calling_ae", "id", sqlite_where=_SEVERAL, postgresql_where=_SEVERAL),
        Index("ix_series_canary", "id", sqlite_where=text("canary = 1"), postgresql_where=text("canary")),
        Index(
            "ix_series_other_objects",
            "ended_at",
            sqlite_where=text(_OTHERS.format("holds_images = 0")),
            postgresql_where=text(_OTHERS.format("NOT holds_images")),
        ),
        Index("ix_series_urgent", "priority", "p_absent", "last_instance_at"),
        # For what is asked of us: whole values, and what they begin with.
        *(
            Index(f"ix_series_{name}", name, postgresql_ops={name: "text_pattern_ops"})
            for name in ("name_key", "patient_id", "accession_number")
        ),
    )


class InstanceRow(OfFile, Base):
    """An instance that was acknowledged, and where its bytes lie."""

    __tablename__ = "instance"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    association_id: Mapped[int] = mapped_column(ForeignKey("association.id"))
    header: Mapped[dict[str, Any]]
    received_at: Mapped[datetime]

    __table_args__ = (Index("ix_instance_association_id", "association_id", "id"),)


class RefusalRow(Base):
    """An instance that an association brought and that was refused; its series "" where it could not be read."""

    __tablename__ = "refusal"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    association_id: Mapped[int] = mapped_column(ForeignKey("association.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))


class ReportRow(OfFile, Base):
    """A report object on disk and what it says.  Never changed after it is inserted."""

    __tablename__ = "report"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    revision: Mapped[int]
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    predecessor_uid: Mapped[str | None] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16), server_default="")
    lesions: Mapped[list[Any]]
    top_location: Mapped[str | None] = mapped_column(Text)
    diameter_mm: Mapped[float | None]
    limits: Mapped[str | None] = mapped_column(Text)
    notify: Mapped[bool | None]
    threshold: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(index=True)
    volume_seconds: Mapped[float | None] = mapped_column(Float)
    inference_seconds: Mapped[float | None] = mapped_column(Float)
    report_seconds: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (
        Index(
            "ix_report_notify",
            "created_at",
            sqlite_where=text("notify IS 1"),
            postgresql_where=text("notify IS true"),
        ),
    )


PROBABILITY_COLUMNS = (
    "p_left_infraclinoid_ica", "p_right_infraclinoid_ica", "p_left_supraclinoid_ica", "p_right_supraclinoid_ica",
    "p_left_mca", "p_right_mca", "p_acom", "p_left_aca", "p_right_aca", "p_left_pcom", "p_right_pcom", "p_basilar_tip",
    "p_other_posterior", "p_present",
)  # fmt: skip
"""The 14 columns of `report`, in the order of the challenge's labels."""
for _name in PROBABILITY_COLUMNS:
    setattr(ReportRow, _name, mapped_column(Double))


class ObjectRow(OfFile, Base):
    """A DICOM object beside the report that says the same in another form.  Never changed after it is inserted."""

    __tablename__ = "report_object"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("report.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)


class DeliveryRow(Base):
    """The outbox: one row for each destination of each object, inserted with the report.

    `object_id`: what is delivered; null is the report itself.
    """

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    report_id: Mapped[int] = mapped_column(ForeignKey("report.id"), index=True)
    object_id: Mapped[int | None] = mapped_column(Integer)
    destination: Mapped[str] = mapped_column(Text)
    stage: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime | None]
    last_error: Mapped[str] = mapped_column(Text, default="")
    delivered_at: Mapped[datetime | None]
    committed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_delivery_due", "stage", "next_attempt_at"),
        Index("ix_delivery_error", "id", sqlite_where=_ERROR, postgresql_where=_ERROR),
    )


class RemovalRow(Base):
    """A case that was removed to make room; what is left of it.  See `storage.queries.retention`."""

    __tablename__ = "removal"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    case_id: Mapped[int] = mapped_column(index=True)
    reason: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str | None] = mapped_column(String(16))
    report_uid: Mapped[str | None] = mapped_column(String(64))
    instance_count: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    folder: Mapped[str] = mapped_column(String(80), default="")
    begun_at: Mapped[datetime]
    forgotten_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)


class CommitmentRow(Base):
    """One storage commitment transaction that we ask a destination for; recorded before it is asked."""

    __tablename__ = "commitment"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64), unique=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id"), index=True)
    created_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    asked_at: Mapped[datetime | None]
    """When the destination acknowledged the request."""
    next_attempt_at: Mapped[datetime | None] = mapped_column(index=True)
    """When to ask, or when its answer is overdue; None when nothing more is asked under this UID."""


class CommitmentRequestRow(Base):
    """A storage commitment that somebody asked us for, until its result is with him."""

    __tablename__ = "commitment_request"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64))
    calling_ae: Mapped[str] = mapped_column(String(16))
    instances: Mapped[list[Any]]
    """[SOP class UID, SOP Instance UID] each."""
    created_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(index=True)
    """When to send the result; None when it has arrived or was given up."""
    last_error: Mapped[str] = mapped_column(Text, default="")
    answered_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("calling_ae", "transaction_uid"),)


class AccountRow(Base):
    """A person who may use the pages."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    person_name: Mapped[str] = mapped_column(Text, default="", server_default="")
    """As DICOM writes it (PN), `Doe^Jane`: whose name is on what goes back to a PACS; "" where it is not known."""
    password_hash: Mapped[str] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    locked_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    provider: Mapped[str] = mapped_column(String(16), default="local")
    subject: Mapped[str | None] = mapped_column(Text, unique=True, index=True)
    """At an identity provider: its issuer, a space, and the subject there.  None of a local account."""


class SignInRequestRow(Base):
    """A sign-in that was begun at an identity provider and has not come back.  Of state and browser only the hashes."""

    __tablename__ = "sign_in_request"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    state_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    browser_sha256: Mapped[str] = mapped_column(String(64))
    nonce: Mapped[str] = mapped_column(Text)
    code_verifier: Mapped[str] = mapped_column(Text)
    goal: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class AccountTokenRow(Base):
    """What proves that a request comes from an account: of a browser's session, or of a program.  Only its hash is kept."""

    __tablename__ = "account_token"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class ReviewRow(Base):
    """What people decided on one revision of a case.  Without a foreign key: it outlives the case's images."""

    __tablename__ = "review"

    case_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int]
    version: Mapped[int]
    """Of the review: raised by each change, so that a change made on an old view of it is noticed."""
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str] = mapped_column(Text, default="")
    assigned_to: Mapped[str] = mapped_column(Text, default="")
    verdicts: Mapped[list[Any]] = mapped_column(default=list)
    changed_at: Mapped[datetime | None] = mapped_column(index=True)
    """When it last changed; None once that is with whoever gets reviews, or nobody does."""


class ReviewEntryRow(Base):
    """One change of a review: who, when, what; what it was before; and of a finding what the model had said."""

    __tablename__ = "review_entry"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    case_id: Mapped[int]
    version: Mapped[int]
    revision: Mapped[int]
    at: Mapped[datetime]
    account: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(16))
    undone: Mapped[bool] = mapped_column(default=False)
    before: Mapped[dict[str, Any]]
    assigned_to: Mapped[str] = mapped_column(Text, default="")
    finding: Mapped[int | None]
    reason: Mapped[str] = mapped_column(String(32), default="")
    report_uid: Mapped[str] = mapped_column(String(64), default="")
    model: Mapped[str] = mapped_column(Text, default="")
    location: Mapped[str] = mapped_column(Text, default="")
    probability: Mapped[float | None]
    diameter_mm: Mapped[float | None]

    __table_args__ = (UniqueConstraint("case_id", "version"),)
