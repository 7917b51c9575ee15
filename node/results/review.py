"""A report and what a person decided on each of its findings become another report, which that person has verified.

The same Comprehensive 3D SR (TID 1500) in the same series, with a higher Instance Number, and the report that it replaces
as its predecessor (docs/decisions/0013-reviews-in-the-pacs.md).  An accepted finding keeps its measurement group; of a rejected
one nothing is left that a program could take for a finding: a code (which has its Observation UID) and a sentence say that
it was rejected, and the sentence why.
Nothing says "absent": a person who rejects findings has not said that there are no others.  What the algorithm found in other
acquisitions of the series was shown to nobody, and is "not assessed".
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from ai.wording import counted
from node.results import codes as code
from node.results.document import DISCLAIMER, NUMBERS_OF_A_REVISION, in_timezone_of, reference
from node.results.identity import derive_uid
from node.results.other_acquisitions import without_answers
from node.results.plain_ascii import plain_ascii

ASSESSED = "Result of a research system, assessed by a person; not a medical device."
_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
_OF_THE_ALGORITHM = ("Suspected ", "Aneurysm ", "Diameters ", DISCLAIMER)
"""How those comments of a report begin that speak of its findings, beside its table of many lines."""


@dataclass(frozen=True)
class Decision:
    """What was decided on a finding.  `reason`: in words, why it was rejected; "" accepts it.  `by`: another than who verifies."""

    reason: str = ""
    by: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it is a finding still."""
        return not self.reason


@dataclass(frozen=True)
class Reviewed:
    """Who verified what.  `person_name` as DICOM writes it, `at` timezone-aware; a decision for each finding of the report.

    `predecessor_uid`: what this one replaces, in the report's series: the report itself, or an earlier review of it.
    `number`: how many reviews of this revision there are with it.  `limits`: what limited the analysis, in words.
    `kind`: of the object; a report that marks its findings in two ways has two reviews.
    """

    decisions: Sequence[Decision]
    person_name: str
    organization: str
    at: datetime
    predecessor_uid: str
    number: int
    limits: str = ""
    kind: str = "review"

    @property
    def uid(self) -> str:
        """The same for the same review after the same predecessor."""
        decided = [f"{each.reason}/{each.by}" for each in self.decisions]
        return derive_uid(self.kind, self.predecessor_uid, self.person_name, self.at.isoformat(), *decided)


def build_review(report: Dataset, reviewed: Reviewed, created: datetime) -> Dataset:
    """The verified report.  `report`: the one that was reviewed, as it was sent.

    Raises ValueError when it has another number of findings than there are decisions.
    """
    ds = copy.deepcopy(report)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(reviewed.uid)
    ds.InstanceNumber = int(report.InstanceNumber) + min(reviewed.number, NUMBERS_OF_A_REVISION - 1)
    at = in_timezone_of(ds, created)
    ds.ContentDate = ds.InstanceCreationDate = at.strftime("%Y%m%d")
    ds.ContentTime = ds.InstanceCreationTime = at.strftime("%H%M%S.%f")
    ds.PredecessorDocumentsSequence = Items([_reference_within_series(report, reviewed.predecessor_uid)])
    ds.VerificationFlag, ds.PreliminaryFlag = "VERIFIED", "FINAL"
    ds.CompletionFlag = "COMPLETE"  # of what the person says; what was not analysed is said in words
    ds.pop("CompletionFlagDescription", None)
    ds.VerifyingObserverSequence = Items([_verifying(reviewed, in_timezone_of(ds, reviewed.at))])
    _change_content(ds, reviewed)
    return ds


def _verifying(reviewed: Reviewed, at: datetime) -> Dataset:
    """Who takes responsibility for the content (PS3.3 C.17.2)."""
    observer = Dataset()
    observer.VerifyingObserverName = plain_ascii(reviewed.person_name)
    observer.VerifyingOrganization = plain_ascii(reviewed.organization)
    observer.VerificationDateTime = at.strftime("%Y%m%d%H%M%S.%f%z")
    observer.VerifyingObserverIdentificationCodeSequence = Items()
    return observer


def _reference_within_series(report: Dataset, sop_instance_uid: str) -> Dataset:
    series, study = Dataset(), Dataset()
    series.ReferencedSOPSequence = Items([reference(report.SOPClassUID, sop_instance_uid)])
    series.SeriesInstanceUID = report.SeriesInstanceUID
    study.ReferencedSeriesSequence = Items([series])
    study.StudyInstanceUID = report.StudyInstanceUID
    return study


def _change_content(ds: Dataset, reviewed: Reviewed) -> None:
    items = {_name_of(item): item for item in ds.ContentSequence}
    measurements = items.get(code.IMAGING_MEASUREMENTS.value, Dataset())
    groups = list(measurements.get("ContentSequence", []))
    if not groups or len(groups) != len(reviewed.decisions):
        raise ValueError(
            f"{counted(len(reviewed.decisions), 'decision')} on a report of {counted(len(groups), 'finding')}"
        )
    pairs = list(zip(groups, reviewed.decisions, strict=True))
    evaluations = items[code.QUALITATIVE_EVALUATIONS.value]
    evaluations.ContentSequence = Items(_evaluations(evaluations.ContentSequence, pairs, reviewed))
    kept = [group for group, decision in pairs if decision.accepted]
    measurements.ContentSequence = Items(kept)
    content = []
    for item in ds.ContentSequence:
        if _name_of(item) == code.PROCEDURE_REPORTED.value:
            content += _person(reviewed)
        if item is not measurements or kept:
            content.append(item)
    ds.ContentSequence = Items(content)


def _person(reviewed: Reviewed) -> list[Any]:
    """TID 1003, beside the device that made the measurements."""
    name = hd.sr.PersonObserverIdentifyingAttributes(name=plain_ascii(reviewed.person_name))
    return list(hd.sr.ObserverContext(code.PERSON, name))


def _evaluations(
    before: Sequence[Dataset], pairs: Sequence[tuple[Dataset, Decision]], reviewed: Reviewed
) -> list[Dataset]:
    """What the person says of each finding, in codes and then in words; what the algorithm had said of the images stays."""
    accepted = sum(decision.accepted for _, decision in pairs)
    coded: list[Dataset] = [hd.sr.CodeContentItem(code.ANEURYSM, code.PRESENT, _CONTAINS)] if accepted else []
    name = plain_ascii(reviewed.person_name)
    texts = [f"Assessed by {name}: {accepted} of {counted(len(pairs), 'finding')} accepted."]
    for group, decision in pairs:
        identifier = str(_value(group, code.TRACKING_IDENTIFIER.value, "TextValue"))
        by = f", by {plain_ascii(decision.by)}" if decision.by else ""
        value = code.CONFIRMED if decision.accepted else code.REJECTED
        item = hd.sr.CodeContentItem(code.FINDING_CONTEXT, value, _CONTAINS)
        item.ObservationUID = group.ObservationUID  # by which a program knows which finding it is
        coded.append(item)
        word, why = ("Accepted", "") if decision.accepted else ("REJECTED", f": {decision.reason.lower()}")
        texts.append(f"{word}: {identifier}{why}{by}.")
    if accepted < len(pairs):
        texts.append("That a finding was rejected does not say that there is no other.")
    if reviewed.limits:
        texts.append(f"The analysis was limited: {reviewed.limits}.")
    texts += map(without_answers, filter(_is_of_images, (str(item.get("TextValue", "")) for item in before)))
    return [*coded, *map(_comment, [*texts, ASSESSED])]


def _is_of_images(text: str) -> bool:
    """Whether this is a comment that speaks of images and their analysis, and of no finding of the report."""
    return bool(text) and not text.startswith(_OF_THE_ALGORITHM) and "\n" not in text


def _comment(text: str) -> Any:
    return hd.sr.TextContentItem(code.COMMENT, plain_ascii(text), _CONTAINS)


def _name_of(item: Dataset) -> str:
    [name] = item.ConceptNameCodeSequence
    return str(name.CodeValue)


def _value(group: Dataset, name: str, keyword: str) -> Any:
    return next(item.get(keyword, "") for item in group.ContentSequence if _name_of(item) == name)
