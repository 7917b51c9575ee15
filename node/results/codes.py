"""The coded concepts that a Willis report speaks in (PS3.16), and where each vessel location finds its anatomy.

Those that highdicom's templates bring along are not here.

`codes` meanings are those of the Standard's context groups; validators compare them.
"""

from dataclasses import dataclass
from functools import partial

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from ai.locations import Location

_SCT = codes.SCT

# Document and context
REPORT_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
DEVICE = Code("121007", "DCM", "Device")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")
"""Of CID 100 the only plain CT; which part of the body is the target region of the images."""
IMAGING_PROCEDURE = codes.CID100.ImagingProcedure
PROCEDURES = {
    "CT": CT_PROCEDURE,
    "MR": codes.CID100.MRIUnspecifiedBodyRegion,
    "NM": codes.CID100.NMUnspecifiedBodyRegion,
    "PT": codes.CID100.PETUnspecifiedBodyRegion,
}
"""By Modality; of any other it is the imaging procedure."""
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")

# Image library (TID 1600)
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
SOURCE = Code("260753009", "SCT", "Source")
MODALITY = Code("121139", "DCM", "Modality")
CT = Code("CT", "DCM", "Computed Tomography")
MODALITIES = {each.value: each for each in map(partial(getattr, codes.CID29), codes.CID29.dir())}
"""Acquisition modalities (CID 29) by Modality."""
TARGET_REGION = Code("123014", "DCM", "Target Region")
HEAD = Code("69536005", "SCT", "Head")
BODY_PARTS = {
    **dict.fromkeys(("HEAD", "BRAIN", "SKULL"), HEAD),
    "HEADNECK": codes.CID4031.HeadAndNeck,
    "NECK": codes.CID4031.Neck,
    "HEART": codes.CID4031.Heart,
    "CSPINE": codes.CID4031.CervicalSpine,
    "TSPINE": codes.CID4031.ThoracicSpine,
    "LSPINE": codes.CID4031.LumbarSpine,
    "WHOLEBODY": codes.CID4031.EntireBody,
}
"""Target regions by Body Part Examined (PS3.16 annex L).  PixelMed knows other codes for chest, abdomen and pelvis."""
FRAME_OF_REFERENCE = Code("112227", "DCM", "Frame of Reference UID")
PIXEL_ROWS = Code("110910", "DCM", "Pixel Data Rows")
PIXEL_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
PIXELS = Code("{pixels}", "UCUM", "Pixels")

# What a summary refers to (PS3.16 CID 7202, 7205)
MONTAGE = Code("121329", "DCM", "Source image for montage")
SAME_IN_ANOTHER_CLASS = Code("121326", "DCM", "Alternate SOP Class instance")

# Segments, and what they are made from (PS3.16 CID 7150, 7162, 7202, 7203)
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

# Outcome
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
PROCESSING_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
SUCCEEDED_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
SUCCEEDED_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
NOT_ALL_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
NOT_ALL_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")
COMMENT = Code("121106", "DCM", "Comment")
ANEURYSM = Code("128609009", "SCT", "Intracranial aneurysm")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")

# What a person decided on a finding
PERSON = Code("121006", "DCM", "Person")
FINDING_CONTEXT = Code("408729009", "SCT", "Finding context")
CONFIRMED = Code("410605003", "SCT", "Confirmed present")
REJECTED = Code("410516002", "SCT", "Known absent")

# Measurement group (TID 1410, 4019)
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
FINDING = Code("121071", "DCM", "Finding")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
DIAMETER = Code("81827009", "SCT", "Diameter")
PROBABILITY = Code("122157", "DCM", "Probability")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
PERCENT = Code("%", "UCUM", "Percent")

_LEFT = Code("7771000", "SCT", "Left")
_RIGHT = Code("24028007", "SCT", "Right")
_PROXIMAL = Code("40415009", "SCT", "Proximal")
_DISTAL = Code("46053002", "SCT", "Distal")


@dataclass(frozen=True)
class Site:
    """Where a location lies, in codes.  Proximal and distal are our approximation of infraclinoid and supraclinoid."""

    anatomy: Code
    laterality: Code | None = None
    modifier: Code | None = None


_ICA = _SCT.InternalCarotidArtery
_MCA = _SCT.MiddleCerebralArtery
_ACA = _SCT.AnteriorCerebralArtery
_PCOM = _SCT.PosteriorCommunicatingArtery

SITES: dict[Location, Site] = {
    Location.LEFT_INFRACLINOID_ICA: Site(_ICA, _LEFT, _PROXIMAL),
    Location.RIGHT_INFRACLINOID_ICA: Site(_ICA, _RIGHT, _PROXIMAL),
    Location.LEFT_SUPRACLINOID_ICA: Site(_ICA, _LEFT, _DISTAL),
    Location.RIGHT_SUPRACLINOID_ICA: Site(_ICA, _RIGHT, _DISTAL),
    Location.LEFT_MCA: Site(_MCA, _LEFT),
    Location.RIGHT_MCA: Site(_MCA, _RIGHT),
    Location.ACOM: Site(_SCT.AnteriorCommunicatingArtery),
    Location.LEFT_ACA: Site(_ACA, _LEFT),
    Location.RIGHT_ACA: Site(_ACA, _RIGHT),
    Location.LEFT_PCOM: Site(_PCOM, _LEFT),
    Location.RIGHT_PCOM: Site(_PCOM, _RIGHT),
    Location.BASILAR_TIP: Site(_SCT.BasilarArtery, None, _DISTAL),
    Location.OTHER_POSTERIOR: Site(_SCT.CerebralArtery),
}

_SHORT = {
    "Internal Carotid Artery": "ICA",
    "Middle Cerebral Artery": "MCA",
    "Anterior Cerebral Artery": "ACA",
    "Anterior Communicating Artery": "ACom",
    "Posterior Communicating Artery": "PCom",
    "Circulation": "",
}


def short(location: str) -> str:
    """A location's name as neuroradiologists abbreviate it."""
    for long, brief in _SHORT.items():
        location = location.replace(long, brief)
    return location.strip()
