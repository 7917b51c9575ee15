"""The rules of the audit message schema (PS3.15 A.5.1, RELAX NG), as far as messages of ours could break them."""

import base64
import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element

_DATE_TIME = re.compile(r"-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_UID = re.compile(r"[0-2](\.(0|[1-9]\d*))*")


def _numbers(last: int) -> set[str]:
    return {str(number) for number in range(1, last + 1)}


def check(message: Element) -> None:
    """The message is valid.  Raises AssertionError."""
    assert message.tag == "AuditMessage"
    assert not message.attrib
    _children(
        message, "EventIdentification ActiveParticipant+ AuditSourceIdentification ParticipantObjectIdentification*"
    )
    for child in message:
        {
            "EventIdentification": _event,
            "ActiveParticipant": _participant,
            "AuditSourceIdentification": _source,
            "ParticipantObjectIdentification": _object,
        }[child.tag](child)


def _children(element: Element, pattern: str) -> None:
    """The element's children, in this order."""
    parts = [re.fullmatch(r"([\w|]+)([*+?]?)", part) for part in pattern.split()]
    grammar = "".join(f"(({part[1]}) ){part[2]}" for part in parts if part)
    assert re.fullmatch(grammar, "".join(f"{child.tag} " for child in element)), (element.tag, list(element))


def _attributes(element: Element, mandatory: Iterable[str], optional: Iterable[str] = ()) -> None:
    names = set(element.keys())
    assert set(mandatory) <= names <= {*mandatory, *optional}, (element.tag, names)


def _code(element: Element) -> None:
    _attributes(element, ["csd-code", "codeSystemName", "originalText"], ["displayName"])
    assert not list(element)
    assert all(element.attrib.values())


def _event(element: Element) -> None:
    _attributes(element, ["EventDateTime", "EventOutcomeIndicator"], ["EventActionCode"])
    assert _DATE_TIME.fullmatch(element.attrib["EventDateTime"])
    assert element.attrib["EventOutcomeIndicator"] in {"0", "4", "8", "12"}
    assert element.get("EventActionCode", "C") in set("CRUDE")
    _children(element, "EventID EventTypeCode* EventOutcomeDescription?")
    for code in element:
        if code.tag != "EventOutcomeDescription":
            _code(code)


def _participant(element: Element) -> None:
    optional = ["AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"]
    _attributes(element, ["UserID", "UserIsRequestor"], optional)
    assert element.attrib["UserID"]
    assert element.attrib["UserIsRequestor"] in {"true", "false", "1", "0"}
    assert element.get("NetworkAccessPointTypeCode", "1") in _numbers(5)
    _children(element, "RoleIDCode* MediaIdentifier?")
    for code in element:
        _code(code)


def _source(element: Element) -> None:
    _attributes(element, ["AuditSourceID"], ["AuditEnterpriseSiteID"])
    _children(element, "AuditSourceTypeCode*")


def _object(element: Element) -> None:
    optional = ["ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"]
    optional += ["ParticipantObjectDataLifeCycle", "ParticipantObjectSensitivity"]
    _attributes(element, ["ParticipantObjectID"], optional)
    assert element.get("ParticipantObjectTypeCode", "1") in _numbers(4)
    assert element.get("ParticipantObjectTypeCodeRole", "1") in _numbers(26)
    assert element.get("ParticipantObjectDataLifeCycle", "1") in _numbers(15)
    named = "ParticipantObjectName|ParticipantObjectQuery"
    _children(element, f"ParticipantObjectIDTypeCode {named} ParticipantObjectDetail* ParticipantObjectDescription*")
    for child in element:
        if child.tag == "ParticipantObjectIDTypeCode":
            _code(child)
        elif child.tag == "ParticipantObjectQuery":
            base64.b64decode(child.text or "", validate=True)
        elif child.tag == "ParticipantObjectDetail":
            _attributes(child, ["type", "value"])
            base64.b64decode(child.attrib["value"], validate=True)
        elif child.tag == "ParticipantObjectDescription":
            _description(child)


def _description(element: Element) -> None:
    assert not element.attrib
    _children(element, "MPPS* Accession* SOPClass* ParticipantObjectContainsStudy? Encrypted? Anonymized?")
    for child in element:
        if child.tag == "Accession":
            _attributes(child, ["Number"])
        elif child.tag == "SOPClass":
            _attributes(child, ["NumberOfInstances"], ["UID"])
            assert child.attrib["NumberOfInstances"].isdigit()
            assert _UID.fullmatch(child.attrib["UID"])
