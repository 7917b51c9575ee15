"""Our side as SCU, with one SOP class on an association."""

from typing import Any

from pydicom import Dataset
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from node.net.requestor import Requestor
from node.scu import dimse
from node.scu.dimse import Entity, Timeouts
from tests.support.raw_scp import RawScp

FIND, GET = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet
IMPLICIT = "1.2.840.10008.1.2"
US = Entity("WILLIS", Timeouts(acse=5, dimse=5, network=5))


def request(primitive: Any, sop_class: str, sop_instance: str = "") -> Any:
    """The primitive, about this SOP class."""
    action = isinstance(primitive, N_ACTION)
    setattr(primitive, "RequestedSOPClassUID" if action else "AffectedSOPClassUID", sop_class)
    if action:
        primitive.RequestedSOPInstanceUID, primitive.ActionTypeID = sop_instance, 1
    elif sop_instance:
        primitive.AffectedSOPInstanceUID = sop_instance
    if hasattr(primitive, "Priority"):
        primitive.Priority = 2
    return primitive


def associated(scp: RawScp, sop_class: str, entity: Entity = US, **options: Any) -> Requestor:
    return dimse.associate(entity, scp.peer, [(sop_class, IMPLICIT)], **options)


def ask(assoc: Requestor, primitive: Any, sop_class: str, dataset: Dataset | None = None) -> list[int]:
    """The statuses of the responses."""
    context = assoc.contexts_of(sop_class)[0]
    return [answer.Status for answer, _ in assoc.ask(request(primitive, sop_class, "1.2"), context, dataset)]


def listed(number: int) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.StudyInstanceUID = "STUDY", f"2.25.{number}"
    return ds
