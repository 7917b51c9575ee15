"""An association that brings instances, whoever opened it, and each instance on its way in: from its first byte to the answer."""

import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial

from node.audit.messages import Party, Reporter, Study
from node.audit.trail import Trail
from node.config.sections import Node
from node.dicom import header
from node.dicom.dataset_walker import Malformed
from node.dicom.header import MismatchedDataset, UnreadableDataset
from node.dicom.status import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_CLASS,
    ELEMENTS_DISCARDED,
    OUT_OF_RESOURCES,
    SUCCESS,
    is_warning,
)
from node.errors import safe_message
from node.net.dimse_messages import Answer
from node.rules.parts import shortfall
from node.runtime import log
from storage.errors import StorageFull
from storage.files.instances import Files, InstanceWriter
from storage.killpoints import kill_point
from storage.queries.group_commit import GroupCommit, Offer
from storage.records import Added, AssociationEnd, Ended, Header, Opened, Received, Refusal, StoredFile

MOST_REFUSALS = 100
"""So many instances that were refused on one association are remembered one by one."""
MOST_STUDIES = 256
"""So many on one association are remembered for the audit trail before their messages are written."""
LONGEST_COMMENT = 64
"""Of an Error Comment (PS3.7 C.4.2): it is a Long String."""


def receiver_name(settings: Node) -> str:
    """What the receiver, and what brings instances for it, signs associations with; as long as its column."""
    return f"{settings.host}:{settings.port}@{socket.gethostname()}"[:80]


class ReceivingSession:
    """One association on which `source` gives us instances.  One thread uses it."""

    def __init__(
        self,
        receiver: str,
        source: Party,
        files: Files,
        group_commit: GroupCommit,
        trail: Trail,
        now: Callable[[], datetime],
        on_refused: Callable[[str], None] = lambda _comment: None,
    ) -> None:
        """Nothing is known of the association before its first instance.  `on_refused` hears of every refusal."""
        self.source, self.files, self.group_commit, self.now = source, files, group_commit, now
        self._receiver, self._trail, self._on_refused = receiver, trail, on_refused
        self._opening: Offer | None = None
        self._studies: dict[str, Study] = {}
        self._kept = self._refused = self._last_status = 0
        self._refusals: list[Refusal] = []

    def begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> "IncomingInstance":
        """The next instance.  With the first, the association is known as open; while that comes nobody waits for it."""
        opening = self._opening
        if opening is None:
            opening = self.group_commit.offer(Opened(self._receiver, self.source.ae_title, self.now()))
            self._opening = opening
        return IncomingInstance(self, (sop_class_uid, sop_instance_uid), transfer_syntax_uid, opening)

    def association_id(self, opening: Offer) -> int:
        """The id, once it is durable.  Raises what went wrong; then the next instance tries again."""
        try:
            return int(opening.outcome())
        except Exception:
            self._opening = None
            raise

    def answered(self, uids: tuple[str, str], answer: Answer, header: Header | None) -> None:
        """A refusal is logged and remembered, and what was kept counts for the audit trail."""
        is_refused = bool(answer.status) and not is_warning(answer.status)
        self._kept, self._refused = self._kept + (not is_refused), self._refused + is_refused
        self._last_status = answer.status if is_refused else 0
        if is_refused and len(self._refusals) < MOST_REFUSALS:
            self._refusals.append(Refusal(uids[0][:64], uids[1][:64], header.series_instance_uid if header else ""))
        if is_refused:
            self._on_refused(answer.comment)
        if answer.status:
            log.get().warning(
                "instance_refused", calling_ae=self.source.ae_title, status=answer.status, error=answer.comment
            )
        elif header is not None:
            if header.study_instance_uid not in self._studies and len(self._studies) >= MOST_STUDIES:
                self._record("")
            study = Study(header.study_instance_uid, header.patient_id, header.accession_number)
            self._studies.setdefault(header.study_instance_uid, study).count(header.sop_class_uid)

    def end(self, how: AssociationEnd, error: str = "", classes_not_accepted: tuple[str, ...] = ()) -> int | None:
        """The association has ended, with what `error`; returns its id, None where nothing is to be known of it.

        `classes_not_accepted`: the storage SOP classes that were offered on it and refused.
        """
        short = shortfall(how, self._kept, self._refused, self._last_status, classes_not_accepted)
        if short:
            log.get().warning("association_fell_short", calling_ae=self.source.ae_title, reason=short)
        opening, self._opening = self._opening, None
        if opening is None and short:
            opening = self.group_commit.offer(Opened(self._receiver, self.source.ae_title, self.now()))
        try:
            if opening is None:
                return None
            association_id = int(opening.outcome())
            ended = Ended(association_id, how, self.now(), tuple(self._refusals), short, classes_not_accepted)
            self.group_commit.offer(ended).outcome()
            return association_id
        finally:  # the trail has what came, whether or not the database takes the end
            self._record(error)

    def _record(self, error: str) -> None:
        """One message for each study that came."""
        studies, self._studies, now = self._studies, {}, self.now()
        for study in studies.values():
            self._trail.record(partial(Reporter.received, study=study, source=self.source, at=now, error=error))


class IncomingInstance:
    """The sink of one C-STORE request.

    The bytes go to a temporary file, the hash, and the walker that finds the header, as they come.  The first thing
    that goes wrong is the answer; the rest of the dataset is then only read away.
    """

    def __init__(
        self, session: ReceivingSession, uids: tuple[str, str], transfer_syntax_uid: str, opening: Offer
    ) -> None:
        """`uids`: SOP class and instance, as the command has them.  `opening` is that of the association of the `session`."""
        self._session, self._uids, self._transfer_syntax_uid, self._opening = (
            session,
            uids,
            transfer_syntax_uid,
            opening,
        )
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
        meta = header.file_meta(self._uids, self._transfer_syntax_uid, self._session.source.ae_title)
        self._writer = self._session.files.begin_instance(meta)

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
        self._session.answered(self._uids, answer, self._header)
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
        session, header, writer = self._session, self._header, self._writer
        if header is None or writer is None:  # a UID of the command is none, so the header cannot have agreed with it
            raise UnreadableDataset("the command has no valid UIDs")
        association_id = session.association_id(self._opening)
        file = writer.seal(header.series_instance_uid, header.sop_instance_uid)
        writer.publish()
        kill_point("after_publish")
        received = Received(header, file, association_id, session.source.ae_title, session.now())
        offer = session.group_commit.offer(received)
        try:
            writer.flush()
        except Exception:
            self._take_back(offer, file)
            raise
        kill_point("after_flush")
        added = Added(str(offer.outcome()))
        if added is Added.DIFFERENT:
            session.files.discard(file)
        return added

    def _take_back(self, offer: Offer, file: StoredFile) -> None:
        """A row whose file could not be flushed is gone, unless another association's file holds the same.

        What is left of it after an error, `willis fsck` finds.
        """
        if offer.outcome() is Added.STORED and not self._session.files.holds(file):
            self._session.group_commit.forget_instance(self._uids[1], file)

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
    cause = safe_message(failure).partition(";")[0]
    return Answer(OUT_OF_RESOURCES, f"cannot store now: {cause}"[:LONGEST_COMMENT])
