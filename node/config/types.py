"""The kinds of values that the configuration has, each checked when it is read."""

import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

_AE_TITLE = StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
AETitle = Annotated[str, _AE_TITLE]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ResultKind = Literal["sr", "sc", "seg"]


class Region(StrEnum):
    """How a report shows a finding: a circle on its key slice (read almost everywhere), a box there, or a point in the patient.

    OHIF lists boxes and points among its own measurements; circles only under names of its own.
    """

    CIRCLE_2D = "2d"
    BOX_2D = "box"
    POINT_3D = "3d"


def _checked_results(kinds: tuple[ResultKind, ...]) -> tuple[ResultKind, ...]:
    """`kinds`.  Raises ValueError when nothing would come of a negative series: silence must not look like one."""
    if kinds and set(kinds) == {"seg"}:
        raise ValueError('"seg" is made of findings only; name "sr" or "sc" beside it')
    return kinds


Results = Annotated[tuple[ResultKind, ...], AfterValidator(_checked_results)]


def _checked_pattern(pattern: str) -> str:
    """`pattern`.  Raises ValueError when it is not a regular expression: it must not fail at the first series."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_checked_pattern)]


def _checked_network(text: object) -> IPv4Network | IPv6Network:
    """The network.  Raises ValueError."""
    try:
        return ip_network(text if isinstance(text, IPv4Network | IPv6Network) else str(text))
    except ValueError as error:
        raise ValueError(f"{error}; write for example 10.1.0.0/16 or 10.1.2.3") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_checked_network)]


def _checked_timezone(name: str) -> str:
    """`name`.  Raises ValueError when it is no IANA time zone."""
    try:
        return name and ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(
            'no time zone of that name; write for example "Europe/Berlin", or "" for the machine\'s'
        ) from None


TimezoneName = Annotated[str, AfterValidator(_checked_timezone)]


def _checked_sop_class(uid: str) -> str:
    """`uid`.  Raises ValueError when it is no UID, or one of the Standard's, whose services are not for anybody to add."""
    if not re.fullmatch(r"(?=.{1,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))+", uid, re.ASCII):
        raise ValueError("not a UID; write for example 1.3.12.2.1107.5.9.1")
    if uid.startswith("1.2.840.10008."):
        raise ValueError('not private but of the Standard; [node] storage_classes = "all" accepts those that store')
    return uid


SopClass = Annotated[str, AfterValidator(_checked_sop_class)]
LINK_VALUES = ("study_instance_uid", "series_instance_uid", "accession_number", "patient_id")


def _checked_link(template: str) -> str:
    """`template`.  Raises ValueError when it is no address, or would run a script."""
    found = re.findall(r"\{(.*?)\}", template)
    if not re.match(r"(https?|weasis)://", template):
        raise ValueError("a link begins with https://, http:// or weasis://")
    if unknown := [name for name in found if name not in LINK_VALUES]:
        raise ValueError(f"{{{unknown[0]}}} is not known; known are {', '.join(LINK_VALUES)}")
    if "{" in (rest := re.sub(r"\{.*?\}", "", template)) or "}" in rest:
        raise ValueError("a brace stands alone; write {NAME} for a value, %7B and %7D for braces of the address")
    return template


LinkTemplate = Annotated[str, AfterValidator(_checked_link)]


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as hashlib writes it."""
    return text.replace(":", "").lower()


class Section(BaseModel):
    """A table of the file.  Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
