"""The corpus's node, each of whose processes has its table of interned strings in its last size after a minute.

CPython lays that table out anew once, at a moment that depends on the load: a step of up to 4 MiB, and no other
(`tests.soak.interned`).  Here that moment comes before the soak judges a process, so that the criterion stays strict.
"""

from threading import Timer

from tests.corpus import stub_node
from tests.soak.interned import intern_and_drop

MODULE = "tests.soak.stub_node"
IMPORTED_SECONDS = 60.0
"""After the start, each process has imported and read what it keeps."""
STRINGS = 200_000


def main() -> None:
    """As the corpus's."""
    timer = Timer(IMPORTED_SECONDS, intern_and_drop, (STRINGS,))
    timer.daemon = True
    timer.start()
    stub_node.main(MODULE)


if __name__ == "__main__":
    main()
