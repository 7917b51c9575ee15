"""Sharp, thick, derived, projection: how vendors spell what is not an original, thin, soft volume."""

from pydicom import Dataset

from tests.corpus.images import ANEURYSM_HU, alone, cta, enhanced
from tests.corpus.situation import Sending, Situation


def reformat(name: str, source: str, *image_type: str) -> Situation:
    """A series whose Image Type says that it is no original volume."""
    return Situation(name, source, lambda: [Sending(cta(ImageType=list(image_type)))], ("not_eligible: reformat",))


def halves(slices: list[Dataset]) -> list[Dataset]:
    """The slices as frames of two Enhanced CT instances."""
    middle = len(slices) // 2
    return [enhanced(slices[:middle], 1), enhanced(slices[middle:], 2)]


SITUATIONS = (
    Situation("slices 5 mm apart", "a plain head for the archive", alone(spacing_mm=5.0),
              ("not_eligible: slices_too_far_apart",)),
    Situation("5 mm slices every 1 mm", "thick slices that overlap", alone(SliceThickness=5.0),
              ("not_eligible: slices_too_thick",)),
    Situation("1.25 mm slices every 0.625 mm", "the usual overlap of a half",
              alone(spacing_mm=0.625, SliceThickness=1.25), ("negative",)),
    Situation("one Enhanced CT instance, frames 5 mm apart", "dcm2niix issue 555",
              lambda: [Sending([enhanced(cta(spacing_mm=5.0))])], ("not_eligible: slices_too_far_apart",)),
    Situation("two Enhanced CT instances, frames 5 mm apart", "dicom2nifti issue 140: Canon",
              lambda: [Sending(halves(cta(spacing_mm=5.0)))], ("not_eligible: slices_too_far_apart",)),
    Situation("one Enhanced CT instance with an aneurysm", "dicom2nifti issue 140",
              lambda: [Sending([enhanced(cta(ANEURYSM_HU))])], ("positive",)),
    Situation("two Enhanced CT instances with an aneurysm", "dicom2nifti issue 140",
              lambda: [Sending(halves(cta(ANEURYSM_HU)))], ("positive",)),
    Situation("Enhanced CT of a maximum projection", "PS3.3 C.8.15.2.1.1: MAX_IP",
              lambda: [Sending([enhanced(cta(), ImageType=["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"])])],
              ("not_eligible: reformat",)),
    reformat("MPR", "PS3.3 C.8.2.1.1.1", "DERIVED", "SECONDARY", "MPR"),
    reformat("Siemens MIP", "Siemens: CT_SOM5 MIP", "DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"),
    reformat("volume rendering", "PS3.3 C.8.15.2.1.1: VOLUME_RENDER", "DERIVED", "PRIMARY", "VOLUME", "VOLUME_RENDER"),
    reformat("minimum projection", "PS3.3 C.8.15.2.1.1: MIN_IP", "DERIVED", "PRIMARY", "VOLUME", "MIN_IP"),
    reformat("GE reformat", "GE: REFORMATTED AVERAGE", "DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"),
    Situation("a coronal series by its description", "every site", alone(SeriesDescription="COR MIP 10/3"),
              ("not_eligible: reformat",)),
    Situation("thin slices named for what is made of them", "Siemens: THIN FOR MPR",
              alone(ANEURYSM_HU, SeriesDescription="THIN FOR MPR"), ("positive",)),
    Situation("a localizer", "every scanner", alone(count=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
              ("not_eligible: localizer",)),
    Situation("a sharp kernel with its strength comes before the soft one", "a public series: Br36f\\4",
              lambda: [Sending(cta(ConvolutionKernel=["Br64d", "3"], AcquisitionNumber=1, AcquisitionDate="20260101")),
                       Sending(cta(ANEURYSM_HU, series=2, ConvolutionKernel=["Br36f", "3"], AcquisitionNumber=1,
                                   AcquisitionDate="20260101"))],
              ("covered: covered", "positive")),
    Situation("no head in the images", "a thorax under a head's name", alone(-1000), ("not_analysed: not_a_head",)),
    Situation("a head without contrast", "plain CT", alone(40), ("not_analysed: no_contrast",)),
    Situation("an angiography without an aneurysm", "the usual", alone(), ("negative",)),
    Situation("an angiography with an aneurysm", "the usual", alone(ANEURYSM_HU), ("positive",)),
)  # fmt: skip
