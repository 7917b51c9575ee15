"""Large arrays that come and go stay with the process while a network runs, or for as long as whoever calls `keep` says.

glibc gives every array of 32 MiB and more back to the kernel when it is freed, and the next one is then cleared page by
page: a fifth to a quarter of a forward pass on a CPU.  Where the C library has no `mallopt`, nothing happens.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_NEVER, _USUAL_TRIM_BYTES, _USUAL_MMAP_MAX = 2**31 - 1, 128 * 1024, 65_536
_keepers = 0


def keep() -> None:
    """Freed memory is used again from now on, until `let_go` was called as often.  Both belong to one thread of a process."""
    global _keepers
    _keepers += 1
    if _keepers == 1:
        _set(_NEVER, 0)


def let_go() -> None:
    """What `keep` began ends; at the last one free memory is given back to the kernel."""
    global _keepers
    _keepers -= 1
    if _keepers == 0:
        _set(_USUAL_TRIM_BYTES, _USUAL_MMAP_MAX)
        c_library = ctypes.CDLL(None)
        if hasattr(c_library, "malloc_trim"):
            c_library.malloc_trim(0)


@contextmanager
def kept_heap() -> Iterator[None]:
    """`keep` and `let_go` around what is inside."""
    keep()
    try:
        yield
    finally:
        let_go()


def _set(trim_bytes: int, most_mapped: int) -> None:
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "mallopt"):
        c_library.mallopt(_MMAP_MAX, most_mapped)
        c_library.mallopt(_TRIM_THRESHOLD, trim_bytes)
