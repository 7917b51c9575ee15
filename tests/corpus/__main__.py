"""Prints the table with the measured ends; ends with 1 when one is wrong.  `make corpus`."""

import sys
import tempfile
from pathlib import Path

from node.runtime import log
from tests.corpus.hospital import open_hospital
from tests.corpus.situations import SITUATIONS


def main() -> int:
    """How many situations ended wrong, 1 at most."""
    log.configure(level="error")
    wrong = seconds = 0.0
    with tempfile.TemporaryDirectory() as folder, open_hospital(Path(folder)) as hospital:
        for number, situation in enumerate(SITUATIONS, start=1):
            end = hospital.play(situation)
            is_right = end.is_right(situation)
            verdict = "right" if is_right else "WRONG"
            wrong += not is_right
            seconds += end.seconds
            print(f"{number:3}  {verdict:5}  {situation.name}  [{situation.source}]")
            print(f"     expected {situation.expected}{''.join(f'; says {words!r}' for words in situation.says)}")
            print(f"     measured {end.measured}  ({'; '.join(filter(None, end.details)) or 'no detail'})")
    print(f"{len(SITUATIONS)} situations, {wrong:.0f} wrong, {seconds:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
