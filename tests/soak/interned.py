"""What strings that are interned and dropped again cost a process: `python -m tests.soak.interned node.analysis.worker`.

Three million of them, one after the other, in a process with that module: the table that CPython keeps them in is laid out anew
once, with room to spare, and what malloc has in use rises by a few MiB in one step, and then no more.
"""

import ctypes
import importlib
import sys

STRINGS, EVERY, STEP_MIB = 3_000_000, 64, 0.5
_NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _NAMES.split())  # malloc.h


def main(module: str) -> None:
    """Prints each step of more than half a MiB, and after how many strings it came."""
    importlib.import_module(module)
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    before = _in_use(mallinfo())
    for number in range(0, STRINGS, EVERY):
        intern_and_drop(EVERY, number)
        now = _in_use(mallinfo())
        if now - before > STEP_MIB:
            print(f"after {number + EVERY:,} strings: {now - before:.2f} MiB more in use")
        before = now


def intern_and_drop(count: int, first: int = 0) -> None:
    """So many strings that nobody else has were interned, one after the other, and none was kept."""
    for number in range(first, first + count):
        sys.intern(f"a string that nobody else has {number}")


def _in_use(info: _Mallinfo) -> float:
    used: int = info.uordblks + info.hblkhd
    return used / 2**20


if __name__ == "__main__":
    main(sys.argv[1])
