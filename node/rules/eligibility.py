"""Is this a series we analyse?  Pure rules on headers; what only pixels can tell the analysis finds out."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from ai.errors import Reason
from ai.wording import counted, unpadded
from node.config.sections import Eligibility
from node.dicom.conformance import CT_CLASSES
from node.rules.acquisitions import Acquisition, shows_all_of, spacing_mm, split, thickness_mm
from node.rules.health import CLOCKS_DIFFER
from node.rules.ineligible import Ineligible
from storage.records import Header, Series
from storage.stages import Outcome, Stage

_SECONDARY_CAPTURE = {
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
}


@dataclass(frozen=True)
class NotEligible:
    """The series is not analysed; `detail` holds numbers and units."""

    reason: Ineligible
    detail: str = ""


def ineligibility(headers: Sequence[Header], rules: Eligibility, lacking: int = 0) -> NotEligible | None:
    """None when the series is one that we analyse: one of its acquisitions may be.

    `lacking`: how many instances the sender says it has besides, so that a part of a series is not taken for a short
    one.
    """
    left = ct_slices(headers, rules)
    if not left and not (lacking >= rules.minimum_slices and holds_ct(headers)):
        found = strays(headers, rules)
        return NotEligible(
            max(Ineligible, key=lambda why: found.get(why, 0))
        )  # of two as frequent, the first of the list
    if too_few := _too_few(left, rules, lacking):
        return too_few
    acquisitions = [_too_coarse([left[index] for index in part], rules) for part in split(left)]
    return acquisitions[0] if acquisitions and all(acquisitions) else None


def ineligibility_of_one(headers: Sequence[Header], rules: Eligibility) -> NotEligible | None:
    """As `ineligibility`, of one acquisition of several in a series."""
    if not ct_slices(headers, rules):  # of frames of one instance some may be of another kind than the instance
        found = strays(headers, rules)
        return NotEligible(max(Ineligible, key=lambda why: found.get(why, 0)))
    return _too_few(headers, rules) or _too_coarse(headers, rules)


def _too_few(headers: Sequence[Header], rules: Eligibility, lacking: int = 0) -> NotEligible | None:
    slices = sum(header.number_of_frames for header in headers)
    if slices + max(0, lacking) >= rules.minimum_slices:
        return None
    return NotEligible(Ineligible.TOO_FEW_SLICES, f"{counted(slices, 'slice')}, at least {rules.minimum_slices} wanted")


def _too_coarse(headers: Sequence[Header], rules: Eligibility) -> NotEligible | None:
    """Slices that overlap are as coarse as they are thick: twice the widest spacing is an overlap of a half."""
    apart_mm, wanted_mm = spacing_mm(headers) or 0.0, rules.maximum_spacing_mm
    if apart_mm > wanted_mm + _ROUNDING_MM:
        detail = f"{apart_mm:.2f} mm apart, at most {wanted_mm:g} mm wanted"
        return NotEligible(Ineligible.SLICES_TOO_FAR_APART, detail)
    thick_mm = thickness_mm(headers) or 0.0
    if thick_mm > 2.0 * wanted_mm + _ROUNDING_MM:
        return NotEligible(
            Ineligible.SLICES_TOO_THICK, f"{thick_mm:.2f} mm thick, at most {2.0 * wanted_mm:g} mm wanted"
        )
    return None


_ROUNDING_MM = 0.005


def holds_ct(headers: Sequence[Header]) -> bool:
    """Whether any instance is of a class that slices are of; a series of other objects has none to come."""
    return any(header.sop_class_uid in CT_CLASSES for header in headers)


def ct_slices(headers: Sequence[Header], rules: Eligibility) -> list[Header]:
    """The instances that are original CT slices, whatever else came in their series and in whatever order."""
    return [header for header in headers if _stray(header, rules) is None]


def strays(headers: Sequence[Header], rules: Eligibility) -> dict[Ineligible, int]:
    """How many instances are set aside, by what they are."""
    return dict(Counter(why for header in headers if (why := _stray(header, rules)) is not None))


def _stray(header: Header, rules: Eligibility) -> Ineligible | None:
    """Why this instance is no original CT slice; None when it may be one."""
    if not header.has_pixels:
        return Ineligible.NO_IMAGE
    if header.sop_class_uid in _SECONDARY_CAPTURE:
        return Ineligible.SECONDARY_CAPTURE
    if unpadded(header.modality).upper() != "CT" or header.sop_class_uid not in CT_CLASSES:
        return Ineligible.NOT_CT
    if "LOCALIZER" in map(_folded, header.image_type):
        return Ineligible.LOCALIZER
    return Ineligible.REFORMAT if _is_reformat(header, rules) else None


def _is_reformat(header: Header, rules: Eligibility) -> bool:
    """An excluded value is one of Image Type's, or the last word of one ("CT_SOM5 MIP")."""
    excluded = {_folded(value) for value in rules.excluded_image_types}
    values = [_folded(value) for value in header.image_type]
    if any(value in excluded or value.rpartition(" ")[2] in excluded for value in values):
        return True
    said = header.series_description
    described = [_THIN_FOR.sub("", text) for text in (said, said.replace("_", " "))]
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in rules.excluded_descriptions for text in described)


_THIN_FOR = re.compile(
    r"\bfor[\s_]+(mpr|mip|vrt?)\w*|(?<![a-z])(mpr|mip|vrt?)s?[\s_]+(source|src|basis)\b", re.IGNORECASE
)
"""Thin slices from which others are to be made are the originals."""


def _folded(value: str) -> str:
    return unpadded(re.sub(r"[\s_]+", " ", value)).upper()


def is_sharp(headers: Sequence[Header], rules: Eligibility) -> bool:
    """Whether the slices were reconstructed with a bone or lung kernel: one of the values of each one's kernel is."""
    return bool(headers) and all(_has_sharp_kernel(header.convolution_kernel, rules) for header in headers)


def _has_sharp_kernel(kernel: str, rules: Eligibility) -> bool:
    return any(
        re.search(pattern, unpadded(value), re.IGNORECASE)
        for value in kernel.split("\\")
        for pattern in rules.sharp_kernels
    )


@dataclass(frozen=True)
class Covered:
    """Another reconstruction of the acquisition is analysed instead of this one."""

    by_case: int


class Turn(StrEnum):
    """What an eligible series does beside the other reconstructions of its acquisition."""

    GO = "go"
    WAIT = "wait"


@dataclass(frozen=True)
class Sibling:
    """Another series of the same acquisition."""

    series: Series
    sharp: bool
    acquisition: Acquisition = field(default_factory=Acquisition)


def choose(
    mine: Sibling, siblings: Sequence[Sibling], study_quiet_since: datetime, now: datetime, rules: Eligibility
) -> Turn | Covered:
    """Whether a series, `mine`, is analysed now, waits for a better reconstruction, or is covered by one.

    A soft kernel goes at once.  A sharp one waits until the study has been quiet for `sibling_wait_seconds`.  A
    reconstruction covers others only once it has an outcome that holds for the acquisition.
    """
    sharp = mine.sharp
    as_good = [sibling for sibling in siblings if sharp or not sibling.sharp]
    for sibling in as_good:
        if _speaks_for(mine, sibling):
            return Covered(sibling.series.id)
    if any(sibling.series.stage in (Stage.READY, Stage.ANALYSING) for sibling in as_good):
        return Turn.WAIT
    if sharp and any(not sibling.sharp and sibling.series.stage is Stage.RECEIVING for sibling in siblings):
        return Turn.WAIT
    # where the clock was set back, what came before that seems to come later than now
    if sharp and -CLOCKS_DIFFER < now - study_quiet_since < timedelta(seconds=rules.sibling_wait_seconds):
        return Turn.WAIT
    return Turn.GO


def _speaks_for(mine: Sibling, sibling: Sibling) -> bool:
    """Whether `mine`, another reconstruction of the same data, would get the same answer.

    Some scanners number every acquisition 1.  Then the plain head that comes before the angiography looks like a sibling
    of it; so that what has no contrast never covers what has some, it covers only a sharp kernel with as many slices.
    """
    series = sibling.series
    if series.stage is not Stage.REPORTED or not shows_all_of(sibling.acquisition, mine.acquisition):
        return False
    if series.reason == Reason.NO_CONTRAST:
        return mine.sharp and not sibling.sharp and mine.series.instance_count == series.instance_count
    return series.outcome in (Outcome.POSITIVE, Outcome.NEGATIVE)
