"""The corpus's node, each of whose processes has its table of interned strings in its last size after five minutes.

CPython lays that table out anew once, at a moment that depends on the load: a step of up to 4 MiB, and no other
(`tests.soak.interned`).  Here that moment comes before the soak judges a process, so that the criterion stays strict.
"""

import time
from threading import Thread

from tests.corpus import stub_node
from tests.soak.interned import intern_and_drop

MODULE = "tests.soak.stub_node"
PAUSES_SECONDS = (60.0, 240.0)
"""Twice: what was not imported by the first time, on a busy machine, is by the second.  The soak judges from 600 s on."""
STRINGS = 200_000


def settle() -> None:
    """So many strings came and went, after each of the pauses."""
    for pause_seconds in PAUSES_SECONDS:
        time.sleep(pause_seconds)
        intern_and_drop(STRINGS)


def main() -> None:
    """As the corpus's."""
    Thread(target=settle, name="settle", daemon=True).start()
    stub_node.main(MODULE)


if __name__ == "__main__":
    main()
