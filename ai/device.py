"""Where the network runs."""

import torch

from ai.errors import DeviceError


def chosen_device(name: str = "auto") -> torch.device:
    """The device that a setting names; "auto" is a CUDA GPU when there is one, else the CPU.  Raises DeviceError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            built = "" if torch.version.cuda else " (this torch is built without CUDA)"
            raise DeviceError(
                f"device = '{name}': there is no CUDA GPU here{built}; look at `nvidia-smi`, or write 'auto' or 'cpu'"
            )
        if (device.index or 0) >= count:
            raise DeviceError(f"device = '{name}': the GPUs here are cuda:0 to cuda:{count - 1}; write one of them")
    return device
