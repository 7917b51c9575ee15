"""Query as SCP (Study Root, C-FIND): whoever may send to us may ask what we hold and what came of it."""

from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from typing import Any

from pydicom import Dataset

from node.audit.messages import Party
from node.audit.recording import asked_by
from node.audit.trail import Trail
from node.dicom.query import BadQuery, Query, identifier_of, read_query
from node.dicom.status import CANCELLED, OUT_OF_RESOURCES, UNABLE_TO_PROCESS
from node.runtime import log
from storage.conditions import Found
from storage.store import Store

MOST_ANSWERS = 2000
"""More are not sent: the most urgent are, and then 0xA700 says that there are others."""


class QueryScp:
    """What the receiver does with C-FIND."""

    def __init__(self, store: Store, trail: Trail, clock: Callable[[], datetime]) -> None:
        """`store` is the receiver's; `trail` records who asked for what, and when by `clock`."""
        self._store, self._trail, self._clock = store, trail, clock

    def on_find(self, event: Any) -> Generator[tuple[int | Dataset, Dataset | None], None, None]:
        """The handler of C-FIND: a pending response for each match, then what else there is to say than success."""
        error = failure = ""
        try:
            for status, identifier in self._answers(event):
                failure = str(status.ErrorComment) if isinstance(status, Dataset) else ""
                error = failure or ("" if status == CANCELLED else "the association ended before the last answer")
                yield status, identifier
            error = failure
        finally:
            self._record(event, error)

    def _record(self, event: Any, error: str) -> None:
        caller, ended = Party(event.assoc.calling_ae, event.assoc.host), self._clock()
        self._trail.record(
            lambda reporter: reporter.query(caller, reporter.us, asked_by(event, reporter.patient_ids), ended, error)
        )

    def _answers(self, event: Any) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        logger = log.get().bind(calling_ae=event.assoc.calling_ae)
        try:
            query, found = self._found(event)
        except BadQuery as refusal:
            logger.warning("query_refused", status=refusal.status, reason=str(refusal))
            yield _failure(refusal.status, str(refusal), refusal.tag), None
            return
        except Exception as error:  # noqa: BLE001  the edge: whatever the database says, the peer may ask again
            logger.warning("query_failed", error=type(error).__name__)
            yield _failure(OUT_OF_RESOURCES, f"cannot answer now: {type(error).__name__}"), None
            return
        for sent, row in enumerate(found[:MOST_ANSWERS]):
            if event.assoc.has_cancelled(event.request.MessageID):
                logger.info("query_cancelled", count=sent)
                yield CANCELLED, None
                return
            yield query.pending_status, identifier_of(query, row)
        logger.info("query_answered", count=min(len(found), MOST_ANSWERS))
        if len(found) > MOST_ANSWERS:
            yield _failure(OUT_OF_RESOURCES, f"more than {MOST_ANSWERS} match; these are the first"), None

    def _found(self, event: Any) -> tuple[Query, list[Found]]:
        """Everything, before the first is sent: no transaction is open while a slow peer reads."""
        try:
            identifier = event.dataset
        except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
            raise BadQuery(UNABLE_TO_PROCESS, "the Identifier cannot be read") from None
        query = read_query(identifier)
        return query, self._store.cfind.find(query.level, query.conditions, MOST_ANSWERS + 1)


def _failure(status: int, comment: str, tag: int | None = None) -> Dataset:
    ds = Dataset()
    ds.Status = status
    ds.ErrorComment = comment[:64]
    if tag is not None:
        ds.OffendingElement = tag
    return ds
