"""Audit messages as PS3.15 A.5 defines them, each one line of XML.  Pure: time and names are passed in."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from xml.etree.ElementTree import Element, SubElement, tostring

Code = tuple[str, str, str]
"""Value, scheme, meaning."""

_APPLICATION_ACTIVITY: Code = ("110100", "DCM", "Application Activity")
_BEGIN_TRANSFERRING: Code = ("110102", "DCM", "Begin Transferring DICOM Instances")
_ACCESSED: Code = ("110103", "DCM", "DICOM Instances Accessed")
_TRANSFERRED: Code = ("110104", "DCM", "DICOM Instances Transferred")
_QUERY: Code = ("110112", "DCM", "Query")
_SECURITY_ALERT: Code = ("110113", "DCM", "Security Alert")
_USER_AUTHENTICATION: Code = ("110114", "DCM", "User Authentication")
_USER_ATTRIBUTES: Code = ("110137", "DCM", "User Security Attributes Changed")
_NODE_AUTHENTICATION: Code = ("110126", "DCM", "Node Authentication")
_APPLICATION: Code = ("110150", "DCM", "Application")
_DESTINATION: Code = ("110152", "DCM", "Destination Role ID")
_SOURCE: Code = ("110153", "DCM", "Source Role ID")
_STUDY: Code = ("110180", "DCM", "Study Instance UID")
_SOP_CLASS: Code = ("110181", "DCM", "SOP Class UID")
_NODE: Code = ("110182", "DCM", "Node ID")
_PATIENT: Code = ("2", "RFC-3881", "Patient Number")
_USER: Code = ("11", "RFC-3881", "User Identifier")
_PERSON, _SYSTEM_OBJECT = "1", "2"
_ROLE_PATIENT, _ROLE_REPORT, _ROLE_SECURITY_USER, _ROLE_SECURITY_RESOURCE = "1", "3", "11", "13"
_SUCCESS, _MINOR_FAILURE = "0", "4"
_IP_ADDRESS, _MACHINE_NAME = "2", "1"


class Activity(Enum):
    """What the application did."""

    START = ("110120", "DCM", "Application Start")
    STOP = ("110121", "DCM", "Application Stop")


class SignIn(Enum):
    """What a person did with his account."""

    LOGIN = ("110122", "DCM", "Login")
    LOGOUT = ("110123", "DCM", "Logout")


@dataclass(frozen=True)
class Person:
    """Who uses a page: the name of the account, and the address of the browser."""

    account: str
    host: str


@dataclass(frozen=True)
class Party:
    """An application entity and where it is; `host` is an address or a name."""

    ae_title: str
    host: str


@dataclass
class Study:
    """What of one study is transferred.  `instances`: how many of each SOP class."""

    study_instance_uid: str
    patient_id: str
    accession_number: str = ""
    instances: dict[str, int] = field(default_factory=dict)

    def count(self, sop_class_uid: str) -> None:
        """One more instance of the class."""
        self.instances[sop_class_uid] = self.instances.get(sop_class_uid, 0) + 1


@dataclass(frozen=True)
class Question:
    """A query: its SOP class, and its Identifier as it is encoded in the transfer syntax."""

    sop_class_uid: str
    identifier: bytes
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Reporter:
    """Makes the messages of one node.  `us` is who reports; without `patient_ids` no message names a patient."""

    us: Party
    patient_ids: bool = True

    def activity(self, what: Activity, process_id: int, at: datetime) -> bytes:
        """The node started or stopped (PS3.15 A.5.3.1)."""
        message = _event(_APPLICATION_ACTIVITY, "E", at, types=[what.value])
        _participant(message, self.us, _APPLICATION, False, user_id=str(process_id))
        self._source(message)
        return tostring(message)

    def begin_transferring(self, study: Study, to: Party, at: datetime) -> bytes:
        """Instances of the study are about to be sent (PS3.15 A.5.3.3)."""
        message = _event(_BEGIN_TRANSFERRING, "E", at)
        return self._of_study(message, self.us, to, study)

    def sent(self, study: Study, to: Party, at: datetime, error: str = "") -> bytes:
        """They were sent, or why not (PS3.15 A.5.3.7)."""
        message = _event(_TRANSFERRED, "R", at, error)
        return self._of_study(message, self.us, to, study)

    def received(self, study: Study, source: Party, at: datetime, error: str = "") -> bytes:
        """They were received and kept (PS3.15 A.5.3.7); `error` where the association ended otherwise than by release."""
        message = _event(_TRANSFERRED, "C", at, error)
        return self._of_study(message, source, self.us, study)

    def query(self, source: Party, destination: Party, asked: Question, at: datetime, error: str = "") -> bytes:
        """A query of ours, or to us, was answered, or not (PS3.15 A.5.3.10)."""
        message = _event(_QUERY, "E", at, error)
        self._parties(message, source, destination)
        asked_of = (asked.sop_class_uid, _SOP_CLASS, _SYSTEM_OBJECT, _ROLE_REPORT)
        subject = _object(message, *asked_of, query=asked.identifier)
        _detail(subject, "TransferSyntax", asked.transfer_syntax_uid)
        return tostring(message)

    def node_refused(self, caller: Party, reason: str, at: datetime) -> bytes:
        """A node could not prove that it may talk to us (PS3.15 A.5.3.11)."""
        message = _event(_SECURITY_ALERT, "E", at, reason, types=[_NODE_AUTHENTICATION])
        self._parties(message, self.us, caller, (None, None))
        subject = _object(message, caller.host, _NODE, _SYSTEM_OBJECT, _ROLE_SECURITY_RESOURCE)
        _detail(subject, "Alert Description", reason)
        return tostring(message)

    def user_authentication(self, what: SignIn, person: Person, at: datetime, error: str = "") -> bytes:
        """A person has signed in or out, or could not (PS3.15 A.5.3.12)."""
        message = _event(_USER_AUTHENTICATION, "E", at, error, types=[what.value])
        self._by(message, person)
        return tostring(message)

    def account_changed(self, account: str, change: str, person: Person, at: datetime) -> bytes:
        """A person has made an account or changed what it may (PS3.15 A.5.3.11)."""
        message = _event(_SECURITY_ALERT, "E", at, types=[_USER_ATTRIBUTES])
        self._by(message, person)
        subject = _object(message, account, _USER, _PERSON, _ROLE_SECURITY_USER)
        _detail(subject, "Alert Description", change)
        return tostring(message)

    def accessed(self, study: Study, person: Person, changed: bool, at: datetime) -> bytes:
        """A person has looked at the study, or has changed what is known of it (PS3.15 A.5.3.6)."""
        message = _event(_ACCESSED, "U" if changed else "R", at)
        self._by(message, person)
        self._objects(message, study)
        return tostring(message)

    def _by(self, message: Element, person: Person) -> None:
        """The message names the person who asked, and us."""
        _participant(message, Party("", person.host), None, True, user_id=person.account)
        _participant(message, self.us, None, False)
        self._source(message)

    def _of_study(self, message: Element, source: Party, destination: Party, study: Study) -> bytes:
        self._parties(message, source, destination)
        self._objects(message, study)
        return tostring(message)

    def _objects(self, message: Element, study: Study) -> None:
        """The study and its patient."""
        transferred = _object(message, study.study_instance_uid, _STUDY, _SYSTEM_OBJECT, _ROLE_REPORT)
        description = SubElement(transferred, "ParticipantObjectDescription")
        if study.accession_number:
            SubElement(description, "Accession", Number=_plain(study.accession_number))
        for sop_class_uid, count in study.instances.items():
            SubElement(description, "SOPClass", UID=_plain(sop_class_uid), NumberOfInstances=str(count))
        if self.patient_ids:
            _object(message, study.patient_id, _PATIENT, _PERSON, _ROLE_PATIENT)

    def _parties(
        self, message: Element, first: Party, other: Party, roles: Sequence[Code | None] = (_SOURCE, _DESTINATION)
    ) -> None:
        """The message names the requestor, the other, and who reports."""
        _participant(message, first, roles[0], True)
        _participant(message, other, roles[1], False)
        self._source(message)

    def _source(self, message: Element) -> None:
        SubElement(message, "AuditSourceIdentification", AuditSourceID=f"{self.us.ae_title}@{self.us.host}")


def _event(what: Code, action: str, at: datetime, error: str = "", types: Sequence[Code] = ()) -> Element:
    message = Element("AuditMessage")
    event = SubElement(
        message,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=_MINOR_FAILURE if error else _SUCCESS,
    )
    SubElement(event, "EventID", _coded(what))
    for kind in types:
        SubElement(event, "EventTypeCode", _coded(kind))
    if error:
        SubElement(event, "EventOutcomeDescription").text = _plain(error)
    return message


def _participant(message: Element, who: Party, role: Code | None, is_requestor: bool, user_id: str = "") -> None:
    values = {
        "UserID": user_id or who.ae_title or who.host,
        "UserIsRequestor": "true" if is_requestor else "false",
        "NetworkAccessPointID": who.host,
        "NetworkAccessPointTypeCode": _IP_ADDRESS if _is_address(who.host) else _MACHINE_NAME,
    }
    if who.ae_title:
        values["AlternativeUserID"] = f"AETITLES={who.ae_title}"
    participant = SubElement(message, "ActiveParticipant", _all_plain(values))
    if role is not None:
        SubElement(participant, "RoleIDCode", _coded(role))


def _object(message: Element, name: str, kind: Code, type_code: str, role: str, query: bytes | None = None) -> Element:
    """A participant object; the schema wants a name or a query of each, and we know no names."""
    code, code_role = "ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"
    values = {"ParticipantObjectID": name, code: type_code, code_role: role}
    made = SubElement(message, "ParticipantObjectIdentification", _all_plain(values))
    SubElement(made, "ParticipantObjectIDTypeCode", _coded(kind))
    if query is None:
        SubElement(made, "ParticipantObjectName")
    else:
        SubElement(made, "ParticipantObjectQuery").text = base64.b64encode(query).decode()
    return made


def _detail(participant_object: Element, kind: str, value: str) -> None:
    encoded = base64.b64encode(value.encode()).decode()
    SubElement(participant_object, "ParticipantObjectDetail", type=kind, value=encoded)


def _coded(code: Code) -> dict[str, str]:
    return dict(zip(("csd-code", "codeSystemName", "originalText"), code, strict=True))


def _all_plain(values: Mapping[str, str]) -> dict[str, str]:
    return {key: _plain(value) for key, value in values.items()}


def _plain(text: Iterable[str]) -> str:
    """The text without what XML 1.0 cannot carry."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
