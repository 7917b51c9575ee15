"""Values: rescale, padding, time zones, character sets, contradictions."""

from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from tests.corpus.images import ANEURYSM_HU, alone, cta, enhanced
from tests.corpus.situation import Sending, Situation


def typed(rescale_type: str) -> list[Dataset]:
    """A CTA of whose last frames the Rescale Type is another."""
    ds = enhanced(cta())
    for groups in ds.PerFrameFunctionalGroupsSequence[20:]:
        transformation = Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = 1, -1024
        transformation.RescaleType = rescale_type
        groups.PixelValueTransformationSequence = Items([transformation])
    return [ds]


def contradicting() -> list[Dataset]:
    """An enhanced image whose top level names another position, kernel and voltage than its frames."""
    return [
        enhanced(
            cta(ANEURYSM_HU), ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[0, 1, 0, 0, 0, -1], KVP=80,
            RescaleSlope=3, RescaleIntercept=7, ConvolutionKernel="Hr68h",
        )
    ]  # fmt: skip


def more_groups_than_frames() -> list[Dataset]:
    """The header describes 30 frames and claims 24."""
    return [enhanced(cta(count=30), NumberOfFrames=24)]


def fewer_groups_than_frames() -> list[Dataset]:
    """The header describes 24 frames and claims 30."""
    ds = enhanced(cta(count=30))
    ds.PerFrameFunctionalGroupsSequence = Items(list(ds.PerFrameFunctionalGroupsSequence)[:24])
    return [ds]


SITUATIONS = (
    Situation("electron density", "PS3.3 C.11.1.1.2: Rescale Type ED", alone(RescaleType="ED"),
              ("not_analysed: not_hounsfield",)),
    Situation("a modified Hounsfield unit in one slice", "PS3.3 C.11.1.1.2: HU_MOD",
              lambda: [Sending([*cta()[:-1], *cta(RescaleType="HU_MOD")[-1:]])], ("not_analysed: not_hounsfield",)),
    Situation("Rescale Type of some frames is another", "spectral CT, Z_EFF", lambda: [Sending(typed("Z_EFF"))],
              ("not_analysed: not_hounsfield",)),
    Situation("no rescale", "an exporter that drops it", alone(RescaleSlope=None, RescaleIntercept=None),
              ("not_analysed: missing_rescale",)),
    Situation("Rescale Type HU with padding", "PS3.5 6.2: leading and trailing spaces", alone(RescaleType=" HU "),
              ("negative",)),
    Situation("padding in patient, kernel, voltage and Image Type of some slices", "PS3.5 6.2",
              lambda: [Sending([*cta(KVP="120", ConvolutionKernel="Hr40f")[:12],
                                *cta(KVP=" 120 ", ConvolutionKernel=" Hr40f ", PatientID=" P-0001",
                                     ImageType=["ORIGINAL ", " PRIMARY", " AXIAL"])[12:]])], ("negative",)),
    Situation("a localizer with padding", "PS3.5 6.2", alone(ImageType=["ORIGINAL", "PRIMARY", " LOCALIZER "]),
              ("not_eligible: localizer",)),
    Situation("a name in Japanese", "PS3.5 H.3", alone(SpecificCharacterSet=["", "ISO 2022 IR 87"],
              PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"), ("negative",)),
    Situation("no accession number", "an emergency", alone(AccessionNumber=""), ("negative",)),
    Situation("the top level contradicts the frames", "PS3.3 C.7.6.16: functional groups",
              lambda: [Sending(contradicting())], ("positive",)),
    Situation("more functional groups than frames", "a header that contradicts its functional groups",
              lambda: [Sending(more_groups_than_frames())], ("not_analysed: contradictory_header",)),
    Situation("fewer functional groups than frames", "a header that contradicts its functional groups",
              lambda: [Sending(fewer_groups_than_frames())], ("not_analysed: missing_geometry",)),
)  # fmt: skip
