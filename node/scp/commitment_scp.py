"""Storage commitment as SCP (PS3.4 annex J): a request is kept before it is acknowledged, and answered later.

On the same association when it stays open and quiet; `node.workflow.commitments.tell` sees to the rest.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pydicom import Dataset

from node.config.sections import Config
from node.dicom import commitment
from node.dicom.commitment import Item, Result
from node.dicom.status import (
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_TRANSACTION,
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
)
from node.errors import safe_message
from node.runtime import log
from node.runtime.backoff import Backoff
from storage.files.instances import Files
from storage.records import CommitmentRequest, Reported
from storage.store import Store

GRACE_SECONDS = 5.0
"""So long the result may go out on the association of the request; then it goes out on one of its own."""


class CommitmentScp:
    """What the receiver does with N-ACTION."""

    def __init__(self, store: Store, files: Files, clock: Callable[[], datetime]) -> None:
        """`store` and `files` are the receiver's."""
        self._store, self._files, self._clock = store, files, clock

    def on_action(self, event: Any) -> tuple[int, None]:
        """The handler of N-ACTION: the status to answer.  A success means that the result is owed, even after a crash."""
        calling_ae = event.assoc.calling_ae
        logger = log.get().bind(calling_ae=calling_ae)
        if event.request.RequestedSOPInstanceUID != commitment.INSTANCE_UID:
            return NO_SUCH_INSTANCE, None
        if event.request.ActionTypeID != commitment.REQUEST:
            return NO_SUCH_ACTION, None
        try:
            transaction_uid, instances = commitment.read_request(event.dataset)
        except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
            logger.warning("commitment_request_refused", reason="cannot be read")
            return INVALID_ARGUMENT, None
        now = self._clock()
        request = self._store.commitment_requests.add(
            transaction_uid, calling_ae, instances, now, now + timedelta(seconds=GRACE_SECONDS)
        )
        if request is None:
            logger.warning("commitment_request_refused", reason="transaction UID used for other instances")
            return DUPLICATE_TRANSACTION, None
        logger.info("commitment_requested", instances=len(instances))
        event.assoc.when_quiet(lambda: self._tell(event.assoc, event.context.context_id, request))
        return SUCCESS, None

    def _tell(self, assoc: Any, context_id: int, request: CommitmentRequest) -> None:
        """The result is on its way on the association of the request; not where it cannot be said yet, but later."""
        try:
            result = result_of(request, self._store, self._files, self._clock())
        except Exception as error:  # noqa: BLE001  the edge: it is due again later, and the peer may go on storing here
            log.get().warning("commitment_result_postponed", calling_ae=request.calling_ae, error=safe_message(error))
            return

        def on_answer(answer: Any) -> None:
            if answer.Status != SUCCESS:
                return
            try:
                self._store.commitment_requests.answered(request, self._clock())
            except Exception as error:  # noqa: BLE001  the edge: the peer has it, and gets it once more
                log.get().warning(
                    "commitment_result_postponed", calling_ae=request.calling_ae, error=safe_message(error)
                )
            else:
                log.get().info("commitment_result_sent", calling_ae=request.calling_ae, count=len(result.failed))

        assoc.send_request(commitment.report_of(result), context_id, commitment.result_dataset(result), on_answer)


class CommitmentReports:
    """Takes the answers to what we asked, on whatever association they come."""

    def __init__(self, config: Config, store: Store, clock: Callable[[], datetime]) -> None:
        """`config` says when an object that was not committed is sent again."""
        self._config, self._store, self._clock = config, store, clock

    def on_event_report(self, event: Any) -> tuple[int, None]:
        """The handler of N-EVENT-REPORT: the status to answer."""
        return self.take(event.assoc.calling_ae, event.request.EventTypeID, lambda: event.dataset), None

    def take(self, calling_ae: str, event_type: int, information: Callable[[], Dataset]) -> int:
        """The status to answer to a result.  Nothing is committed on what we did not ask."""
        logger = log.get().bind(calling_ae=calling_ae)
        if event_type not in (commitment.ALL_COMMITTED, commitment.FAILURES_EXIST):
            logger.warning("commitment_report_refused", reason="unknown event type")
            return NO_SUCH_EVENT_TYPE
        try:
            result = commitment.read_result(information())
        except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
            logger.warning("commitment_report_refused", reason="cannot be read")
            return INVALID_ARGUMENT
        sop_instance_uid = self._store.commitments.instance_of(result.transaction_uid)
        if sop_instance_uid is None:
            logger.warning("commitment_report_refused", reason="unknown transaction")
            return INVALID_ARGUMENT
        error, now = result.of(sop_instance_uid), self._clock()
        reported = self._store.commitments.reported(
            result.transaction_uid, error, now, lambda attempts: now + self._resend_after(attempts)
        )
        how = logger.warning if reported is Reported.UNCOMMITTED else logger.info
        how("commitment_reported", outcome=reported, error=error)
        return SUCCESS

    def _resend_after(self, attempts: int) -> timedelta:
        settings = self._config.delivery
        return timedelta(seconds=Backoff(settings.first_retry_seconds, settings.maximum_retry_seconds).after(attempts))


def result_of(request: CommitmentRequest, store: Store, files: Files, now: datetime) -> Result:
    """What is true of the request's instances now: committed is what is known under its class and whole on disk.

    What is committed is promised before the result is sent: from `now` retention spares it.  Raises ObjectsAway and
    StorageFull where that cannot be said now.
    """
    held = store.commitment_requests.held(request.instances)
    failed = {item: reason for item in request.instances if (reason := _failure(item, held, files))}
    whole = [item for item in request.instances if item not in failed]
    promised = store.commitment_requests.promise([uid for _, uid in whole], now)
    failed |= {item: NO_SUCH_INSTANCE for item in whole if item[1] not in promised}
    committed = tuple(item for item in request.instances if item not in failed)
    return Result(request.transaction_uid, committed, failed)


def _failure(item: Item, held: dict[str, Any], files: Files) -> int | None:
    sop_class_uid, sop_instance_uid = item
    if sop_instance_uid not in held:
        return NO_SUCH_INSTANCE
    known_class, file = held[sop_instance_uid]
    if known_class != sop_class_uid:
        return CLASS_INSTANCE_CONFLICT
    return None if files.keeps(file) else PROCESSING_FAILURE
