"""Memory that a process no longer uses goes back to the system."""

import ctypes
from contextlib import suppress


def give_back_memory() -> None:
    """The C library lets go of whatever is free; nothing happens where it cannot be told to (it is not glibc).

    glibc by itself gives back only what lies at the end of its heaps: after its imports a process of a node holds twice
    what it uses, and what many short-lived threads leave between what lives on looks like a leak over days.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
