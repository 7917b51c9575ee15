"""Storage commitment as SCP (PS3.4 annex J): a request is kept before it is acknowledged, and answered later.

On the same association when it stays open and quiet; `node.workflow.commitments.tell` sees to the rest.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.dicom import commitment
from node.runtime import log
from node.workflow.commitments import result_of
from storage.files.instances import Files
from storage.records import CommitmentRequest
from storage.store import Store

GRACE_SECONDS = 5.0
"""So long the result may go out on the association of the request; then it goes out on one of its own."""


class CommitmentScp:
    """What the receiver does with N-ACTION."""

    def __init__(self, store: Store, files: Files, clock: Callable[[], datetime]) -> None:
        """`store` and `files` are the receiver's."""
        self._store, self._files, self._clock = store, files, clock

    def on_action(self, event: Any) -> tuple[int, None]:
        """pynetdicom's handler: the status to answer.  A success means that the result is owed, even after a crash."""
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        logger = log.get().bind(calling_ae=calling_ae)
        if event.request.RequestedSOPInstanceUID != commitment.INSTANCE_UID:
            return commitment.NO_SUCH_INSTANCE, None
        if event.action_type != commitment.REQUEST:
            return commitment.NO_SUCH_ACTION, None
        try:
            transaction_uid, instances = commitment.read_request(event.action_information)
        except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
            logger.warning("commitment_request_refused", reason="cannot be read")
            return commitment.INVALID_ARGUMENT, None
        now = self._clock()
        request = self._store.commitment_requests.add(
            transaction_uid, calling_ae, instances, now, now + timedelta(seconds=GRACE_SECONDS)
        )
        if request is None:
            logger.warning("commitment_request_refused", reason="transaction UID used for other instances")
            return commitment.DUPLICATE_TRANSACTION, None
        logger.info("commitment_requested", instances=len(instances))
        event.assoc.when_quiet(lambda: self._tell(event.assoc, event.context.context_id, request))
        return 0x0000, None

    def _tell(self, assoc: Any, context_id: int, request: CommitmentRequest) -> None:
        """The result is on its way on the association of the request."""
        result = result_of(request, self._store, self._files, self._clock())
        syntax = assoc.accepted_context(context_id).transfer_syntax[0]
        report = N_EVENT_REPORT()
        report.MessageID = 1
        report.AffectedSOPClassUID = StorageCommitmentPushModel
        report.AffectedSOPInstanceUID = commitment.INSTANCE_UID
        report.EventTypeID = result.event_type
        encoded = encode(commitment.result_dataset(result), syntax.is_implicit_VR, syntax.is_little_endian)
        report.EventInformation = BytesIO(encoded or b"")

        def on_answer(answer: Any) -> None:
            if answer.Status == 0x0000:
                self._store.commitment_requests.answered(request, self._clock())
                log.get().info("commitment_result_sent", calling_ae=request.calling_ae, count=len(result.failed))

        assoc.send_request(report, context_id, on_answer)
