"""SR content items (PS3.3 C.17.3) as plain datasets: one function a value type."""

import unicodedata
from collections.abc import Iterable, Sequence

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code
from pydicom.valuerep import DS

CONTAINS = "CONTAINS"
MODIFIER = "HAS CONCEPT MOD"
OBSERVATION = "HAS OBS CONTEXT"
ACQUISITION = "HAS ACQ CONTEXT"
PROPERTIES = "HAS PROPERTIES"
INFERRED = "INFERRED FROM"
SELECTED = "SELECTED FROM"


def coded(value: Code) -> Dataset:
    """A code sequence item."""
    ds = Dataset()
    ds.CodeValue = value.value
    ds.CodingSchemeDesignator = value.scheme_designator
    ds.CodeMeaning = value.meaning
    return ds


def container(relationship: str, name: Code, children: Iterable[Dataset], template: str = "") -> Dataset:
    ds = _item("CONTAINER", relationship, name, children)
    ds.ContinuityOfContent = "SEPARATE"
    if template:
        identification = Dataset()
        identification.MappingResource = "DCMR"
        identification.TemplateIdentifier = template
        ds.ContentTemplateSequence = Items([identification])
    return ds


def code_item(relationship: str, name: Code, value: Code, children: Iterable[Dataset] = ()) -> Dataset:
    ds = _item("CODE", relationship, name, children)
    ds.ConceptCodeSequence = Items([coded(value)])
    return ds


def text_item(relationship: str, name: Code, value: str) -> Dataset:
    """TEXT in printable ASCII, the part that all of DICOM's character sets share; what has no likeness becomes "?".

    The backslash and the tilde are replaced too: ISO_IR 13 has other characters in their place.
    """
    ds = _item("TEXT", relationship, name)
    ds.TextValue = plain_ascii(value)
    return ds


_LIKENESS = str.maketrans(
    {
        "°": " degrees",
        "×": "x",
        "–": "-",
        "—": "-",
        "−": "-",
        "≥": ">=",
        "≤": "<=",
        "≈": "about ",
        "±": "+/-",
        "\\": "/",
        "~": "-",
    }
)


def plain_ascii(value: str) -> str:
    """`value` with its nearest ASCII: a report is never lost over a degree sign."""
    likened = unicodedata.normalize("NFKD", value.translate(_LIKENESS))
    without_accents = "".join(c for c in likened if not unicodedata.combining(c))
    return "".join(c if " " <= c < "\x7f" or c in "\r\n" else "?" for c in without_accents)


def uid_item(relationship: str, name: Code, value: str) -> Dataset:
    ds = _item("UIDREF", relationship, name)
    ds.UID = value
    return ds


def number_item(
    relationship: str, name: Code, value: float, unit: Code, children: Iterable[Dataset] = (), decimals: int = 1
) -> Dataset:
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = Items([coded(unit)])
    measured.NumericValue = DS(f"{value:.{decimals}f}")
    ds = _item("NUM", relationship, name, children)
    ds.MeasuredValueSequence = Items([measured])
    return ds


def image_item(relationship: str, name: Code, reference: Dataset, children: Iterable[Dataset] = ()) -> Dataset:
    ds = _item("IMAGE", relationship, name, children)
    ds.ReferencedSOPSequence = Items([reference])
    return ds


def circle_item(
    relationship: str, name: Code, centre: tuple[float, float], on_edge: tuple[float, float], image: Dataset
) -> Dataset:
    """SCOORD CIRCLE; points are (column, row), 0\\0 being the outer corner of the first pixel (PS3.3 C.18.6.1.2)."""
    ds = _item("SCOORD", relationship, name, [image])
    ds.GraphicData = [*centre, *on_edge]
    ds.GraphicType = "CIRCLE"
    return ds


def box_item(
    relationship: str, name: Code, low: tuple[float, float], high: tuple[float, float], image: Dataset
) -> Dataset:
    """SCOORD POLYLINE, closed, along the sides of a rectangle; points as of `circle_item`."""
    ds = _item("SCOORD", relationship, name, [image])
    (left, top), (right, bottom) = low, high
    ds.GraphicData = [left, top, right, top, right, bottom, left, bottom, left, top]
    ds.GraphicType = "POLYLINE"
    return ds


def point_3d_item(
    relationship: str, name: Code, point_lps_mm: tuple[float, float, float], frame_of_reference_uid: str
) -> Dataset:
    ds = _item("SCOORD3D", relationship, name)
    ds.GraphicData = list(point_lps_mm)
    ds.GraphicType = "POINT"
    ds.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    return ds


def instance_reference(sop_class_uid: str, sop_instance_uid: str, frame_number: int | None = None) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID = sop_class_uid
    ds.ReferencedSOPInstanceUID = sop_instance_uid
    if frame_number is not None:
        ds.ReferencedFrameNumber = frame_number
    return ds


def with_purpose(reference: Dataset, purpose: Code) -> Dataset:
    """The reference, which now says what it is for."""
    reference.PurposeOfReferenceCodeSequence = Items([coded(purpose)])
    return reference


def hierarchical_references(instances: Sequence[tuple[str, str, str, str]]) -> Items:
    """Study and series items for (study, series, class, instance) UIDs, sorted and each named once (PS3.3 C.17.2.1)."""
    studies: dict[str, dict[str, set[tuple[str, str]]]] = {}
    for study, series, sop_class, sop_instance in instances:
        studies.setdefault(study, {}).setdefault(series, set()).add((sop_instance, sop_class))
    items = []
    for study, its_series in sorted(studies.items()):
        series_items = []
        for series, members in sorted(its_series.items()):
            series_item = Dataset()
            series_item.SeriesInstanceUID = series
            series_item.ReferencedSOPSequence = Items([instance_reference(c, i) for i, c in sorted(members)])
            series_items.append(series_item)
        study_item = Dataset()
        study_item.StudyInstanceUID = study
        study_item.ReferencedSeriesSequence = Items(series_items)
        items.append(study_item)
    return Items(items)


def _item(value_type: str, relationship: str, name: Code, children: Iterable[Dataset] = ()) -> Dataset:
    ds = Dataset()
    if relationship:
        ds.RelationshipType = relationship
    ds.ValueType = value_type
    ds.ConceptNameCodeSequence = Items([coded(name)])
    below = list(children)
    if below:
        ds.ContentSequence = Items(below)
    return ds
