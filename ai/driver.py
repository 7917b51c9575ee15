"""Whether there can be a GPU: known without torch, which takes seconds to import."""

import ctypes
from pathlib import Path

from ai.errors import DeviceError

_AMD = Path("/dev/kfd")
"""There torch may call a GPU "cuda" that has no driver of NVIDIA's."""


def require_driver(device: str) -> None:
    """A device that is called "cuda" has a driver; `ai.device.chosen_device` finds out whether it can be used.  Raises DeviceError."""
    if not device.startswith("cuda") or _AMD.exists():
        return
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise DeviceError(
            f"device = '{device}': there is no CUDA GPU here (no driver: libcuda.so.1 is not found); look at `nvidia-smi`, or "
            "write 'auto' or 'cpu'"
        ) from None
