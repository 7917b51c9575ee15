"""A query's Identifier becomes conditions, and what was found becomes Identifiers (PS3.4 C.2.2, C.4.1, C.6.2): pure.

Hierarchical search on the Study Root.  What is not in `KEYS` is neither matched nor returned (PS3.4 C.2.2.1.3).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pydicom import DataElement, Dataset
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

from ai.wording import unpadded
from node.dicom.status import DOES_NOT_MATCH_CLASS, PENDING, PENDING_WITHOUT_SOME_KEYS, UNABLE_TO_PROCESS
from storage.conditions import MODALITIES_IN_STUDY, Between, Condition, Found, Level, Like
from storage.records import name_key

PRIVATE_GROUP, PRIVATE_CREATOR = 0x0099, "WILLIS"
_NO_KEYS = {"SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "TimezoneOffsetFromUTC"}  # fmt: skip
_DATE = re.compile(r"\d{8}\Z", re.ASCII)
_TIME = re.compile(r"(\d{2}|\d{4}|\d{6}(\.\d{1,6})?)\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?0*\d{1,9}\Z", re.ASCII)
_TRAILING_ZEROS = re.compile(r"(?<=\d\d)(00)*(\.0+)?\Z", re.ASCII)
"""Without them "1015" sorts as early as any form of that time."""
_LAST_MOMENT = "235959.999999"


class BadQuery(ValueError):
    """The query cannot be answered.  `status`: of the C-FIND; the message, at most 64 characters, holds no value."""

    def __init__(self, status: int, comment: str, tag: BaseTag | None = None) -> None:
        super().__init__(comment[:64])
        self.status, self.tag = status, tag


class Key(NamedTuple):
    """An attribute that may be asked for: at which levels, from which column, and whether it can be matched."""

    levels: frozenset[Level]
    column: str
    vr: str
    is_matched: bool = True
    show: Callable[[Any], Any] = lambda value: value


_ALL = frozenset(Level)
_BELOW_STUDY = frozenset((Level.SERIES, Level.IMAGE))
_STUDY, _IMAGE = frozenset((Level.STUDY,)), frozenset((Level.IMAGE,))


def _upper(value: str | None) -> str:
    return (value or "").upper()


def _moment(value: datetime | None) -> str:
    return value.strftime("%Y%m%d%H%M%S+0000") if value else ""


def _key(levels: frozenset[Level], keyword: str, column: str, is_matched: bool = True) -> tuple[BaseTag, Key]:
    number = tag_for_keyword(keyword)
    assert number is not None
    return Tag(number), Key(levels, column, dictionary_VR(number), is_matched)


KEYS: Mapping[BaseTag, Key] = dict((
    _key(_ALL, "PatientName", "patient_name"),
    _key(_ALL, "PatientID", "patient_id"),
    _key(_ALL, "IssuerOfPatientID", "issuer_of_patient_id"),
    _key(_ALL, "StudyInstanceUID", "study_instance_uid"),
    _key(_ALL, "StudyDate", "study_date"),
    _key(_ALL, "StudyTime", "study_time"),
    _key(_ALL, "StudyID", "study_id"),
    _key(_ALL, "AccessionNumber", "accession_number"),
    _key(_STUDY, "ModalitiesInStudy", MODALITIES_IN_STUDY),
    _key(_STUDY, "NumberOfStudyRelatedSeries", "series_count", False),
    _key(_STUDY, "NumberOfStudyRelatedInstances", "study_instance_count", False),
    _key(_BELOW_STUDY, "SeriesInstanceUID", "series_instance_uid"),
    _key(_BELOW_STUDY, "Modality", "modality"),
    _key(_BELOW_STUDY, "SeriesNumber", "series_number"),
    _key(_BELOW_STUDY, "SeriesDescription", "series_description"),
    _key(_BELOW_STUDY, "NumberOfSeriesRelatedInstances", "instance_count", False),
    _key(_IMAGE, "SOPInstanceUID", "sop_instance_uid"),
    _key(_IMAGE, "SOPClassUID", "sop_class_uid"),
    _key(_IMAGE, "InstanceNumber", "instance_number"),
    _key(_IMAGE, "NumberOfFrames", "number_of_frames", False),
))  # fmt: skip
PRIVATE_KEYS: Mapping[int, Key] = {
    0x01: Key(_ALL, "outcome", "CS", show=_upper),
    0x02: Key(_ALL, "p_present", "DS", False, lambda p: "" if p is None else f"{p:.4f}"),
    0x03: Key(_ALL, "stage", "CS", show=_upper),
    0x04: Key(_ALL, "revision", "IS", False),
    0x05: Key(_ALL, "reported_at", "DT", False, _moment),
    0x06: Key(_ALL, "reason", "LO", False),
    0x07: Key(_ALL, "priority", "IS"),
    0x08: Key(_ALL, "report_uid", "UI", False),
    0x09: Key(_ALL, "limits", "LT", False),
}
"""By the last byte of the element number.  Documented in docs/conformance.md; only ever added to."""
_UNIQUE = {Level.SERIES: ("StudyInstanceUID",), Level.IMAGE: ("StudyInstanceUID", "SeriesInstanceUID")}


@dataclass(frozen=True)
class Query:
    """What is asked, and how it is to be answered.  `returned`: the keys, by the tags under which they were asked."""

    level: Level
    conditions: Mapping[str, Condition]
    returned: Mapping[BaseTag, Key]
    is_all_supported: bool
    character_set: str

    @property
    def pending_status(self) -> int:
        """0xFF01 when there was a key that is not supported, or not for matching (PS3.4 C.4.1.1.4)."""
        return PENDING if self.is_all_supported else PENDING_WITHOUT_SOME_KEYS


def read_query(identifier: Dataset) -> Query:
    """The query that the Identifier of a C-FIND request states.  Raises BadQuery."""
    level = _level(identifier)
    for keyword in _UNIQUE.get(level, ()):
        text = _text(identifier, Tag(keyword))
        if not text or set(text) & set("\\*?"):
            raise BadQuery(DOES_NOT_MATCH_CLASS, f"{keyword} must be one UID at {level} level", Tag(keyword))
    conditions: dict[str, Condition] = {}
    returned: dict[BaseTag, Key] = {}
    is_all_supported = True
    for tag in identifier.keys():  # noqa: SIM118  the elements themselves would be decoded
        if tag.is_private_creator or tag.element == 0 or keyword_for_tag(tag) in _NO_KEYS:
            continue
        key = _known(identifier, tag)
        if key is None or level not in key.levels:
            is_all_supported = False
            continue
        returned[tag] = key
        condition = _condition(key.vr, _text(identifier, tag), tag) if key.is_matched else ()
        if condition:
            conditions["name_key" if key.vr == "PN" else key.column] = condition
        elif not key.is_matched and _text(identifier, tag):
            is_all_supported = False
    return Query(level, conditions, returned, is_all_supported, _text(identifier, Tag("SpecificCharacterSet")))


def identifier_of(query: Query, found: Found) -> Dataset:
    """The Identifier of a pending response: what was asked for, and that nothing can be retrieved from here."""
    ds = Dataset()
    ds.QueryRetrieveLevel = query.level.value
    ds.RetrieveAETitle, ds.InstanceAvailability = "", "UNAVAILABLE"
    texts = []
    for tag, key in query.returned.items():
        value = key.show(found[key.column])
        value = "" if value is None else list(value) if isinstance(value, tuple) else value
        texts.append(str(value))
        ds.add(DataElement(tag, key.vr, value))
        if tag.is_private:
            ds.add(DataElement(_creator_of(tag), "LO", PRIVATE_CREATOR))
    if character_set := _character_set(query.character_set, "".join(texts)):
        ds.SpecificCharacterSet = character_set
    return ds


_WRITTEN_OTHERWISE = ("ISO_IR 6", "ISO_IR 13")
"""Of ISO_IR 6 pydicom says Latin-1, and it is ASCII; of ISO_IR 13 Shift JIS, but writes "?" for what is not ASCII."""


def _character_set(asked_in: str, text: str) -> str:
    """ "" for ASCII, the query's own if it is a single one that has the characters, else Unicode."""
    if text.isascii():
        return ""
    codec = python_encoding.get(asked_in, "")
    if asked_in and codec and asked_in not in _WRITTEN_OTHERWISE and not asked_in.startswith("ISO 2022"):
        try:
            text.encode(codec)
        except (UnicodeEncodeError, LookupError):
            return "ISO_IR 192"
        return asked_in
    return "ISO_IR 192"


def _level(identifier: Dataset) -> Level:
    tag = Tag("QueryRetrieveLevel")
    try:
        return Level(_text(identifier, tag))
    except ValueError:
        raise BadQuery(DOES_NOT_MATCH_CLASS, "QueryRetrieveLevel must be STUDY, SERIES or IMAGE", tag) from None


def _creator_of(tag: BaseTag) -> BaseTag:
    """Where the block of a private element is reserved (PS3.5 7.8.1)."""
    return Tag(tag.group, tag.element >> 8)


def _known(identifier: Dataset, tag: BaseTag) -> Key | None:
    if not tag.is_private:
        return KEYS.get(tag)
    if tag.group != PRIVATE_GROUP or _text(identifier, _creator_of(tag)) != PRIVATE_CREATOR:
        return None
    return PRIVATE_KEYS.get(tag.element & 0xFF)


def _text(identifier: Dataset, tag: BaseTag) -> str:
    """The element's value as text, several joined by backslashes; "" where there is none.  Raises BadQuery."""
    if tag not in identifier:
        return ""
    try:
        raw = identifier.get_item(tag)
        if isinstance(raw, RawDataElement) and not _has_character_set(tag):
            text = (raw.value or b"").decode("ascii")
        else:
            value = identifier[tag].value
            values = value if isinstance(value, MultiValue) else [value]
            text = "\\".join("" if each is None else unpadded(str(each)) for each in values)
        return unpadded(text.replace("\0", ""))
    except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
        raise BadQuery(UNABLE_TO_PROCESS, f"{keyword_for_tag(tag) or tag} cannot be read", tag) from None


def _has_character_set(tag: BaseTag) -> bool:
    return not tag.is_private and dictionary_VR(tag) in CUSTOMIZABLE_CHARSET_VR


def _condition(vr: str, text: str, tag: BaseTag) -> Condition:
    """What to match (PS3.4 C.2.2.2): single value, list, wildcards or range; nothing is universal.  Raises BadQuery."""
    if not text.strip("*\\"):
        return ()
    if vr in ("DA", "TM"):
        return [_between(vr, text, tag)]
    if tag.is_private:
        text = text.lower()
    values = list(filter(None, map(unpadded, text.split("\\"))))
    if vr == "UI":
        return values
    if vr == "IS":
        if not all(map(_NUMBER.match, values)):
            raise BadQuery(UNABLE_TO_PROCESS, f"{keyword_for_tag(tag) or tag} must be a number", tag)
        return [int(each) for each in values]
    if vr == "PN":
        values = [key for each in values if (key := name_key(each))]
    return [Like(each) if set(each) & set("*?") else each for each in values]


def _between(vr: str, text: str, tag: BaseTag) -> Between:
    """A date or time, or a range of them; a time without seconds stands for the whole minute."""
    low, dash, high = (part.strip() for part in text.partition("-"))
    high = high if dash else low
    form = _DATE if vr == "DA" else _TIME
    if not (low or high) or not all(form.match(end) for end in (low, high) if end):
        what = "date" if vr == "DA" else "time"
        raise BadQuery(UNABLE_TO_PROCESS, f"{keyword_for_tag(tag)} must be a {what} or a range of two", tag)
    if vr == "DA":
        return Between(low, high)
    return Between(_TRAILING_ZEROS.sub("", low), high + _LAST_MOMENT[len(high) :] if high else "")
