"""One instance on its way in: from the first byte of its dataset to the answer."""

from collections.abc import Callable
from datetime import datetime

from node.dicom import header
from node.dicom.dataset_walker import Malformed
from node.dicom.header import MismatchedDataset, UnreadableDataset
from node.dicom.status import CANNOT_UNDERSTAND, DOES_NOT_MATCH_CLASS, ELEMENTS_DISCARDED, OUT_OF_RESOURCES, SUCCESS
from node.net.dimse_messages import Answer
from storage.errors import StorageFull
from storage.files.instances import Files, InstanceWriter
from storage.killpoints import kill_point
from storage.queries.group_commit import GroupCommit, Offer
from storage.records import Added, Header, Received, StoredFile


class IncomingInstance:
    """The sink of one C-STORE request.

    The bytes go to a temporary file, the hash, and the walker that finds the header, as they come.  The first thing
    that goes wrong is the answer; the rest of the dataset is then only read away.
    """

    def __init__(
        self,
        uids: tuple[str, str],
        transfer_syntax_uid: str,
        calling_ae: str,
        files: Files,
        group_commit: GroupCommit,
        association_id: Callable[[], int],
        on_answer: Callable[[Answer, Header | None], None],
        now: Callable[[], datetime],
    ) -> None:
        """`uids`: SOP class and instance, as the command has them.  `association_id` is called when the instance is whole.

        `on_answer` gets the answer, and what was read of the dataset.
        """
        self._uids, self._transfer_syntax_uid, self._calling_ae = uids, transfer_syntax_uid, calling_ae
        self._files, self._group_commit = files, group_commit
        self._association_id, self._on_answer, self._now = association_id, on_answer, now
        self._walker = header.walk(transfer_syntax_uid)
        self._header: Header | None = None
        self._writer: InstanceWriter | None = None
        self._failure: Exception | None = None
        if all(header.is_uid(uid) for uid in uids):
            self._guarded(self._open)

    def _guarded(self, step: Callable[[], None]) -> None:
        """`step` was done, or why not is kept and no file remains."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, this instance is not kept, and only this one
            self._failure = error
            self.abandon()

    def _open(self) -> None:
        meta = header.file_meta(self._uids, self._transfer_syntax_uid, self._calling_ae)
        self._writer = self._files.begin_instance(meta)

    def write(self, data: memoryview) -> None:
        """The next bytes of the dataset."""
        if self._failure is None:
            self._guarded(lambda: self._take(data))

    def _take(self, data: memoryview) -> None:
        self._walker.feed(data)
        if self._writer is not None:
            self._writer.write(data)
        if self._header is None and self._walker.header_is_complete:
            self._read_header()

    def _read_header(self) -> None:
        self._header = header.header_of(self._walker, self._transfer_syntax_uid, *self._uids)

    def finish(self) -> Answer:
        """The dataset is complete; when the answer is a success the instance survives power loss."""
        answer = self._answer()
        self._on_answer(answer, self._header)
        return answer

    def _answer(self) -> Answer:
        added: list[Added] = []
        if self._failure is None:
            self._guarded(lambda: added.append(self._keep()))
        if self._failure is not None:
            return _answer_to(self._failure)
        if added == [Added.DIFFERENT]:
            return Answer(ELEMENTS_DISCARDED, "SOPInstanceUID is known with other content; first kept")
        return Answer(SUCCESS)

    def _keep(self) -> Added:
        self._walker.finish()
        kill_point("after_temporary")
        if self._header is None:
            self._read_header()
        header, writer = self._header, self._writer
        if header is None or writer is None:  # a UID of the command is none, so the header cannot have agreed with it
            raise UnreadableDataset("the command has no valid UIDs")
        association_id = self._association_id()
        file = writer.seal(header.series_instance_uid, header.sop_instance_uid)
        writer.publish()
        kill_point("after_publish")
        offer = self._group_commit.offer(Received(header, file, association_id, self._calling_ae, self._now()))
        try:
            writer.flush()
        except Exception:
            self._take_back(offer, file)
            raise
        kill_point("after_flush")
        added = Added(str(offer.outcome()))
        if added is Added.DIFFERENT:
            self._files.discard(file)
        return added

    def _take_back(self, offer: Offer, file: StoredFile) -> None:
        """A row whose file could not be flushed is gone, unless another association's file holds the same.

        What is left of it after an error, `willis fsck` finds.
        """
        if offer.outcome() is Added.STORED and not self._files.holds(file):
            self._group_commit.forget_instance(self._uids[1], file)

    def abandon(self) -> None:
        """Nothing is left of what was written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()


def _answer_to(failure: Exception) -> Answer:
    if isinstance(failure, MismatchedDataset):
        return Answer(DOES_NOT_MATCH_CLASS, str(failure))
    if isinstance(failure, UnreadableDataset | Malformed):
        return Answer(CANNOT_UNDERSTAND, str(failure))
    if isinstance(failure, StorageFull):
        return Answer(OUT_OF_RESOURCES, "no space left on the disk")
    return Answer(OUT_OF_RESOURCES, f"cannot store now: {type(failure).__name__}")
