"""Where the network runs, and in which precision."""

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


def passes_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a network passes through a scan in bfloat16.  `precision`: "auto" or "float32".

    With "auto" on a CPU that multiplies tiles of it (AMX): there a pass takes a third of the time.  Without such tiles it is slower.
    """
    return precision == "auto" and device.type == "cpu" and _multiplies_tiles()


def _multiplies_tiles() -> bool:
    """Whether this CPU has AMX for bfloat16; an older torch does not say."""
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("amx_bf16"))
