"""Whether the arteries of a head are filled with contrast: CT angiography rather than plain CT.

What is as bright as a filled artery without contrast is bone, and bone is told from arteries by what it lies beside and by its
shape: it touches dense bone, the fat of an orbit or the air of a sinus, and where it is thin it is a sheet.  An artery is a tube
with brain or fluid all around.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

from ai.distances import within
from ai.preprocess import Preprocessing, region_of_interest
from ai.volume import Volume

ENHANCED_OVER_TISSUE_HU = 60.0
"""More than blood and vessels reach without contrast, less than an artery of 150 HU once blurred at 1 mm.

Above brain and not above water, because test objects have materials of 100 HU in its place.
"""
_DENSEST_HU = 700
_BONE_HU, _BONE_MM3 = 600, 400
_BONE_DISTANCE_MM = 4.5
_FAT_HU, _FAT_MM3, _FAT_DISTANCE_MM = -30.0, 300, 6.0
"""Smoothed by 1.5 mm; neither brain nor fluid falls below this, orbits and sinuses do."""
_CUBE_MM = 9
_SHEET_SHARE = 0.18
"""Of the cube of 9 mm about a voxel, what is as bright: a tube of 3 mm fills .09, a sheet of 2 mm .22."""
_SHEET_MM3, _EDGE_MM = 60, 5
_WIDE_SHARE, _WIDE_MM, _WIDE_HU = 0.40, 2.0, 225.0
"""A tube of 6 mm fills .35, and unlike thin bone it has a core so far from its wall that is so much brighter than brain."""
_PIECE_MM, _PIECES_MM, _LONGEST_MM = 5.0, 36.0, 16.0
"""What is shorter than the first is noise.  On 100 painted heads full of thin bone, each turned six ways, the pieces of plain ones
are up to 34 mm long in all, 95 % of those filled to 150 to 200 HU 44 and more, half of them 90; by their volume they differ less.
One piece must be as long as the third: a plain head may hold many crumbs of bone.
"""
_ARTERY_LENGTH_MM = 12.0
"""What is shorter may be a crumb of bone: its HU are no artery's."""
_MARGIN = 8
"""Voxels of 1 mm beside what is judged: bone, fat and air that are further away do not count."""
_AROUND = Preprocessing(spacing_mm=1.0, size_DHW=(80, 128, 128), offset_lps_mm=(0.0, 12.0, 24.0))
_ABOVE_THE_BASE = np.s_[16:60, 22:104, 14:114]
"""Of `_AROUND`: 0 to 44 mm above the circle."""


@dataclass(frozen=True)
class Tubes:
    """What is seen of filled arteries above the base of the skull.

    `length_mm`: of all pieces from 5 mm on; `longest_mm`: of the longest.  `hu`: what the brightest tenth of the voxels reaches, of
    pieces from 12 mm on, nan where there is none.  `tissue_hu`: the median of brain and fluid.  `left_mm3`, `right_mm3`: the volumes
    of the same pieces, more than 8 mm to the side of the circle.
    """

    length_mm: float
    longest_mm: float
    hu: float
    tissue_hu: float
    left_mm3: float = 0.0
    right_mm3: float = 0.0

    @property
    def filled(self) -> bool:
        """Whether there are enough of them for CT angiography."""
        return self.length_mm >= _PIECES_MM and self.longest_mm >= _LONGEST_MM


def enhanced_tubes(volume: Volume, circle_centre_lps_mm: tuple[float, float, float]) -> Tubes:
    """The tubes denser than brain by `ENHANCED_OVER_TISSUE_HU` in the 44 mm above the circle of Willis, judged at 1 mm.

    They lie away from dense bone, fat and air and are no sheets.
    """
    hu_DHW = region_of_interest(volume, circle_centre_lps_mm, _AROUND).hu_DHW
    hu = ndimage.gaussian_filter(hu_DHW.astype(np.float32), 0.6)
    near = tuple(slice(side.start - _MARGIN, side.stop + _MARGIN) for side in _ABOVE_THE_BASE)
    own = (slice(_MARGIN, -_MARGIN),) * 3
    bone = large(hu > _BONE_HU, _BONE_MM3)[near]
    hollow = large(ndimage.gaussian_filter(hu[near], 1.5) < _FAT_HU, _FAT_MM3)
    clear = ~(within(bone, _BONE_DISTANCE_MM) | within(hollow, _FAT_DISTANCE_MM))[own]
    shown = hu[_ABOVE_THE_BASE]
    if not clear.any():
        return Tubes(0.0, 0.0, np.nan, np.nan)
    tissue_hu = float(np.median(shown[clear]))
    bright = hu[near] >= tissue_hu + ENHANCED_OVER_TISSUE_HU
    share = ndimage.uniform_filter(bright.astype(np.float32), _CUBE_MM)
    core = ~within(~bright, _WIDE_MM) & (hu[near] >= tissue_hu + _WIDE_HU)
    wide = ndimage.binary_dilation(core, iterations=3)
    slim = bright & ((share < _SHEET_SHARE) | (wide & (share < _WIDE_SHARE)))
    sheets = large(bright & ~slim & ~wide, _SHEET_MM3)
    tube = slim & ~ndimage.binary_dilation(sheets, iterations=_EDGE_MM)  # a sheet's edge is as slim as a tube
    labels = label(tube[own] & clear & (shown <= _DENSEST_HU), connectivity=3)
    lengths = np.zeros(labels.max() + 1, np.float32)
    for part in regionprops(labels):
        length_mm = max(part.bbox[axis + 3] - part.bbox[axis] for axis in range(3))
        if length_mm >= _PIECE_MM and part.area <= 0.25 * length_mm**3:
            lengths[part.label] = length_mm
    tubes = lengths[labels] >= _ARTERY_LENGTH_MM
    hu = float(np.quantile(shown[tubes], 0.9)) if tubes.any() else np.nan
    to_left_mm = np.flatnonzero(tubes) % tubes.shape[2] + _ABOVE_THE_BASE[2].start - (_AROUND.size_DHW[2] - 1) / 2.0
    return Tubes(
        float(lengths.sum()),
        float(lengths.max()),
        hu,
        tissue_hu,
        float((to_left_mm > 8).sum()),
        float((to_left_mm < -8).sum()),
    )


def large(mask: NDArray[np.bool_], least_voxels: int) -> NDArray[np.bool_]:
    """The parts of a mask that hold so many voxels; a clip or a calcified wall holds fewer than bone."""
    labels, _ = ndimage.label(mask)
    size = np.bincount(labels.ravel())
    size[0] = 0
    kept: NDArray[np.bool_] = (size >= least_voxels)[labels]
    return kept
