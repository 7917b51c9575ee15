"""Prints the table with the measured ends; ends with 1 when one is wrong.  `make corpus`, `make corpus-senders`."""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from node.runtime import log
from tests.corpus import through_node
from tests.corpus.hospital import open_hospital
from tests.corpus.situation import End, Situation
from tests.corpus.situations import SITUATIONS


def in_this_process(folder: Path) -> Iterator[tuple[Situation, End, str]]:
    """Each situation, how it ended, and who sent it."""
    with open_hospital(folder) as hospital:
        for situation in SITUATIONS:
            yield situation, hospital.play(situation), ""


def through_a_node(folder: Path) -> Iterator[tuple[Situation, End, str]]:
    """The same, through `willis serve` with real senders."""
    for each in through_node.play(folder, SITUATIONS):
        assert each.end is not None
        yield each.situation, each.end, f" by {each.sender.name}"


def main() -> int:
    """Whether a situation ended wrong."""
    log.configure(level="error")
    wrong = number = 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        played = through_a_node if "--through-node" in sys.argv[1:] else in_this_process
        for number, (situation, end, sender) in enumerate(played(Path(folder)), start=1):
            is_right = end.is_right(situation)
            verdict = "right" if is_right else "WRONG"
            wrong += not is_right
            print(f"{number:3}  {verdict:5}  {situation.name}{sender}  [{situation.source}]")
            print(f"     expected {situation.expected}{''.join(f'; says {words!r}' for words in situation.says)}")
            print(f"     measured {end.measured}  ({'; '.join(filter(None, end.details)) or 'no detail'})")
    seconds = time.monotonic() - begun
    print(f"{len(SITUATIONS)} situations, played {number} times, {wrong} wrong, {seconds:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
