"""pynetdicom's DIMSE primitives from and to the bytes of P-DATA, and a request as its handler sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import dimse_messages
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu_primitives import P_DATA

from node.net.dimse_messages import OtherMessage, ProtocolViolation, Readable, message_pdus

_WHOLE_COMMAND, _WHOLE_DATASET = b"\x03", b"\x02"
_DATASETS = ("Identifier", "ActionInformation", "EventInformation")


def primitive_of(message: OtherMessage) -> tuple[Any, bool]:
    """The primitive that came, and whether it is a response.  Raises ProtocolViolation when it cannot be read."""
    decoder = dimse_messages.DIMSEMessage()
    data = P_DATA()
    data.presentation_data_value_list.append([message.context_id, _WHOLE_COMMAND + message.command])
    if message.dataset is not None:
        data.presentation_data_value_list.append([message.context_id, _WHOLE_DATASET + message.dataset])
    try:
        if not decoder.decode_msg(data):
            raise ProtocolViolation("message cannot be decoded")
        return decoder.message_to_primitive(), type(decoder).__name__.endswith("_RSP")
    except ProtocolViolation:
        raise
    except Exception:  # noqa: BLE001  the edge: pynetdicom raises whatever its parser stumbles over
        raise ProtocolViolation("message cannot be decoded") from None


def pdus_of(primitive: Any, context_id: int, maximum_bytes: int, dataset: Readable | None = None) -> Iterator[bytes]:
    """P-DATA-TF PDUs that carry a request or, where it answers one, a response; with its own dataset, or this one."""
    is_response = primitive.MessageIDBeingRespondedTo is not None and hasattr(primitive, "Status")
    message = getattr(dimse_messages, f"{type(primitive).__name__}_{'RSP' if is_response else 'RQ'}")()
    message.primitive_to_message(primitive)
    if dataset is not None:
        message.command_set.CommandDataSetType = 0x0001
    elif message.data_set and message.data_set.getvalue():
        dataset = BytesIO(message.data_set.getvalue())
    command = encode(message.command_set, True, True)
    if command is None:
        raise ValueError(f"{primitive.msg_type} cannot be encoded")
    return message_pdus(context_id, command, dataset, maximum_bytes)


def dataset_of(encoded: BytesIO | None, syntax: UID) -> Dataset:
    """The dataset of a message, empty where it has none.  Raises whatever pydicom's parser stumbles over."""
    if encoded is None or not encoded.getvalue():
        return Dataset()
    ds: Dataset = decode(encoded, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    return ds


def bytes_of(ds: Dataset, syntax: UID) -> BytesIO | None:
    """The dataset as a message carries it; None when it cannot be encoded, or holds nothing."""
    encoded = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    return BytesIO(encoded) if encoded else None


@dataclass(frozen=True)
class Request:
    """A DIMSE request that a peer makes on an association: what its handler is called with."""

    assoc: Any
    request: Any
    context: Any
    """pynetdicom's PresentationContextTuple: `context_id`, `abstract_syntax`, `transfer_syntax`."""

    @property
    def dataset(self) -> Dataset:
        """Identifier, Action Information or Event Information.  Raises whatever pydicom's parser stumbles over."""
        encoded = next(
            (getattr(self.request, keyword) for keyword in _DATASETS if hasattr(self.request, keyword)), None
        )
        return dataset_of(encoded, UID(self.context.transfer_syntax))
