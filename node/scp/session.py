"""What an association that brings instances is to the database, the log and the audit trail, whoever opened it."""

import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial

from node.audit.messages import Party, Reporter, Study
from node.audit.trail import Trail
from node.config.sections import Node
from node.dicom.status import is_warning
from node.net.dimse_messages import Answer
from node.rules.parts import shortfall
from node.runtime import log
from node.scp.instance import IncomingInstance
from storage.files.instances import Files
from storage.queries.group_commit import GroupCommit, Offer
from storage.records import AssociationEnd, Ended, Header, Opened, Refusal

MOST_REFUSALS = 100
"""So many instances that were refused on one association are remembered one by one."""
MOST_STUDIES = 256
"""So many on one association are remembered for the audit trail before their messages are written."""


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
    ) -> None:
        """Nothing is known of the association before its first instance."""
        self._receiver, self._source = receiver, source
        self._files, self._group_commit, self._trail, self._now = files, group_commit, trail, now
        self._opening: Offer | None = None
        self._studies: dict[str, Study] = {}
        self._kept = self._refused = self._last_status = 0
        self._refusals: list[Refusal] = []

    def begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> IncomingInstance:
        """The next instance.  With the first, the association is known as open; while that comes nobody waits for it."""
        opening = self._opening
        if opening is None:
            opening = self._group_commit.offer(Opened(self._receiver, self._source.ae_title, self._now()))
            self._opening = opening
        return IncomingInstance(
            (sop_class_uid, sop_instance_uid),
            transfer_syntax_uid,
            self._source.ae_title,
            self._files,
            self._group_commit,
            partial(self._association_id, opening),
            partial(self._on_answer, (sop_class_uid, sop_instance_uid)),
            self._now,
        )

    def _association_id(self, opening: Offer) -> int:
        """The id, once it is durable.  Raises what went wrong; then the next instance tries again."""
        try:
            return int(opening.outcome())
        except Exception:
            self._opening = None
            raise

    def _on_answer(self, uids: tuple[str, str], answer: Answer, header: Header | None) -> None:
        """A refusal is logged and remembered, and what was kept counts for the audit trail."""
        is_refused = bool(answer.status) and not is_warning(answer.status)
        self._kept, self._refused = self._kept + (not is_refused), self._refused + is_refused
        self._last_status = answer.status if is_refused else 0
        if is_refused and len(self._refusals) < MOST_REFUSALS:
            self._refusals.append(Refusal(uids[0][:64], uids[1][:64], header.series_instance_uid if header else ""))
        if answer.status:
            log.get().warning(
                "instance_refused", calling_ae=self._source.ae_title, status=answer.status, error=answer.comment
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
            log.get().warning("association_fell_short", calling_ae=self._source.ae_title, reason=short)
        opening, self._opening = self._opening, None
        if opening is None and short:
            opening = self._group_commit.offer(Opened(self._receiver, self._source.ae_title, self._now()))
        try:
            if opening is None:
                return None
            association_id = int(opening.outcome())
            self._group_commit.offer(
                Ended(association_id, how, self._now(), tuple(self._refusals), short, classes_not_accepted)
            ).outcome()
            return association_id
        finally:  # the trail has what came, whether or not the database takes the end
            self._record(error)

    def _record(self, error: str) -> None:
        """One message for each study that came."""
        studies, self._studies, now = self._studies, {}, self._now()
        for study in studies.values():
            self._trail.record(partial(Reporter.received, study=study, source=self._source, at=now, error=error))
