"""A field multiplied by one matrix an axis: interpolation and averaging on grids with the same axes."""

import numpy as np
import torch
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]


def along_axes(
    field_DHW: Float32Array, along_d: Float32Array, along_h: Float32Array, along_w: Float32Array
) -> Float32Array:
    """Return the field (D, H, W) after a matrix for each axis: (d × D), (h × H) and (w × W); float32 (d, h, w).

    The products are torch's.  NumPy's (OpenBLAS) have threads of their own, which spin while those of a network compute:
    where a machine has other work as well, that takes ten times as long.
    """
    d, h, w = map(torch.from_numpy, (along_d, along_h, along_w))
    planes = (d @ torch.from_numpy(field_DHW).flatten(1)).reshape(-1, *field_DHW.shape[1:])
    product: Float32Array = ((h @ planes) @ w.T).numpy()
    return product
