"""What a DICOM Segmentation says, as whoever reads the file sees it."""

import highdicom
import numpy as np
from numpy.typing import NDArray


def painted_lps_mm(seg: highdicom.seg.Segmentation, segment: int = 1) -> NDArray[np.float64]:
    """Where in the patient the centres of the segment's pixels lie, from its own functional groups alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    across, down = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    points = []
    planes = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for pixels, frame in zip(planes, seg.PerFrameFunctionalGroupsSequence, strict=True):
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            origin = np.asarray(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            points += [origin + r * rows_mm * down + c * columns_mm * across for r, c in np.argwhere(pixels)]
    return np.asarray(points)
