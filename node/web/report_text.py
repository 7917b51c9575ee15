"""A Structured Report as lines to read: its content tree, each with its name and value."""

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ai.frames import GARBLED

_DEEPEST = 12
_UNREADABLE = (*GARBLED, InvalidDicomError, AttributeError, IndexError, KeyError)


@dataclass(frozen=True)
class Line:
    """One content item.  `depth`: how far it is below the root."""

    depth: int
    name: str
    value: str


def report_lines(path: Path) -> list[Line]:
    """The report in that file, line by line; none when it is gone or cannot be read."""
    try:
        return list(_lines(dcmread(path), 0))
    except _UNREADABLE:
        return []


def _lines(item: Dataset, depth: int) -> list[Line]:
    found = []
    for child in item.get("ContentSequence", []):
        name = _meaning(child, "ConceptNameCodeSequence")
        value = _value(child)
        if (name or value) and child.ValueType not in ("IMAGE", "SCOORD", "SCOORD3D", "UIDREF"):
            found.append(Line(depth, name, value))
        if depth < _DEEPEST:
            found += _lines(child, depth + 1)
    return found


def _value(item: Dataset) -> str:
    match item.get("ValueType", ""):
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "NUM":
            return _number(item)
        case "TEXT":
            return str(item.get("TextValue", ""))
        case "PNAME":
            return str(item.get("PersonName", ""))
        case "DATETIME" | "DATE" | "TIME" as kind:
            return str(item.get({"DATETIME": "DateTime", "DATE": "Date", "TIME": "Time"}[kind], ""))
        case _:
            return ""


def _number(item: Dataset) -> str:
    for measured in item.get("MeasuredValueSequence", []):
        unit = _meaning(measured, "MeasurementUnitsCodeSequence")
        code = measured.MeasurementUnitsCodeSequence[0].get("CodeValue", "")
        return f"{measured.NumericValue} {unit if code == '1' else code}".removesuffix(" no units")
    return ""


def _meaning(item: Dataset, keyword: str) -> str:
    sequence = item.get(keyword) or []
    return str(sequence[0].get("CodeMeaning", "")) if sequence else ""
