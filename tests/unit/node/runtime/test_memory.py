"""What is free goes back to the system."""

import subprocess
import sys

PROGRAM = """
from pathlib import Path
from node.runtime.memory import give_back_memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

blocks = [bytes(1000 + number % 7) for number in range(200_000)]
kept = blocks[::50]
full = resident_mib()
del blocks
before = resident_mib()
give_back_memory()
print(full, before, resident_mib(), len(kept))
"""


def test_what_lies_between_what_lives_on_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    full, before, after, _kept = map(float, said.split())
    assert before > full - 20, "the C library gave it back by itself: nothing is shown here"
    assert after < full - 100
