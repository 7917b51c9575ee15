"""Files on their way to the object store: a queue like the outbox, of which each storage folder has its own part.

A row is inserted with the row of its instance, report or object, in the same transaction.  A node uploads what lies in its
own folder; until the store has a file whole, only nodes with that folder are given what needs it (`waits_elsewhere`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, literal_column, select, update
from sqlalchemy.orm import Session

from storage.database.running import UploadRow
from storage.database.schema import InstanceRow, ObjectRow, ReportRow, SeriesRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.files.objects import Object
from storage.queries.rows import alike
from storage.records import StoredFile
from storage.stages import Stage

_NOT_UPLOADED = (UploadRow.uploaded_at.is_(None), UploadRow.removed_at.is_(None))
IS_IMAGE = UploadRow.path.like(literal_column("'instances/%'"))
"""As the index `ix_upload_image` has it."""
_ENDED = (Stage.REPORTED.value, Stage.SET_ASIDE.value, Stage.FAILED.value)


@dataclass(frozen=True)
class Upload:
    """A file that is to be uploaded, or whose object is to be removed (`is_removal`); claimed until `next_attempt_at`."""

    id: int
    series_id: int
    path: str
    sha256: str
    size_bytes: int
    attempts: int
    next_attempt_at: datetime | None
    uploaded_at: datetime | None
    removed_at: datetime | None

    @property
    def file(self) -> StoredFile:
        """The file."""
        return StoredFile(self.path, self.sha256, self.size_bytes)

    @property
    def is_removal(self) -> bool:
        """Whether the object is to go."""
        return self.removed_at is not None

    @property
    def is_image(self) -> bool:
        """Whether it is a file that came, for which settling and analysis wait."""
        return not self.is_removal and self.path.startswith("instances/")


@dataclass(frozen=True)
class Place:
    """Where a file is: in which storage folder ("": need be in none), and the object that was uploaded."""

    upload: Upload
    folder: str
    stored: Object | None


def images_of(series_id: Any) -> ColumnElement[bool]:
    """The files that came of the series: what its analysis reads, and a host that is lost does not keep from others for ever."""
    return and_(UploadRow.series_id == series_id, IS_IMAGE)


def waits_elsewhere(which: ColumnElement[bool], folder: str) -> ColumnElement[bool]:
    """Whether one of `which` files lies in another folder alone."""
    return lies_elsewhere(which & UploadRow.uploaded_at.is_(None), folder)


def lies_elsewhere(which: ColumnElement[bool], folder: str) -> ColumnElement[bool]:
    """Whether one of `which` files has to be fetched into this folder."""
    return exists().where(which, UploadRow.removed_at.is_(None), UploadRow.folder != folder)


class Uploads:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str) -> None:
        """`transactions` are those of the store's database; `folder` the storage folder's name (`Files.folder`)."""
        self._transactions, self._folder = transactions, folder
        self._mine = UploadRow.folder.in_([folder, ""])

    def claim(self, now: datetime, lease: timedelta, limit: int) -> list[Upload]:
        """Those of this folder that have been due longest; each attempt is counted, and due again after `lease`."""
        oldest = (
            select(UploadRow.id)
            .where(self._mine, UploadRow.next_attempt_at <= now)
            .order_by(UploadRow.next_attempt_at, UploadRow.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        claimed = (
            update(UploadRow)
            .where(UploadRow.id.in_(oldest), UploadRow.next_attempt_at <= now)
            .values(attempts=UploadRow.attempts + 1, next_attempt_at=now + lease)
            .returning(UploadRow)
        )
        with self._transactions.writing("uploads") as session:
            return sorted((Upload(**alike(Upload, row)) for row in session.scalars(claimed)), key=lambda one: one.id)

    def uploaded(self, upload: Upload, found: Object, now: datetime) -> bool:
        """The store has it.  False, changing nothing, when it was claimed again, or its case was removed, meanwhile."""
        values = {"uploaded_at": now, "stored_bytes": found.size_bytes, "stored_e_tag": found.e_tag, "last_error": ""}
        done = _as_claimed(upload).values(next_attempt_at=None, attempts=0, **values)
        return bool(self._transactions.change(done, "upload"))

    def wake_hosts(self) -> None:
        """Other hosts look at once at the images that they can read now, to settle or analyse their series."""
        with self._transactions.writing_plainly() as connection:
            wake_hosts(connection, Whom.NODES)
            wake_hosts(connection, Whom.WORKERS, all_look=True)

    def postponed(self, upload: Upload, error: str, next_attempt_at: datetime) -> None:
        """It could not be uploaded, or removed, and is due again then."""
        self._transactions.change(_as_claimed(upload).values(last_error=error, next_attempt_at=next_attempt_at))

    def give_back(self, upload: Upload, now: datetime) -> None:
        """It is due at once and the attempt does not count: who made it has stopped."""
        returned = _as_claimed(upload).values(attempts=upload.attempts - 1, next_attempt_at=now)
        self._transactions.change(returned)

    def hasten(self, now: datetime, longest: timedelta = timedelta(), leased: bool = False) -> int:
        """All of this folder that failed and is due later than in the `longest` is due now; returns how many.

        With `leased` also what somebody has who has died, or whose clock was set back.
        """
        waiting = [UploadRow.folder == self._folder, UploadRow.next_attempt_at > now + longest]
        if not leased:
            waiting.append(UploadRow.last_error != "")
        return self._transactions.change(update(UploadRow).where(*waiting).values(next_attempt_at=now))

    def lacking(self, after: tuple[int, int, int], limit: int) -> list[tuple[int, int, StoredFile, int]]:
        """Files that were never in this queue: (table, id there, file, series), of ids `after` those of each table.

        They were written before there was an object store.
        """
        of_object = select(ReportRow.series_id).where(ReportRow.id == ObjectRow.report_id).scalar_subquery()
        tables: tuple[tuple[Any, Any], ...] = (
            (InstanceRow, InstanceRow.series_id), (ReportRow, ReportRow.series_id), (ObjectRow, of_object),
        )  # fmt: skip
        found = []
        with self._transactions.reading() as session:
            for number, (table, series) in enumerate(tables):
                is_new = (table.id > after[number], ~exists().where(UploadRow.path == table.path))
                asked = select(table.id, table.path, table.sha256, table.size_bytes, series).where(*is_new)
                for id_, path, sha256, size, series_id in session.execute(asked.order_by(table.id).limit(limit)):
                    found.append((number, id_, StoredFile(path, sha256, size), series_id))
        return found

    def adopt(self, files: Sequence[tuple[StoredFile, int]], now: datetime) -> None:
        """These (file, series) lie in this folder and are to be uploaded; not those that are known, or whose case is gone.

        Each case is a transaction of its own: receivers lock several in an order of theirs.
        """
        insert = self._transactions.insert_unless_there(UploadRow.__table__)
        for case in sorted({series for _, series in files}):
            with self._transactions.writing() as session:
                if session.get(SeriesRow, case, with_for_update=True) is not None:
                    mine = [new_values(file, case, self._folder, now) for file, series in files if series == case]
                    session.execute(insert, mine)

    def elsewhere(self, before: datetime, after: int, limit: int) -> list[Upload]:
        """What another folder was to upload before this time and has not, of ids `after` this one."""
        number = UploadRow.id + 0  # no column: SQLite would read all that was ever uploaded in the order of the rows
        others = (UploadRow.folder != self._folder, UploadRow.created_at < before, number > after)
        waiting = (UploadRow.next_attempt_at < before + timedelta(days=36_500), *_NOT_UPLOADED)
        found = select(UploadRow).where(*waiting, *others).order_by(number).limit(limit)
        with self._transactions.reading() as session:
            return [Upload(**alike(Upload, row)) for row in session.scalars(found)]

    def take_over(self, uploads: Sequence[Upload], now: datetime) -> None:
        """These lie in this folder too, also after power loss, and are to be uploaded from it."""
        mine = {"folder": self._folder, "next_attempt_at": now, "attempts": 0, "last_error": ""}
        with self._transactions.writing() as session:
            for each in uploads:
                session.execute(update(UploadRow).where(UploadRow.id == each.id, *_NOT_UPLOADED).values(**mine))

    def evictable(self, before: datetime, limit: int) -> list[Upload]:
        """Instances in this folder that the store has, of cases that ended, both before this time."""
        found = select(UploadRow).where(*self._may_go(before), IS_IMAGE).limit(limit)
        with self._transactions.reading() as session:
            return [Upload(**alike(Upload, row)) for row in session.scalars(found)]

    def of_series(self, series_id: int) -> dict[str, "Place"]:
        """Where each file of the series is, by its path, as far as it was ever to be uploaded."""
        with self._transactions.reading() as session:
            rows = session.scalars(select(UploadRow).where(UploadRow.series_id == series_id))
            return {row.path: Place(Upload(**alike(Upload, row)), row.folder, _object_of(row)) for row in rows}

    def stored(self, path: str) -> Object | None:
        """What the store had of this file when it was uploaded; None where it is not, or nobody has said so."""
        with self._transactions.reading() as session:
            row = session.scalar(select(UploadRow).where(UploadRow.path == path))
            return None if row is None else _object_of(row)

    def evicted(self, upload: Upload, before: datetime) -> bool:
        """It need no longer lie in this folder.  False, changing nothing, when it is no longer as `evictable` found it."""
        mine = (UploadRow.id == upload.id, UploadRow.uploaded_at == upload.uploaded_at, *self._may_go(before))
        return bool(self._transactions.change(update(UploadRow).where(*mine).values(folder="")))

    def _may_go(self, before: datetime) -> tuple[ColumnElement[bool], ...]:
        ended = exists().where(
            SeriesRow.id == UploadRow.series_id, SeriesRow.stage.in_(_ENDED), SeriesRow.ended_at < before
        )
        here, is_idle = UploadRow.folder == self._folder, UploadRow.next_attempt_at.is_(None)
        return here, UploadRow.uploaded_at < before, UploadRow.removed_at.is_(None), is_idle, ended

    def lost(self, upload: Upload, now: datetime) -> None:
        """The store has it no longer as it was: it is uploaded again from this folder."""
        again = update(UploadRow).where(UploadRow.id == upload.id, UploadRow.uploaded_at == upload.uploaded_at)
        self._transactions.change(again.values(uploaded_at=None, created_at=now, next_attempt_at=now, attempts=0))

    def removed(self, upload: Upload, now: datetime) -> None:
        """The object is gone.  If the file has come again meanwhile, it is uploaded at once (again, if that was done)."""
        with self._transactions.writing() as session:
            row = session.get(UploadRow, upload.id, with_for_update=True)
            if row is None:
                return
            if row.removed_at is not None:
                session.delete(row)
            else:
                row.uploaded_at, row.next_attempt_at = None, now


def _object_of(row: UploadRow) -> Object | None:
    return None if row.uploaded_at is None else Object(row.stored_bytes or 0, row.stored_e_tag)


INSERTED = (
    "path", "sha256", "size_bytes", "series_id", "folder", "created_at", "next_attempt_at", "attempts", "last_error",
    "stored_e_tag",
)  # fmt: skip
"""The columns of a new row."""
REVIVE = (
    update(UploadRow.__table__)  # type: ignore[arg-type]
    .where(UploadRow.path == bindparam("of_path"))
    .values(
        series_id=bindparam("series"),
        folder=bindparam("of_folder"),
        created_at=bindparam("now"),
        next_attempt_at=func.coalesce(UploadRow.next_attempt_at, bindparam("now")),
        uploaded_at=None,
        removed_at=None,
        last_error="",
    )
)
"""What was to be removed came again: it is uploaded again, after whoever removes it now has done so."""
TAKE_OVER = (
    update(UploadRow.__table__)  # type: ignore[arg-type]
    .where(UploadRow.path == bindparam("of_path"), *_NOT_UPLOADED)
    .where(UploadRow.folder != bindparam("of_folder"))
    .values(folder=bindparam("of_folder"), next_attempt_at=bindparam("now"), attempts=0, last_error="")
)
"""What another folder has not uploaded came again into this one."""


def new_values(file: StoredFile, series_id: int, folder: str, now: datetime) -> dict[str, Any]:
    """The row of a file that is to be uploaded at once."""
    due = {"created_at": now, "next_attempt_at": now, "attempts": 0, "last_error": "", "stored_e_tag": ""}
    return {**vars(file), "series_id": series_id, "folder": folder, **due}


def is_kept_elsewhere(session: Session, path: str, folder: str) -> bool:
    """Whether another folder, or the object store, has the file that is not in this folder.  Then none need be here."""
    row = session.scalar(
        select(UploadRow).where(UploadRow.path == path, UploadRow.removed_at.is_(None)).with_for_update()
    )
    if row is None or (row.folder == folder and row.uploaded_at is None):
        return False
    if row.folder == folder:
        row.folder = ""
    return True


def remove_object(session: Session, path: str) -> None:
    """The object of a file that was never acknowledged is to go."""
    due = {
        "removed_at": UploadRow.created_at,
        "next_attempt_at": func.coalesce(UploadRow.next_attempt_at, UploadRow.created_at),
    }
    session.execute(update(UploadRow).where(UploadRow.path == path).values(**due, attempts=0, folder=""))


def remove_objects(session: Session, series_id: int, now: datetime) -> None:
    """The objects of the series' files are to go: who deletes its rows says so in the same transaction."""
    mine = update(UploadRow).where(UploadRow.series_id == series_id, UploadRow.removed_at.is_(None))
    due = func.coalesce(UploadRow.next_attempt_at, now)
    session.execute(mine.values(removed_at=now, next_attempt_at=due, attempts=0, last_error="", folder=""))


def _as_claimed(upload: Upload) -> Any:
    is_same = UploadRow.removed_at.is_not(None) if upload.is_removal else UploadRow.removed_at.is_(None)
    as_claimed = (UploadRow.attempts == upload.attempts, UploadRow.next_attempt_at == upload.next_attempt_at, is_same)
    return update(UploadRow).where(UploadRow.id == upload.id, *as_claimed)
