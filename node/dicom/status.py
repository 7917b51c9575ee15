"""The DIMSE statuses that Willis answers or is answered, by their meaning (PS3.7 annex C; PS3.4 B.2.3, C.4, J.3)."""

SUCCESS = 0x0000
PENDING, PENDING_WITHOUT_SOME_KEYS, CANCELLED = 0xFF00, 0xFF01, 0xFE00

PROCESSING_FAILURE, RESOURCE_LIMITATION, SOP_CLASS_NOT_SUPPORTED = 0x0110, 0x0213, 0x0122
NO_SUCH_INSTANCE, CLASS_INSTANCE_CONFLICT, INVALID_ARGUMENT = 0x0112, 0x0119, 0x0115
NO_SUCH_EVENT_TYPE, NO_SUCH_ACTION = 0x0113, 0x0123

OUT_OF_RESOURCES, DOES_NOT_MATCH_CLASS, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
UNABLE_TO_PROCESS = CANNOT_UNDERSTAND
"""As C-FIND, C-MOVE and C-GET name it."""
DUPLICATE_INSTANCE, ELEMENTS_DISCARDED = 0x0111, 0xB006

UNABLE_TO_COUNT_MATCHES, SUBOPERATIONS_FAILED, DESTINATION_UNKNOWN = 0xA701, 0xA702, 0xA801
SOME_SUBOPERATIONS_FAILED = 0xB000

DUPLICATE_TRANSACTION = 0x0131
ATTRIBUTE_LIST_ERROR, ATTRIBUTE_OUT_OF_RANGE = 0x0107, 0x0116


def is_pending(status: int) -> bool:
    """Whether more responses follow (PS3.7 C.2)."""
    return status in (PENDING, PENDING_WITHOUT_SOME_KEYS)


def is_unable_to_process(status: int) -> bool:
    """Whether it is one of the failures 0xC000 to 0xCFFF."""
    return 0xC000 <= status <= 0xCFFF


def is_warning(status: int) -> bool:
    """Whether what was asked for was done, though not to the letter (PS3.7 C.3)."""
    return status in (0x0001, ATTRIBUTE_LIST_ERROR, ATTRIBUTE_OUT_OF_RANGE) or 0xB000 <= status <= 0xBFFF


def may_pass(status: int) -> bool:
    """Whether storing the same again may succeed later (PS3.4 B.2.3, PS3.18 I.2)."""
    return 0xA700 <= status <= 0xA7FF or status in (PROCESSING_FAILURE, RESOURCE_LIMITATION)
