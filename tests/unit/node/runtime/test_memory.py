"""What is free goes back to the system."""

import os
import subprocess
import sys

import pytest

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


HEAPS = """
import ctypes, threading
from node.runtime.memory import keep_few_heaps

keep_few_heaps()
together = threading.Barrier(12)

def works():
    kept = [bytes(1000) for _ in range(1000)]
    together.wait()

threads = [threading.Thread(target=works) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.parametrize(("environment", "heaps"), [({}, 2), ({"MALLOC_ARENA_MAX": "7"}, 7)])
def test_threads_share_two_heaps_unless_the_environment_says_otherwise(environment: dict[str, str], heaps: int) -> None:
    others = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    ended = subprocess.run(
        [sys.executable, "-c", HEAPS], capture_output=True, text=True, check=True, env=others | environment
    )
    assert ended.stderr.count("Arena ") == heaps, ended.stderr
