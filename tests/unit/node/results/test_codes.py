"""Every code in our objects against the dictionaries of others: pydicom's (from PS3.16) and what highdicom adds to it."""

import ast
import inspect
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from highdicom.sr import templates
from pydicom import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from ai.findings import Findings, Lesion
from ai.lesion_mask import LesionMask
from ai.locations import LOCATIONS
from node.config.types import Region
from node.results import codes
from node.results.secondary_capture import build_summary
from node.results.segmentation import build_segmentation
from tests.support.dicom_factory import ct_series, headers_of
from tests.support.made_up_head import affine
from tests.support.reports import OUTCOMES, document, report

OURS = [code for code in vars(codes).values() if isinstance(code, Code)]
OURS += [site.anatomy for site in codes.SITES.values()]
OURS += [*codes.PROCEDURES.values(), *codes.MODALITIES.values(), *codes.BODY_PARTS.values()]

CONTEXT_GROUPS = {
    29: [codes.CT, *codes.MODALITIES.values()],  # Acquisition Modality
    100: [codes.IMAGING_PROCEDURE, *codes.PROCEDURES.values()],  # Quantitative Diagnostic Imaging Procedure
    210: [
        Code("272741003", "SCT", "Laterality"),
        Code("106233006", "SCT", "Topographical modifier"),
    ],  # Qualitative Evaluation Modifier Type
    240: [codes.PRESENT, codes.ABSENT],  # Present-Absent
    244: [codes._LEFT, codes._RIGHT],  # Laterality
    270: [codes.DEVICE],  # Observer Type
    2: [codes._PROXIMAL, codes._DISTAL],  # Anatomic Modifier
    6047: [
        codes.SUCCEEDED_WITHOUT_FINDINGS,
        codes.SUCCEEDED_WITH_FINDINGS,
        codes.NOT_ALL_WITHOUT_FINDINGS,
        codes.NOT_ALL_WITH_FINDINGS,
        codes.NONE_SUCCEEDED,
    ],  # CAD Processing and Finding Summary
    4031: [codes.HEAD, *codes.BODY_PARTS.values()],  # Common Anatomic Region
    7005: [codes.PROCESSING_EQUIPMENT],  # Contributing Equipment Purpose of Reference
    7021: [codes.REPORT_TITLE],  # Measurement Report Document Title
    7150: [codes.ABNORMAL_STRUCTURE],  # Segmentation Property Category
    7162: [codes.ARTIFICIAL_INTELLIGENCE],  # Algorithm Family
    7202: [
        codes.MONTAGE,
        Code("121322", "DCM", "Source image for image processing operation"),
    ],  # Source Image Purpose of Reference
    7203: [Code("113076", "DCM", "Segmentation")],  # Image Derivation
    7205: [codes.SAME_IN_ANOTHER_CLASS],  # Purpose of Reference to Alternate Representation
    7460: [codes.MILLIMETRE],  # Linear Measurement Unit
    7470: [codes.DIAMETER],  # Linear Measurement
}
IN_NO_DICTIONARY = {
    codes.QUALITATIVE_EVALUATIONS: "TID 1500 row 12 names it; PixelMed asks for it",
    codes.ANEURYSM: "SNOMED CT has it, but no context group of the Standard",
    codes.FINDING_CONTEXT: "the same",
    codes.CONFIRMED: "the same",
    codes.MILLIMETRE: "pydicom means it by the symbol itself; UCUM, and CID 7460 for PixelMed, by this",
}


Triple = tuple[str, str, str]


@cache
def dictionary() -> dict[Triple, set[int]]:
    """Each code that pydicom knows, with its context groups."""
    known: dict[Triple, set[int]] = {}
    by_scheme: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = concepts  # type: ignore[assignment]  # typed loosely
    for scheme, by_keyword in by_scheme.items():
        for by_value in by_keyword.values():
            for value, (meaning, groups) in by_value.items():
                known.setdefault((value, scheme, meaning), set()).update(groups)
    return known


@cache
def added_by_highdicom() -> set[Triple]:
    """Each code that highdicom's templates spell out."""
    added = set()
    for call in ast.walk(ast.parse(inspect.getsource(templates))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("CodedConcept", "Code"):
            words = {key.arg: key.value.value for key in call.keywords if isinstance(key.value, ast.Constant)}
            if {"value", "scheme_designator", "meaning"} <= words.keys():
                added.add((str(words["value"]), str(words["scheme_designator"]), str(words["meaning"])))
    return added


def triple(code: Code) -> Triple:
    """What a code sequence item holds; `Code` itself compares without the meaning."""
    return code.value, code.scheme_designator, code.meaning


@pytest.mark.parametrize("code", dict.fromkeys(OURS), ids=lambda code: code.meaning)
def test_each_code_has_the_dictionarys_meaning(code: Code) -> None:
    if code in IN_NO_DICTIONARY:
        assert triple(code) not in dictionary().keys() | added_by_highdicom(), "no exception any longer"
        return
    known = dictionary().keys() | added_by_highdicom()
    assert triple(code) in known, [other for other in known if other[:2] == triple(code)[:2]]


def test_each_value_is_of_the_context_group_that_its_template_names() -> None:
    groups: dict[tuple[str, str], set[int]] = {}
    for (value, scheme, _), its_groups in dictionary().items():
        groups.setdefault((value, scheme), set()).update(its_groups)
    wrong = [
        (number, code.meaning)
        for number, members in CONTEXT_GROUPS.items()
        for code in members
        if number not in groups[code.value, code.scheme_designator]
    ]
    assert wrong == []


def coded_in(ds: Dataset) -> Iterator[Triple]:
    """Every code sequence item, at any depth."""
    for element in ds:
        for item in element.value if element.VR == "SQ" else ():
            if "CodeMeaning" in item:
                yield item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning
            yield from coded_in(item)


def test_every_code_in_an_object_is_ours_or_has_the_dictionarys_meaning() -> None:
    headers = headers_of(ct_series(6))
    objects = [report(headers, outcome, region=region) for outcome in OUTCOMES.values() for region in Region]
    objects += [build_summary(document(headers, "summary"), outcome, None) for outcome in OUTCOMES.values()]
    mask = LesionMask(np.ones((2, 2, 2), np.bool_), affine((1.4, 1.4, 1.4), (-19.0, -29.0, 102.0)))
    every = tuple(Lesion(place, 0.5, (-19.0, -29.0, 102.0), 5.0, mask) for place in LOCATIONS)
    objects += [
        build_segmentation(document(headers, "segmentation"), Findings((0.5,) * 14, lesions, 0.5))
        for lesions in (every[::2], every[1::2])
    ]
    found = {each for ds in objects for each in coded_in(ds)}
    assert len(found) > 30
    assert found <= {triple(code) for code in OURS} | dictionary().keys() | added_by_highdicom()
