"""What the processes of a node use, sample by sample, and whether it grows."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
WARM_UP_SHARE, SHORTEST_SECONDS = 0.5, 600.0
"""So much of a process's life is not judged: it imports, caches and pools what it then keeps.  Nor is what is shorter.

Half of it: SQLite fills 2 MiB for each connection as the database grows, so that memory rises, ever slower, for most of the
first half (`python -m tests.soak.inside` shows what rises).  A leak goes on in the second half as in the first.
"""
MEMORY_SHARE, MEMORY_MIB, DESCRIPTORS = 0.01, 1.0, 1.0
"""Growth: the fitted line rises by more than the larger of these over what is judged, and its interval excludes none."""


@dataclass(frozen=True)
class Sample:
    """One process at one moment; `at`: seconds since the beginning."""

    at: float
    role: str
    pid: int
    memory_mib: float
    descriptors: int
    threads: int
    processor_seconds: float


def sample(at: float, processes: Mapping[str, int]) -> list[Sample]:
    """What each process uses; none of one that has ended meanwhile."""
    found = []
    for role, pid in processes.items():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue
        memory = int(stat[21]) * PAGE / 2**20
        found.append(Sample(at, role, pid, memory, descriptors, int(stat[17]), (int(stat[11]) + int(stat[12])) / TICKS))
    return found


class Watch:
    """Keeps samples in a file as they are taken, and in `samples`."""

    def __init__(self, path: Path, processes: Callable[[], Mapping[str, int]], seconds: float, began: float) -> None:
        """`began`: the monotonic time of the beginning."""
        self.samples: list[Sample] = []
        self._path, self._processes, self._seconds, self._began = path, processes, seconds, began
        self._next = 0.0

    def look(self) -> None:
        """A sample was taken where one is due."""
        at = time.monotonic() - self._began
        if at < self._next:
            return
        self._next = at + self._seconds
        taken = sample(at, self._processes())
        self.samples += taken
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(each)) + "\n" for each in taken)

    def processor_seconds(self) -> float:
        """Of all processes together."""
        most: dict[int, float] = {}
        for each in self.samples:
            most[each.pid] = max(most.get(each.pid, 0.0), each.processor_seconds)
        return sum(most.values())


def read_samples(path: Path) -> list[Sample]:
    """Those of a file."""
    return [Sample(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


@dataclass(frozen=True)
class Growth:
    """How one measure of one process changed over the longest stretch without a restart of it, after its warm-up."""

    role: str
    measure: str
    hours: float
    """Judged, of real time."""
    middle: float
    change: float
    """Of the fitted line over these hours."""
    low: float
    high: float
    """95 % of it."""

    @property
    def per_hour(self) -> float:
        """The same for an hour."""
        return self.change / self.hours

    @property
    def grows(self) -> bool:
        """See the criterion above; a process that was judged for no time does not."""
        limit = max(MEMORY_MIB, MEMORY_SHARE * self.middle) if self.measure == "memory_mib" else DESCRIPTORS
        return self.low > 0 and self.change > limit


def growths(samples: Iterable[Sample]) -> list[Growth]:
    """Memory and descriptors of every role."""
    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for each in samples:
        lives[each.role, each.pid].append(each)
    longest: dict[str, list[Sample]] = {}
    for (role, _), life in lives.items():
        if role not in longest or _seconds(life) > _seconds(longest[role]):
            longest[role] = life
    found = []
    for role, life in sorted(longest.items()):
        begin = life[0].at + WARM_UP_SHARE * _seconds(life)
        judged = [each for each in life if each.at >= begin]
        if _seconds(judged) < SHORTEST_SECONDS:
            continue
        at = [each.at for each in judged]
        for measure in ("memory_mib", "descriptors"):
            values = [float(getattr(each, measure)) for each in judged]
            change, low, high = rise(at, values)
            found.append(Growth(role, measure, _seconds(judged) / 3600, float(np.median(values)), change, low, high))
    return found


def rise(at: Sequence[float], values: Sequence[float], blocks: int = 12) -> tuple[float, float, float]:
    """By how much the line through the medians of `blocks` equal stretches rises from end to end, with its 95 % interval.

    Medians of blocks, as neighbouring samples are not independent and a busy moment is no trend.
    """
    x, y = np.asarray(at, dtype=float), np.asarray(values, dtype=float)
    parts = np.array_split(np.arange(len(x)), min(blocks, len(x) // 2))
    middle_x = np.array([x[part].mean() for part in parts])
    middle_y = np.array([np.median(y[part]) for part in parts])
    count, span = len(parts), float(x[-1] - x[0])
    deviation = middle_x - middle_x.mean()
    slope = float(deviation @ (middle_y - middle_y.mean()) / (deviation @ deviation))
    residual = middle_y - middle_y.mean() - slope * deviation
    error = float(np.sqrt(residual @ residual / max(1, count - 2) / (deviation @ deviation)))
    half = 2.228 * error  # Student's t at 10 degrees of freedom
    return slope * span, (slope - half) * span, (slope + half) * span


def _seconds(life: Sequence[Sample]) -> float:
    return life[-1].at - life[0].at
