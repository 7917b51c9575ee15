"""A series is analysed while its last slices still arrive, as soon as what has come shows the region around the circle whole.

It is the same analysis, of the slices that are there, and nobody hears of its findings.  What it leaves is what its costly
steps answered, by what went into them (`ai.remembered`): after the claim a step that meets the same input, bit for bit, is
not done again, and every other is.  So no finding can differ from what it would be without, whatever comes meanwhile.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import ai
from ai.errors import NotAnalysable, NotShownYet
from ai.volume import ReadSlice, stack_geometry, volume_from_slices
from node.analysis.read_ahead import Ahead, Ends
from node.config.sections import Config
from node.rules import eligibility
from node.rules.acquisitions import split
from node.runtime import log

if TYPE_CHECKING:
    from ai.bundle import Bundle

MOST_PASSES = 2
"""Of one series: its region may move once, when more of the head is seen."""
LEAST_MM, EVERY_MM, AGAIN_MM = 2.0, 10.0, 40.0
"""By so much the slices must reach further until one looks again: where it was told how far, but at least this; where the
circle could not be placed, or the series was not wanted; where the region was shown."""
STILL_MM = 30.0
"""An end of the stack that has not moved while it grew by so much is one of the series: it began there."""
LEAST_FREE_BYTES = 3 << 30
"""Of memory.  Below that the claim has it all."""


class Early:
    """Belongs to the worker's one thread."""

    def __init__(self, config: Config, bundle: "Bundle", progress: Callable[[Ahead, float], None]) -> None:
        """`bundle`: what the claim will be analysed with.

        `progress` is called before anything is done for a series and often meanwhile, with the network's share (0: it has not
        begun), and may raise to end it.
        """
        self._config, self._bundle, self._progress = config, bundle, progress
        size, spacing_mm = bundle.manifest.preprocessing.size_DHW, bundle.manifest.preprocessing.spacing_mm
        self._region_mm = size[0] * spacing_mm

    def analyse(self, ahead: Ahead) -> bool:
        """Whether the series was looked at.  Raises what `progress` and `ai.analyse` raise, but not NotAnalysable.

        One that was met is left alone: it may be what ended the process before this one, and no attempt would count.
        """
        if ahead.was_met or ahead.passes >= MOST_PASSES or len(ahead.slices) == ahead.judged:
            return False
        slices = list(ahead.slices.values())
        ahead.judged = len(slices)
        _move(ahead.ends, slices)
        reach_mm = ahead.ends.reach_mm
        if reach_mm < max(ahead.next_look_mm, self._region_mm):
            return False
        self._progress(ahead, 0.0)
        ahead.next_look_mm = reach_mm + EVERY_MM
        if not self._is_wanted(ahead, slices):
            return False
        start = time.perf_counter()
        settings = self._config
        try:
            ai.analyse(
                volume_from_slices(slices, settings.ai.threads),
                self._bundle,
                settings.ai.device,
                open_ends=ahead.ends.open_by(STILL_MM),
                progress=partial(self._progress, ahead),
                remembered=ahead.remembered,
            )
        except NotShownYet as error:
            ahead.next_look_mm = reach_mm + max(LEAST_MM, error.missing_mm)
            return True
        except NotAnalysable:
            return True
        ahead.passes += 1
        ahead.next_look_mm = reach_mm + AGAIN_MM
        seconds = round(time.perf_counter() - start, 2)
        log.get().info("analysed_early", case=ahead.case, slices=len(slices), seconds=seconds)
        return True

    def _is_wanted(self, ahead: Ahead, slices: Sequence[ReadSlice]) -> bool:
        """Whether it is one acquisition, of the kind that is analysed, whose pixels no decoder needs to be asked for.

        Of a long series that takes a tenth of a second.
        """
        return (
            all(each.hu is not None for each in slices)
            and eligibility.ineligibility(ahead.headers, self._config.eligibility) is None
            and len(split(ahead.headers)) == 1
            and _free_bytes() >= LEAST_FREE_BYTES
        )


def _move(ends: Ends, slices: Sequence[ReadSlice]) -> None:
    """They are those of these slices; 0 and 0 where they are no even stack yet."""
    frames = [each.frames[0] for each in slices]
    try:
        stack = stack_geometry(
            np.array([frame.position_mm for frame in frames]), np.array([frame.orientation for frame in frames])
        )
    except NotAnalysable:
        ends.move(0.0, 0.0)
        return
    low_mm = float(stack.normal @ stack.origin_lps_mm)
    ends.move(low_mm, low_mm + stack.spacing_mm * (len(stack) - 1))


def _free_bytes() -> float:
    """What the machine can still give without swapping, and the container or unit; no bound where they do not say."""
    return min(_free_of_machine(), _free_of_group())


def _free_of_machine() -> float:
    try:
        return 1024.0 * float(_numbers(Path("/proc/meminfo"))["MemAvailable:"])
    except (OSError, KeyError, ValueError):
        return float("inf")


def _free_of_group(files: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> float:
    """Below the limit of this process's control group (version 2); what it holds of files can be let go of."""
    try:
        group = files / mine.read_text(encoding="utf-8").strip().rpartition("0::/")[2]
        limit, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        return float(limit) - float(used) + float(_numbers(group / "memory.stat")["inactive_file"])
    except (OSError, KeyError, ValueError):  # "max" is no number: no limit
        return float("inf")


def _numbers(path: Path) -> dict[str, str]:
    """The first value by name, of a file with one name a line."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0]: words[1] for words in lines if len(words) > 1}
