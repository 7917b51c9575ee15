"""What a notification says: as text for people, as HL7 v2.5.1 ORU^R01, as a FHIR R4 DiagnosticReport.  Pure.

Without `patient_data` nothing is said by which the patient could be known: no name, number, accession, date of the study or
UID; only the case's number, what was found where, and a link behind which one has to sign in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

UNVERIFIED = "Not verified by a person. Research use, not a medical device."
_IDENTIFIER = "urn:willis:case"


@dataclass(frozen=True)
class Alert:
    """One thing to be told, at a time.  `key` is the same at every attempt, so that who gets it twice can know."""

    key: str
    at: datetime
    headline: str
    """What it is, in a line."""
    lines: tuple[str, ...]
    case: Mapping[str, Any] | None = None
    """Its row of the view `worklist`; None where it is about no case."""
    patient_data: bool = False
    link: str = ""

    @property
    def number(self) -> str:
        """Case and revision."""
        assert self.case is not None
        return f"{self.case['case_id']}.{self.case['revision']}"


def finding_of(row: Mapping[str, Any]) -> str:
    """What the model found, in a line without a word on the patient."""
    p, mm = row["p_present"], row["diameter_mm"]
    parts = [
        "possible intracranial aneurysm" if row["outcome"] == "positive" else str(row["outcome"]).replace("_", " ")
    ]
    parts += [f"P {p:.2f}"] if p is not None else []
    parts += [str(row["top_location"])] if row["top_location"] else []
    return ", ".join([*parts, *([f"{mm:.1f} mm"] if mm is not None else [])])


def text_of(alert: Alert) -> tuple[str, str]:
    """Title and body for people."""
    lines = [*alert.lines]
    if alert.case is not None and alert.patient_data:
        row = alert.case
        lines += [f"Patient: {row['patient_name']} ({row['patient_id']})", f"Accession: {row['accession_number']}"]
        lines += [f"Study: {row['study_date']}, {row['series_description']}"]
    lines += [alert.link] if alert.link else []
    return f"Willis: {alert.headline}", "\n".join([*lines, *([UNVERIFIED] if alert.case is not None else [])])


def oru_of(alert: Alert, sender: str) -> str:
    """The ORU^R01 of an alert about a case, segments ended by CR; PID and the accession only with patient data."""
    row, stamp = _case(alert), f"{alert.at.astimezone(UTC):%Y%m%d%H%M%S}+0000"
    accession = row["accession_number"] if alert.patient_data else ""
    # MSH-7 when, MSH-9 what, MSH-10 which, MSH-11 in production, MSH-12 the version, MSH-18 the character set
    header = f"MSH|^~\\&|{_escaped(sender)}||||{stamp}||ORU^R01^ORU_R01|{alert.key}|P|2.5.1||||||UNICODE UTF-8"
    segments = [header]
    if alert.patient_data:
        issuer = row["issuer_of_patient_id"]
        patient_id = _escaped(row["patient_id"]) + (f"^^^{_escaped(issuer)}" if issuer else "")
        segments.append(f"PID|1||{patient_id}||{_xpn(row['patient_name'])}")
    # OBR-3 the case, OBR-4 what was looked for, OBR-18 the accession number, OBR-22 when, OBR-25 preliminary
    request = [""] * 26
    request[0], request[1], request[3], request[4] = (
        "OBR",
        "1",
        alert.number,
        "WILLIS^Intracranial aneurysm detection^L",
    )
    request[18], request[22], request[25] = _escaped(accession), stamp, "P"
    segments.append("|".join(request))
    values: list[tuple[str, str, str, str]] = [("ST", "FINDING^Finding^L", finding_of(row), "")]
    if row["p_present"] is not None:
        values.append(("NM", "P^Probability of any aneurysm^L", f"{row['p_present']:.3f}", "1"))
    if row["diameter_mm"] is not None:
        values.append(("NM", "DIAMETER^Diameter of the most probable finding^L", f"{row['diameter_mm']:.1f}", "mm"))
    values.append(("ST", "NOTE^Note^L", UNVERIFIED, ""))
    for number, (kind, code, value, unit) in enumerate(values, 1):
        segments.append(f"OBX|{number}|{kind}|{code}||{_escaped(value)}|{unit}|||||P")
    return "\r".join(segments) + "\r"


def diagnostic_report_of(alert: Alert) -> dict[str, Any]:
    """The FHIR R4 DiagnosticReport of an alert about a case, its Observation contained; a subject only with patient data."""
    row, issued = _case(alert), alert.at.astimezone(UTC).isoformat(timespec="seconds")
    code = {"text": "Intracranial aneurysm detection"}
    observation: dict[str, Any] = {
        "resourceType": "Observation", "id": "probability", "status": "preliminary",
        "code": {"text": "Probability of any intracranial aneurysm"},
    }  # fmt: skip
    if row["p_present"] is None:
        observation["dataAbsentReason"] = {"text": str(row["outcome"]).replace("_", " ")}
    else:
        observation["valueQuantity"] = {"value": round(row["p_present"], 3), "unit": "1"}
    report: dict[str, Any] = {
        "resourceType": "DiagnosticReport", "contained": [observation], "status": "preliminary", "code": code,
        "identifier": [{"system": _IDENTIFIER, "value": alert.key}], "issued": issued,
        "result": [{"reference": "#probability"}], "conclusion": f"{finding_of(row)}. {UNVERIFIED}",
    }  # fmt: skip
    if alert.patient_data:
        if subject := _subject(row):
            report["subject"] = subject
        if row["accession_number"]:
            report["basedOn"] = [{"identifier": {"value": row["accession_number"]}, "type": "ServiceRequest"}]
    return report


def condition_of(alert: Alert) -> str:
    """What `If-None-Exist` asks, so that a report that is sent again is made once."""
    return f"identifier={_IDENTIFIER}|{alert.key}"


def _case(alert: Alert) -> Mapping[str, Any]:
    if alert.case is None:
        raise ValueError("that is about no case, and is no result")
    return alert.case


def _subject(row: Mapping[str, Any]) -> dict[str, Any]:
    """FHIR allows no empty text: what the images do not say is left out."""
    subject: dict[str, Any] = {}
    if row["patient_id"]:
        issuer = row["issuer_of_patient_id"]
        subject["identifier"] = {"value": row["patient_id"]} | ({"assigner": {"display": issuer}} if issuer else {})
    if name := " ".join(part for part in _components(row["patient_name"]) if part):
        subject["display"] = name
    return subject


def _components(patient_name: str) -> list[str]:
    """Family, given, middle, prefix, suffix of the first representation that is not empty (PS3.5 6.2.1)."""
    group = next((each for each in patient_name.split("=") if each.strip("^ ")), "")
    return [part.strip() for part in group.split("^")]


def _xpn(patient_name: str) -> str:
    """The name as HL7 has it, suffix before prefix (v2.5.1 2.A.88)."""
    family, given, middle, prefix, suffix = (*_components(patient_name), *[""] * 5)[:5]
    return "^".join(_escaped(part) for part in (family, given, middle, suffix, prefix)).rstrip("^")


def _escaped(text: Any) -> str:
    """The text with HL7's delimiters escaped, and without what would end a segment (v2.5.1 2.7)."""
    found = str(text).replace("\\", "\\E\\")
    for character, escape in (("|", "\\F\\"), ("^", "\\S\\"), ("&", "\\T\\"), ("~", "\\R\\")):
        found = found.replace(character, escape)
    return "".join(each if each.isprintable() else " " for each in found)
