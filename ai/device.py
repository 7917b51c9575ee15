"""Where the network runs, in which precision, and what is raised when it cannot."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ai.errors import DeviceError, DeviceLost

_LOST = getattr(torch, "AcceleratorError", ())
"""What newer versions of torch raise for an error of the device; earlier ones say no more than `_OF_CUDA`."""
_OF_CUDA, _OF_MEMORY = "CUDA error", "DefaultCPUAllocator: "


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


@contextmanager
def failures_by_type() -> Iterator[None]:
    """What torch raises as RuntimeError is MemoryError where the machine's memory did not suffice, and DeviceLost where a GPU failed.

    After such a failure every further call of this process to the GPU fails.  torch.OutOfMemoryError, of a GPU, stays.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if _OF_MEMORY in str(error):
            raise MemoryError(str(error)) from error
        if isinstance(error, _LOST) or _OF_CUDA in str(error):
            raise DeviceLost(str(error).partition("\n")[0]) from error
        raise


@contextmanager
def same_answers(precision: str, device: torch.device) -> Iterator[None]:
    """On a GPU convolutions answer the same, bit for bit, each time, and with "float32" not in TF32."""
    if device.type != "cuda":
        yield
        return
    tf32 = precision != "float32"
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
        yield


def passes_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a network passes through a scan in bfloat16.  `precision`: "auto" or "float32".

    With "auto" on a CPU with instructions for it: a pass takes a third of the time with AMX, half with AVX-512 BF16.  On others
    it is slower.
    """
    return precision == "auto" and device.type == "cpu" and _multiplies_bfloat16()


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16; an older torch does not say."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
