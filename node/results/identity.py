"""Who the report is about and what it is called: attributes copied from the source images, and derived UIDs."""

import copy
import json
import uuid
from collections import Counter
from collections.abc import Sequence

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless
from pydicom.valuerep import STR_VR, VR

from ai.frames import GARBLED, encodings_of, text_of, transfer_syntax
from ai.wording import unpadded
from node.dicom.header import serves_as_uid

_NAMESPACE = uuid.UUID("5f1c0a86-27c4-5c4e-9d0e-8f6f2b8a9a41")

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Attributes of patient and study that may be empty but must be there."""
# By the modules of PS3.3 C.7.1 and C.7.2.
_PATIENT = """
    IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID SourcePatientGroupIdentificationSequence
    GroupOfPatientsIdentificationSequence PatientBirthTime PatientBirthDateInAlternativeCalendar
    PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar ReferencedPatientSequence
    ReferencedPatientPhotoSequence QualityControlSubject OtherPatientIDs OtherPatientIDsSequence OtherPatientNames
    EthnicGroup EthnicGroupCodeSequence PatientComments ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization
    PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
"""
_CLINICAL_TRIAL_SUBJECT = """
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName
    ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName
    ClinicalTrialProtocolEthicsCommitteeApprovalNumber
"""
_GENERAL_STUDY = """
    StudyInstanceUID ReferringPhysicianIdentificationSequence ConsultingPhysicianName
    ConsultingPhysicianIdentificationSequence IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord
    PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence
    ProcedureCodeSequence RequestingService RequestingServiceCodeSequence ReferencedStudySequence
    ReasonForPerformedProcedureCodeSequence TimezoneOffsetFromUTC
"""
_PATIENT_STUDY = """
    AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientSizeCodeSequence
    PatientWeight PatientBodyMassIndex MedicalAlerts Allergies SmokingStatus PregnancyStatus LastMenstrualDate
    PatientState Occupation AdditionalPatientHistory PatientSexNeutered AdmissionID IssuerOfAdmissionIDSequence
    ServiceEpisodeID ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence VisitComments
"""
_CLINICAL_TRIAL_STUDY = """
    ClinicalTrialTimePointID ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent
"""
_MODULES = (_PATIENT, _CLINICAL_TRIAL_SUBJECT, _GENERAL_STUDY, _PATIENT_STUDY, _CLINICAL_TRIAL_STUDY)
_COPIED = (*TYPE_2, *(keyword for module in _MODULES for keyword in module.split()))


_LOSING = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}
"""Transfer syntaxes that lose, and the method of each (PS3.3 C.7.6.1.1.5.1); those that may lose or not say nothing."""


def derive_uid(*parts: str | int) -> str:
    """The same 2.25 UID (PS3.5 B.2) for the same parts, always; ("ab", "c") and ("a", "bc") differ."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts)).int}"


def reported_on(headers: Sequence[Dataset]) -> list[Dataset]:
    """The headers of the study and patient that most of `headers` belong to, by ascending SOP Instance UID.

    A stray slice of another patient must not put the report into that patient's record; and the order in which slices
    arrived must not change the report.
    """
    belongs = [
        tuple(unpadded(text_of(ds, k)) for k in ("StudyInstanceUID", "PatientID", "IssuerOfPatientID"))
        for ds in headers
    ]
    counts = Counter(belongs)
    most = min(counts, key=lambda identity: (-counts[identity], identity))
    kept = [ds for ds, identity in zip(headers, belongs, strict=True) if identity == most]
    return sorted(kept, key=lambda ds: text_of(ds, "SOPInstanceUID"))


def uid_of(text: str) -> str:
    """What the images state as a UID, "" where it can serve as none: it is nothing to be copied."""
    return text if serves_as_uid(text) else ""


def missing_identity(headers: Sequence[Dataset]) -> tuple[str, ...]:
    """Keywords that a report needs and `headers` lack; empty when a report can be made.  Ask before analysing.

    Needed: the study, series, instance and class UIDs, and a Patient ID or a Patient's Name.  Everything else that a
    report carries may be absent or empty (type 2) and is then written empty.
    """
    if not headers:
        return _NEEDED
    header = reported_on(headers)[0]
    missing = [keyword for keyword in _NEEDED if not unpadded(text_of(header, keyword))]
    if not unpadded(text_of(header, "PatientID")) and not text_of(header, "PatientName").strip("^= "):
        missing.append("PatientID")
    return tuple(missing)


def patient_and_study(header: Dataset) -> Dataset:
    """A new dataset with the patient and study attributes of `header`, byte for byte where it still has the bytes.

    Absent type 2 attributes are empty.  The character set comes along; text added later must stay in ASCII, which
    every character set but ISO_IR 13 (no backslash, no tilde) contains.
    """
    ds = Dataset()
    _copy_element(header, ds, "SpecificCharacterSet")
    ds.set_original_encoding(False, True, encodings_of(ds))
    for keyword in TYPE_2:
        setattr(ds, keyword, None)
    for keyword in _COPIED:
        _copy_element(header, ds, keyword)
    return ds


def say_whether_lossy(ds: Dataset, sources: Sequence[Dataset]) -> None:
    """`ds`, an image made of `sources`, says whether one of them was ever compressed with loss, and how.

    By what they say themselves, or by a transfer syntax that loses, about which some say nothing.  PS3.3 C.7.6.1.1.5,
    C.8.20.2.2.
    """
    lossy = [source for source in sources if unpadded(text_of(source, "LossyImageCompression")) == "01"]
    methods = [_LOSING[syntax] for source in sources if (syntax := transfer_syntax(source)) in _LOSING]
    ds.LossyImageCompression = "01" if lossy or methods else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod") if lossy else ():
        _copy_element(lossy[0], ds, keyword)
    if methods and "LossyImageCompressionMethod" not in ds:
        ds.LossyImageCompressionMethod = methods[0]


def _copy_element(source: Dataset, target: Dataset, keyword: str) -> None:
    number = tag_for_keyword(keyword)
    assert number is not None
    tag = Tag(number)
    if tag not in source:
        return
    element = source.get_item(tag)
    vr = dictionary_VR(tag)
    # The bytes of text mean the same in every uncompressed encoding, so that they can be copied undecoded.
    if isinstance(element, RawDataElement) and vr in STR_VR and isinstance(element.value, bytes):
        value = element.value
        if len(value) % 2:
            value += b"\0" if vr == VR.UI else b" "
        target[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
        return
    try:
        copied: DataElement = copy.deepcopy(source[tag])
    except GARBLED:  # a sequence that cannot be read cannot be written either; the report matters more
        return
    target[tag] = copied
