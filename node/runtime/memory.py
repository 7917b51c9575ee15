"""Memory that a process no longer uses goes back to the system."""

import ctypes
import gc
import os
from contextlib import suppress

FEW_HEAPS = {"MALLOC_ARENA_MAX": "2"}
"""The environment of a process whose threads wait for each other in Python: they need no heaps of their own, which never shrink."""
_ARENA_MAX = -8  # malloc.h


def keep_few_heaps() -> None:
    """As `FEW_HEAPS`, for this process, before it has threads; its environment says otherwise, or the C library is not glibc: nothing."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_ARENA_MAX, int(FEW_HEAPS["MALLOC_ARENA_MAX"]))


def give_back_memory() -> None:
    """The C library lets go of whatever is free; nothing happens where it cannot be told to (it is not glibc).

    glibc by itself gives back only what lies at the end of its heaps: after its imports a process of a node holds twice
    what it uses, and what many short-lived threads leave between what lives on looks like a leak over days.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def end_soon() -> None:
    """The process is about to end, and what it holds is not searched for cycles any longer.

    With torch or SQLAlchemy that search takes seconds where memory is slow, of the ten in which a node is to stop.
    """
    gc.freeze()
