"""What makes room: old cases of which nothing is owed to anybody go, the oldest first, each with its record."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta

from node.dicom.conformance import IMAGE_CLASSES
from node.errors import safe_message
from node.runtime import log
from node.runtime.job import still_working
from node.workflow.context import Context
from node.workflow.health import GIVEN_UP_LATELY
from storage.queries.retention import Removal, Why

YOUNGEST_REMOVED = timedelta(days=1)
"""A full disk removes nothing younger: it may just have been delivered, and somebody may look into it."""
AT_ONCE = 50
CHECK_OWNER = "let all of [storage] directory belong to the user of the service, and look at the disk"
ASSOCIATIONS_AT_ONCE = NOTED_AT_ONCE = 5000


def retain(context: Context) -> int:
    """What `[storage]` says is removed, some of it if it is much; returns how many cases.

    Their files are deleted at the next run.  With `retention_days` the associations that brought nothing else go too.
    """
    with ExitStack() as afterwards:  # each happens, whatever of this fails
        afterwards.callback(context.store.at_end.fold)
        afterwards.callback(_note_images, context)
        afterwards.callback(_forget_requests, context)
        _end_earlier(context)
        return _make_room(context)


def _make_room(context: Context) -> int:
    settings, now = context.config.storage, context.clock()
    removed = _remove_others(context, now)
    if settings.retention_days:
        before = now - timedelta(days=settings.retention_days)
        for case in context.store.retention.candidates(before, AT_ONCE):
            removed += remove(context, case, Why.AGE, before) is not None
        if forgotten := context.store.retention.forget_associations(before, ASSOCIATIONS_AT_ONCE):
            log.get().info("associations_forgotten", count=forgotten)
    excess = context.files.excess_bytes(settings.high_water_percent) if settings.high_water_percent else 0
    if excess and not removed:
        before = now - YOUNGEST_REMOVED
        for case in context.store.retention.candidates(before, AT_ONCE, Why.SPACE):
            if excess <= 0:
                break
            freed = remove(context, case, Why.SPACE, before)
            excess, removed = excess - (freed or 0), removed + (freed is not None)
        if excess > 0 and not removed:
            log.get().warning("disk_nearly_full", free_bytes=context.files.free_bytes())
    return removed


def _remove_others(context: Context, now: datetime) -> int:
    """Series that came only so that their study came across whole are gone after `other_objects_hours`: how many."""
    hours = context.config.storage.other_objects_hours
    if not hours:
        return 0
    before, why = now - timedelta(hours=hours), Why.OTHER_OBJECTS
    cases = context.store.retention.candidates(before, AT_ONCE, why, IMAGE_CLASSES)
    return sum(remove(context, case, why, before) is not None for case in cases)


def _note_images(context: Context) -> None:
    """What holds an image is not looked at by `_remove_others` again."""
    if hours := context.config.storage.other_objects_hours:
        before = context.clock() - timedelta(hours=hours)
        while context.store.retention.note_images(before, NOTED_AT_ONCE, IMAGE_CLASSES) == NOTED_AT_ONCE:
            still_working()


def _forget_requests(context: Context) -> None:
    """Of storage commitments that were asked of us nothing is kept once no answer is owed nor spoken of any longer."""
    long_ago = context.clock() - timedelta(hours=context.config.delivery.give_up_hours) - GIVEN_UP_LATELY
    context.store.commitment_requests.forget(long_ago)


def remove(context: Context, case: int, why: Why, before: datetime) -> int | None:
    """How many bytes will be free here at the next run; None when the case stays."""
    still_working()
    removal = context.store.retention.begin(case, why, before, context.clock())
    if removal is None:
        return None
    try:
        freed = context.files.move((path, _aside(removal, path)) for path in removal.paths)
    except OSError as error:  # what was moved is put back, and other cases have their turn
        _not_removed(removal, error)
        _end(context, removal, removal.paths)
        return None
    if not context.store.retention.forget(removal, context.clock()):
        _end(context, removal, removal.paths)
        return None
    log.get().info("case_removed", case=case, reason=why, bytes=removal.size_bytes)
    return freed


def _end_earlier(context: Context) -> None:
    for removal, known in context.store.retention.unended(context.clock()):
        _end(context, removal, known)


def _end(context: Context, removal: Removal, known: Sequence[str]) -> None:
    """The files that the database knows are where it says; the others are deleted.  What cannot be, waits for the next run."""
    still_working()
    try:
        context.files.move((_aside(removal, path), path) for path in known)
        with suppress(FileNotFoundError):
            shutil.rmtree(context.files.root / removal.folder)
    except OSError as error:
        _not_removed(removal, error)
        return
    context.store.retention.end(removal, context.clock())


def _not_removed(removal: Removal, error: OSError) -> None:
    log.get().error("case_not_removed", case=removal.case_id, error=safe_message(error), remedy=CHECK_OWNER)


def _aside(removal: Removal, path: str) -> str:
    return f"{removal.folder}/{path.replace('/', '_')}"
