"""The tables of how the node runs: its processes, its peers, what it has counted, and whom it has notified."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.database.schema import Base

_IS_IMAGE = text("path LIKE 'instances/%'")


class ProcessRow(Base):
    """A process of a node that runs, or ended without saying so.  See `storage.queries.processes`."""

    __tablename__ = "process"

    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    folder: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime]
    beat_at: Mapped[datetime]
    details: Mapped[dict[str, Any]]


class PeerAnswerRow(Base):
    """Whether a peer that is needed answered when a host of the node last asked it."""

    __tablename__ = "peer_answer"

    peer: Mapped[str] = mapped_column(String(255), primary_key=True)
    host: Mapped[str] = mapped_column(String(64), primary_key=True)
    asked_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(Text, default="")


class TallyRow(Base):
    """A count, or one bucket of a histogram, of what has ended.  See `storage.queries.tally`."""

    __tablename__ = "tally"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    label: Mapped[str] = mapped_column(String(128), primary_key=True)
    bucket: Mapped[str] = mapped_column(String(16), primary_key=True)
    value: Mapped[float] = mapped_column(Double)


class AtEndRow(Base):
    """So many more, or fewer, series or deliveries stand at an end.  See `storage.queries.at_end`."""

    __tablename__ = "at_end"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    what: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str] = mapped_column(String(16))
    number: Mapped[int]


class CanaryRow(Base):
    """A synthetic series that was sent to see whether it is answered rightly.  See `storage.queries.canaries`."""

    __tablename__ = "canary"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    sent_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    seconds: Mapped[float | None] = mapped_column(Double)
    trouble: Mapped[str] = mapped_column(Text, server_default="")


class MeasuredRow(Base):
    """What one analysis measured, without whose it was.  See `storage.queries.drift`."""

    __tablename__ = "measured"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    site: Mapped[str] = mapped_column(String(16))
    scanner: Mapped[str] = mapped_column(Text)
    kernel: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(16))
    limited: Mapped[bool]
    p_present: Mapped[float] = mapped_column(Double)
    arterial_hu: Mapped[float | None] = mapped_column(Double)
    noise_hu: Mapped[float | None] = mapped_column(Double)
    spread_mm: Mapped[float | None] = mapped_column(Double)
    dose_mgy: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (Index("ix_measured_scanner", "site", "scanner", "at", "id"),)


class BaselineRow(Base):
    """Since when the cases of a scanner are compared, where that was said."""

    __tablename__ = "baseline"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    site: Mapped[str] = mapped_column(String(16))
    scanner: Mapped[str] = mapped_column(Text)
    begun_at: Mapped[datetime]


class DriftRow(Base):
    """What of a scanner is not as it was."""

    __tablename__ = "drift"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    site: Mapped[str] = mapped_column(String(16))
    scanner: Mapped[str] = mapped_column(Text)
    what: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)
    noticed_at: Mapped[datetime]


class ModelRow(Base):
    """A bundle that was given a patient's series to report, the first of its version first.  See `storage.queries.models`."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("version", "sha256"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    version: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))


class ShadowAnswerRow(Base):
    """What a second bundle says of what the first has reported.  See `storage.queries.shadow`.

    What is compared is copied from the report: it outlives the case.
    """

    __tablename__ = "shadow_answer"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    report_uid: Mapped[str] = mapped_column(String(64))
    bundle_sha256: Mapped[str] = mapped_column(String(64))
    case_id: Mapped[int]
    stage: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(Text, default="")
    reported_at: Mapped[datetime]
    first_model: Mapped[str] = mapped_column(Text)
    first_present: Mapped[bool]
    first_notify: Mapped[bool | None]
    first_p_present: Mapped[float] = mapped_column(Double)
    first_lesions: Mapped[list[Any]]
    model: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(16), default="")
    notify: Mapped[bool | None]
    p_present: Mapped[float | None] = mapped_column(Double)
    lesions: Mapped[list[Any]] = mapped_column(default=list)

    __table_args__ = (
        UniqueConstraint("report_uid", "bundle_sha256"),
        Index("ix_shadow_answer_due", "bundle_sha256", "stage", "next_attempt_at"),
    )


class NotificationRow(Base):
    """Something that one target is to be notified of, or was.  Content is made when it is sent: no patient is named here."""

    __tablename__ = "notification"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    target: Mapped[str] = mapped_column(Text)
    event: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(128))
    """What it is about: the same is never notified of twice."""
    case_id: Mapped[int | None] = mapped_column(Integer)
    revision: Mapped[int | None] = mapped_column(Integer)
    stage: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime | None]
    last_error: Mapped[str] = mapped_column(Text, default="")
    ended_at: Mapped[datetime | None]
    over_at: Mapped[datetime | None]
    """When what it is about had passed, where that is no case."""

    __table_args__ = (
        UniqueConstraint("target", "event", "subject"),
        Index("ix_notification_due", "stage", "next_attempt_at"),
    )


class UploadRow(Base):
    """A file on its way to the object store, or there.  See `storage.queries.uploads`."""

    __tablename__ = "upload"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    path: Mapped[str] = mapped_column(Text, unique=True)
    series_id: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """These as the row of the instance, report or object has them."""
    folder: Mapped[str] = mapped_column(String(80))
    """The storage folder that holds it (`Files.folder`); "" where none need hold it any longer."""
    created_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime | None]
    """When to upload or remove it, or the end of the lease of whoever does; None: nothing is to be done."""
    last_error: Mapped[str] = mapped_column(Text, default="")
    uploaded_at: Mapped[datetime | None]
    """When the store had it whole; until then nothing may rely on the store."""
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    stored_e_tag: Mapped[str] = mapped_column(Text, default="")
    """As the store said it when it had been compared with the file: a HEAD tells whether it is the same object still."""
    removed_at: Mapped[datetime | None]
    """When its case was removed: the object is to go too."""

    __table_args__ = (
        Index("ix_upload_due", "next_attempt_at"),
        Index("ix_upload_series", "series_id", "uploaded_at"),
        Index("ix_upload_image", "folder", "uploaded_at", sqlite_where=_IS_IMAGE, postgresql_where=_IS_IMAGE),
    )
