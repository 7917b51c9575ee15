"""Reports made from synthetic headers, and ways to look into them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from ai.errors import Reason
from ai.findings import Findings, Lesion
from ai.frames import encodings_of
from ai.locations import LOCATIONS, Location
from node.results.document import Algorithm, Document, NotAnalysed, Outcome, encode
from node.results.identity import derive_uid
from node.results.sr import build_report
from tests.support.dicom_factory import ct_series, headers_of

ALGORITHM = Algorithm("Willis aneurysm detection", "0.1.0+weights.1a2b", "0.1.0", derive_uid("device", "test"))
CREATED = datetime(2026, 11, 23, 9, 30, 15, 250_000, tzinfo=UTC)
NEGATIVE = Findings((0.02,) * 14, (), 0.5)


def positive(*lesions: Lesion) -> Findings:
    probabilities = [0.011] * 14
    for lesion in lesions:
        probabilities[LOCATIONS.index(lesion.location)] = lesion.probability
    probabilities[-1] = 0.957
    return Findings(tuple(probabilities), lesions, 0.5)


RIGHT_MCA = Lesion(Location.RIGHT_MCA, 0.931, (-18.4, -28.5, 103.2), 4.26)
BASILAR = Lesion(Location.BASILAR_TIP, 0.62, (-19.2, -29.0, 101.0), 7.0)
POSITIVE = positive(RIGHT_MCA, BASILAR)
NOT_ANALYSED = NotAnalysed(Reason.GAP, "about 3 slices missing above z = -41.50 mm")
OUTCOMES: dict[str, Outcome] = {"positive": POSITIVE, "negative": NEGATIVE, "not analysed": NOT_ANALYSED}
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())


def report(headers: Sequence[Dataset] | None = None, outcome: Outcome = POSITIVE, **changes: Any) -> Dataset:
    """The report as whoever reads the file sees it."""
    return dcmread(BytesIO(encoded(headers, outcome, **changes)))


def encoded(headers: Sequence[Dataset] | None = None, outcome: Outcome = POSITIVE, **changes: Any) -> bytes:
    """`changes`: to the document, or how the report is made of it."""
    sources = headers_of(ct_series(6)) if headers is None else headers
    options = {name: changes.pop(name) for name in ("predecessors", "region", "unanalysed") if name in changes}
    return encode(build_report(document(sources, **changes), outcome, **options))


def document(headers: Sequence[Dataset], kind: str = "report", **changes: Any) -> Document:
    """An object of that kind about the images, which belongs to the report with `report_uid`."""
    report_uid = changes.pop("report_uid", derive_uid("report", "series", 1))
    arguments: dict[str, Any] = {
        "sop_instance_uid": report_uid if kind == "report" else derive_uid(kind, "series", 1),
        "series_instance_uid": derive_uid(f"{kind} series", "study" if kind == "report" else "series"),
        "series_number": {"report": 9001, "summary": 9902, "segmentation": 9903}[kind],
        "created": CREATED,
        "algorithm": ALGORITHM,
    }
    return Document(headers, report_uid=report_uid, **arguments | changes)


def received(header: Dataset, character_set: bytes = b"ISO_IR 100", **raw: bytes) -> Dataset:
    """The header as it comes off the wire: undecoded, with these exact bytes for some attributes."""
    ds = headers_of([header])[0]
    for keyword, value in {"SpecificCharacterSet": character_set, **raw}.items():
        tag, value = Tag(keyword), value + b" " * (len(value) % 2)
        ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    if not character_set:
        del ds.SpecificCharacterSet
    ds.set_original_encoding(False, True, encodings_of(ds))
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds)
    return dcmread(BytesIO(buffer.getvalue()), force=True)


def items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence") or []:
        yield item
        yield from items(item)


def named(ds: Dataset, code_value: str) -> list[Dataset]:
    return [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == code_value]


def answers(ds: Dataset, code_value: str) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeValue for item in named(ds, code_value)]


def comments(ds: Dataset) -> list[str]:
    return [item.TextValue for item in named(ds, "121106")]


def evidence(ds: Dataset) -> set[str]:
    return {
        instance.ReferencedSOPInstanceUID
        for study in ds.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
