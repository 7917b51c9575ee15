"""What we negotiate and how we name ourselves; `docs/conformance.md` says it to people."""

from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

CT_CLASSES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
"""What slices are of; an instance of any other class is none."""

IMAGE_CLASSES = (
    *CT_CLASSES,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""What a retrieval asks for, and all that is accepted with `storage_classes = "images"`."""

_RETIRED_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{last}"
    for last in ("3", "5", "6", "8", "9", "10", "11", "12.3", "77.1", "77.2", "88.1", "88.2", "88.3", "88.4", "129")
)
"""Of which archives still have instances (PS3.6 table A-1)."""

STORAGE_CLASSES = tuple(
    dict.fromkeys(
        (
            *map(str, IMAGE_CLASSES),
            *(str(context.abstract_syntax) for context in AllStoragePresentationContexts),
            *_RETIRED_CLASSES,
        )
    )
)
"""What a study may hold: what is here and not in `IMAGE_CLASSES` is kept so that a study comes across whole."""


TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended (12 bit)
)


OTHER_SYNTAXES = (
    *TRANSFER_SYNTAXES,
    *(f"1.2.840.10008.1.2.4.{last}" for last in (92, 93, 94, 110, 111, 112, 204)),  # JPEG 2000 part 2, JPIP, JPEG XL
    *(f"1.2.840.10008.1.2.4.{last}" for last in range(100, 109)),  # MPEG2, MPEG-4, HEVC
    *(f"1.2.840.10008.1.2.4.{last}.1" for last in range(100, 107)),  # the same, fragmentable
)
"""Of what is kept and not decoded: all whose datasets are in Explicit VR Little Endian besides."""


IMPLEMENTATION_CLASS_UID = "2.25.161746098240367914236428104013612204119"


IMPLEMENTATION_VERSION_NAME = "WILLIS_0.1"
