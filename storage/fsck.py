"""Compares files, database and sha256; with `repair`, mends what can be mended without deleting anything.

| difference | what it means | mended by |
|---|---|---|
| MISSING | a row whose file is not there | the sender, who sends the instance again |
| NOT_STORED | an object that the store has not, or not as it was uploaded | uploading it again, where it lies here |
| DAMAGED | a file that is not what was written | the same: the file is replaced, the row stays |
| STRAY | a file that no row names: never acknowledged, or of a report that was not needed | moving it to `strays/` |
| COUNT | a series that counts other than its rows | counting again |
| HALF_WRITTEN | a temporary of a receiver that died | the receiver, at its next start |

It may run beside a working node: what is younger than `GRACE_SECONDS` may be on its way and is left alone.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import func, select, update

from storage.database.schema import InstanceRow, ObjectRow, RemovalRow, ReportRow, SeriesRow
from storage.errors import Damaged
from storage.files.instances import Files, is_older, series_folder
from storage.queries.uploads import Place
from storage.records import StoredFile
from storage.store import Store

GRACE_SECONDS = 3600.0
_AT_ONCE = 200


class Kind(StrEnum):
    """What differs."""

    MISSING = "missing"
    DAMAGED = "damaged"
    STRAY = "stray"
    NOT_STORED = "not_stored"
    COUNT = "count"
    HALF_WRITTEN = "half_written"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be.  `path` is relative to the root; `case` is None for a stray file."""

    kind: Kind
    path: str = ""
    case: int | None = None
    mended: bool = False


@dataclass(frozen=True)
class Checked:
    """How much was compared."""

    series: int
    files: int


def check(
    store: Store, files: Files, repair: bool = False, now_seconds: float | None = None
) -> Iterator[Difference | Checked]:
    """Every difference, and at last how much was compared.  `repair` mends; nothing is ever deleted."""
    check_ = _Check(store, files, repair, time.time() if now_seconds is None else now_seconds)
    yield from check_.series()
    yield from check_.reports()
    yield from check_.incoming()
    yield Checked(check_.compared_series, check_.compared_files)


class _Check:
    def __init__(self, store: Store, files: Files, repair: bool, now_seconds: float) -> None:
        self._store, self._files, self._repair, self._before = store, files, repair, now_seconds - GRACE_SECONDS
        self._now = datetime.fromtimestamp(now_seconds, UTC)
        self.compared_series = self.compared_files = 0

    def series(self) -> Iterator[Difference]:
        """Every series' rows against its folder; then the folders of no series."""
        folders: set[str] = set()
        last = 0
        while some := self._next_series(last):
            for id_, uid, count in some:
                folders.add(series_folder(uid))
                yield from self._one_series(id_, uid, count)
            last = some[-1][0]
        for path in sorted(self._files.root.glob("instances/*/*")):
            if (folder := str(path.relative_to(self._files.root))) not in folders:
                yield from self._strays(folder, set())

    def _next_series(self, last: int) -> Sequence[tuple[int, str, int]]:
        columns = (SeriesRow.id, SeriesRow.series_instance_uid, SeriesRow.instance_count)
        with self._store.transactions.reading() as session:
            rows = session.execute(select(*columns).where(SeriesRow.id > last).order_by(SeriesRow.id).limit(_AT_ONCE))
            return [(id_, uid, count) for id_, uid, count in rows]

    def _one_series(self, case: int, uid: str, count: int) -> Iterator[Difference]:
        self.compared_series += 1
        kept = [file for _, file in self._store.settling.instances(case)]
        if len(kept) != count and self._still_counts_wrong(case):
            yield Difference(Kind.COUNT, case=case, mended=self._repair)
        places = self._store.uploads.of_series(case) if self._files.objects else {}
        for file in kept:
            self.compared_files += 1
            place = places.get(file.path)
            if self._lies_here(file, place) and not self._files.holds(file):
                yield from self._gone_or_damaged(case, file)
            if place is not None:
                yield from self._in_store(case, file, place)
        yield from self._strays(series_folder(uid), {file.path for file in kept})

    def _lies_here(self, file: StoredFile, place: Place | None) -> bool:
        """Whether it should lie in this folder, or does."""
        return place is None or place.folder == self._files.folder or self._files.path(file).exists()

    def _in_store(self, case: int, file: StoredFile, place: Place) -> Iterator[Difference]:
        """Whether the object that was uploaded is there as it was.  Raises ObjectsAway."""
        objects = self._files.objects
        if objects is None or place.stored is None or objects.look(file.path) == place.stored:
            return
        if self._still_known(case, file.path):
            is_mended = self._repair and self._files.path(file).exists() and place.folder == self._files.folder
            if is_mended:
                self._store.uploads.lost(place.upload, self._now)
            yield Difference(Kind.NOT_STORED, file.path, case, is_mended)

    def _still_counts_wrong(self, case: int) -> bool:
        """Whether, in one transaction, the count differs from the rows; with `repair` it no longer does."""
        rows = select(func.count()).where(InstanceRow.series_id == case).scalar_subquery()
        wrong = (SeriesRow.id == case) & (SeriesRow.instance_count != rows)
        with self._store.transactions.writing() as session:
            if self._repair:
                counted = update(SeriesRow).where(wrong).values(instance_count=rows).returning(SeriesRow.id)
                return session.scalar(counted) is not None
            return session.scalar(select(SeriesRow.id).where(wrong)) is not None

    def _gone_or_damaged(self, case: int, file: StoredFile) -> Iterator[Difference]:
        if self._still_known(case, file.path):
            yield Difference(Kind.DAMAGED if self._files.path(file).exists() else Kind.MISSING, file.path, case)

    def _still_known(self, case: int, path: str) -> bool:
        """Whether the case should have the file: retention may have removed it meanwhile, or be about to."""
        beside = select(ObjectRow.id).join(ReportRow, ReportRow.id == ObjectRow.report_id)
        ways = (
            select(InstanceRow.id).where(InstanceRow.series_id == case, InstanceRow.path == path),
            select(ReportRow.id).where(ReportRow.series_id == case, ReportRow.path == path),
            beside.where(ReportRow.series_id == case, ObjectRow.path == path),
        )
        leaving = select(RemovalRow.id).where(RemovalRow.case_id == case, RemovalRow.ended_at.is_(None))
        with self._store.transactions.reading() as session:
            known = any(session.scalar(way) is not None for way in ways)
            return known and session.scalar(leaving) is None

    def reports(self) -> Iterator[Difference]:
        """Every row of a report, or of an object beside one, against its file; then the files of no row."""
        known: set[str] = set()
        with self._store.transactions.reading() as session:
            reports, beside = (
                select(ReportRow.series_id, table.path, table.sha256, table.size_bytes)
                for table in (ReportRow, ObjectRow)
            )
            ways = (reports.order_by(ReportRow.id), beside.join(ReportRow, ReportRow.id == ObjectRow.report_id))
            rows = [(row[0], StoredFile(*row[1:])) for way in ways for row in session.execute(way)]
        for case, file in rows:
            known.add(file.path)
            self.compared_files += 1
            if self._files.objects and (place := self._store.uploads.of_series(case).get(file.path)):
                yield from self._in_store(case, file, place)
                if not self._lies_here(file, place):
                    continue
            try:
                self._files.verify(file)
            except Damaged:
                yield from self._gone_or_damaged(case, file)
        for folder in sorted((self._files.root / "reports").iterdir()):
            yield from self._strays(f"reports/{folder.name}", known)

    def incoming(self) -> Iterator[Difference]:
        """What a receiver that died has left; one that receives removes it when it is done."""
        for path in sorted((self._files.root / "incoming").iterdir()):
            if is_older(path, self._before):
                yield Difference(Kind.HALF_WRITTEN, f"incoming/{path.name}")

    def _strays(self, folder: str, known: set[str]) -> Iterator[Difference]:
        place = self._files.root / folder
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name = f"{folder}/{path.name}"
            if name not in known and is_older(path, self._before):
                if self._repair:
                    self._files.move([(name, f"strays/{name.replace('/', '_')}")])
                yield Difference(Kind.STRAY, name, mended=self._repair and not path.exists())
