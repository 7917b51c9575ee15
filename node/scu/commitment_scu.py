"""Storage commitment with a peer (PS3.4 J): we ask it to commit, or it gets what became of what it asked."""

from collections.abc import Iterable

from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID, Item, Result
from node.dicom.status import SUCCESS
from node.errors import Refused, Unavailable
from node.net.requestor import Requestor
from node.scu import dimse
from node.scu.dimse import Entity


def request(assoc: Requestor, transaction_uid: str, items: Iterable[Item]) -> None:
    """The peer has taken on to answer what becomes of the instances.  Raises Unavailable, Refused."""
    action = N_ACTION()
    action.RequestedSOPClassUID, action.RequestedSOPInstanceUID = StorageCommitmentPushModel, INSTANCE_UID
    action.ActionTypeID = commitment.REQUEST
    context = _context(assoc, as_scu=True)
    [(answer, _)] = assoc.ask(action, context, commitment.request_dataset(transaction_uid, items))
    commitment.check_taken(int(answer.Status))


def send_result(entity: Entity, peer: Peer, result: Result) -> None:
    """The peer has the result, on an association of its own.  Raises Unavailable, Refused."""
    with dimse.associate(entity, peer, CONTEXTS, [StorageCommitmentPushModel]) as assoc:
        context, dataset = _context(assoc, as_scu=False), commitment.result_dataset(result)
        [(answer, _)] = assoc.ask(commitment.report_of(result), context, dataset)
    if answer.Status != SUCCESS:
        raise Unavailable(f"storage commitment result: status 0x{answer.Status:04X}")


def _context(assoc: Requestor, as_scu: bool) -> PresentationContext:
    """An SCP that ignores our role reports all the same: to some peers every context is good for a result."""
    if not (contexts := assoc.contexts_of(StorageCommitmentPushModel, as_scu)):
        raise Refused("the peer is no SCP of storage commitment")
    return contexts[0]
