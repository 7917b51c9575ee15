"""What was received or made here goes to the object store, and images that it has leave this machine where that is wanted."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial

from node.errors import safe_message
from node.runtime import log
from node.runtime.job import still_working
from node.workflow.context import Context, Held
from storage.errors import ObjectsAway, StorageError
from storage.files.objects import Object, Objects
from storage.files.uploading import secured, upload
from storage.killpoints import kill_point
from storage.queries.uploads import Upload

LEASE = timedelta(minutes=45)
"""Longer than a request for a large object may take with its repetition; a node that starts takes up what it had left."""
_AT_ONCE = 16
_MOST_BYTES = 256 << 20
"""Of the files that are in memory at once, one may be larger."""
_ADOPTED_AT_ONCE = 500
_EVICTED_AT_ONCE = 1000
_OTHERS_MAY_TAKE = timedelta(minutes=10)
"""So long another host has for an upload before it is looked for here too, each time."""


class Uploader:
    """Belongs to the thread of its job.  While the store is away one file a round is tried; when it is back, all."""

    def __init__(self, context: Context) -> None:
        """Nothing is asked of database or store yet."""
        self._context = context
        self._has_begun = False
        self._is_away = False
        self._adopted: tuple[int, int, int] | None = (0, 0, 0)
        self._looked_elsewhere_at: datetime | None = None

    def run(self) -> int:
        """What was due is in the store, or is due again later; returns how many files are there now.

        What was claimed when something was raised, such as by the database, is due again at the next run.
        """
        try:
            if not self._has_begun:
                self._context.store.uploads.hasten(self._context.clock(), leased=True)
                self._has_begun = True
            return self._run()
        except Exception:
            self._has_begun = False
            raise

    def _run(self) -> int:
        context, uploads, done = self._context, self._context.store.uploads, 0
        has_images = False
        while not context.stopping.is_set():
            claimed = uploads.claim(context.clock(), LEASE, 1 if self._is_away else _AT_ONCE)
            if not claimed:
                if not self._adopt() and not self._take_over():
                    break
                continue
            still_working()
            ended = self._round(claimed)
            done += len(ended)
            has_images = has_images or any(each.is_image for each in ended)
            if self._is_away:
                break
        if has_images:
            uploads.wake_hosts()
        return done

    def _round(self, claimed: Sequence[Upload]) -> list[Upload]:
        """Those that are done."""
        context, done, errors = self._context, list[Upload](), list[str]()
        with ExitStack() as held, ThreadPoolExecutor(_AT_ONCE) as threads:
            for each in claimed:
                held.enter_context(context.holding(Held(partial(context.store.uploads.give_back, each))))
            for some in _in_memory(claimed):
                for each, found in zip(some, threads.map(self._attempt, some), strict=True):
                    done += [each] if self._record(each, found) else []
                    errors += [str(found)] if isinstance(found, ObjectsAway) else []
        if errors and not done:
            if not self._is_away:  # once an outage: health says it as long as it lasts
                log.get().error("objects_away", error=errors[0])
            self._is_away = True
        elif self._is_away:
            self._is_away = False
            count = context.store.uploads.hasten(context.clock())
            log.get().info("objects_back", count=count)
        return done

    def _attempt(self, each: Upload) -> Object | Exception | None:
        """What the store has of it; None of what was removed; else why not."""
        try:
            if each.is_removal:
                _objects(self._context).remove(each.path)
                return None
            return upload(self._context.files, each.file)
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, it is tried again, and the others go on
            return error

    def _record(self, each: Upload, found: Object | Exception | None) -> bool:
        """Whether it is done."""
        context, uploads = self._context, self._context.store.uploads
        if isinstance(found, Exception):
            wait = context.retry_after(each.attempts)
            uploads.postponed(each, safe_message(found), context.clock() + wait)
            if not isinstance(found, ObjectsAway):
                log.get().error(
                    "upload_postponed", case=each.series_id, attempts=each.attempts, error=safe_message(found)
                )
            return False
        kill_point("after_upload")
        if found is None:
            uploads.removed(each, context.clock())
        else:
            uploads.uploaded(each, found, context.clock())
        return True

    def _adopt(self) -> bool:
        """More of what lies here from before there was an object store is in the queue.  False: that is all."""
        context = self._context
        if self._adopted is None:
            return False
        found = context.store.uploads.lacking(self._adopted, _ADOPTED_AT_ONCE)
        if not found:
            self._adopted = None
            return False
        last = list(self._adopted)
        for table, id_, _, _ in found:
            last[table] = max(last[table], id_)
        here = [(file, series) for _, _, file, series in found if context.files.path(file).exists()]
        context.store.uploads.adopt(here, context.clock())
        self._adopted = (last[0], last[1], last[2])
        return True

    def _take_over(self) -> bool:
        """What is another folder's to upload, and has waited for that, is uploaded from here if it lies here whole.

        It may be nowhere else: the other host could not flush it, or its folder is this one under an earlier name.
        """
        context, uploads, now = self._context, self._context.store.uploads, self._context.clock()
        last = self._looked_elsewhere_at
        if last is not None and timedelta() <= now - last < _OTHERS_MAY_TAKE:
            return False
        self._looked_elsewhere_at = now
        here, after = list[Upload](), 0
        while found := uploads.elsewhere(now - _OTHERS_MAY_TAKE, after, _ADOPTED_AT_ONCE):
            still_working()
            here += [each for each in found if secured(context.files, each.file)]
            after = found[-1].id
        uploads.take_over(here, now)
        return bool(here)


def _in_memory(claimed: Sequence[Upload]) -> list[list[Upload]]:
    """Groups whose files can be in memory at once."""
    groups, size_bytes = [list[Upload]()], 0
    for each in claimed:
        size_bytes += each.size_bytes
        if groups[-1] and size_bytes > _MOST_BYTES:
            groups.append([])
            size_bytes = each.size_bytes
        groups[-1].append(each)
    return groups


def evict(context: Context) -> int:
    """Copies that nobody needs are gone, and images that the store has, where that is wanted; returns how many images.

    Each object is looked at before the last copy here goes: one that is not as it was uploaded is uploaded again.
    """
    context.files.sweep_fetched()
    hours = context.config.storage.objects_evict_hours
    if not hours:
        return 0
    uploads, now = context.store.uploads, context.clock()
    before, count = now - timedelta(hours=hours), 0
    try:
        for each in uploads.evictable(before, _EVICTED_AT_ONCE):
            if context.stopping.is_set():
                break
            still_working()
            known, there = uploads.stored(each.path), _objects(context).look(each.path)
            if known is None or there != known:
                uploads.lost(each, now)
                log.get().error("object_lost", case=each.series_id)
                continue
            if uploads.evicted(each, before):  # else it came again since it was looked at, or its case goes
                context.files.discard(each.file)
                count += 1
    except ObjectsAway as error:
        log.get().warning("nothing_evicted", error=str(error))
    if count:
        log.get().info("images_evicted", count=count)
    return count


def _objects(context: Context) -> Objects:
    if context.files.objects is None:
        raise StorageError("there is no object store")
    return context.files.objects
