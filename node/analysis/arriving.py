"""What the worker does with series that still arrive: their slices are read, and they are analysed early, while nothing is due."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ai.errors import DeviceLost
from node.analysis.early import MOST_PASSES, Early
from node.analysis.interruptions import LOOK_SECONDS, GivesWay, StopRequested
from node.analysis.read_ahead import Ahead, ReadAhead
from node.config.sections import Config
from node.runtime import log
from storage.files.instances import Files
from storage.killpoints import kill_point
from storage.store import Store

if TYPE_CHECKING:
    from ai.bundle import Bundle


class Arriving:
    """Belongs to the worker's one thread."""

    def __init__(
        self,
        config: Config,
        bundle: "Bundle",
        store: Store,
        files: Files,
        is_stopping: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_stopping`: whether the worker was asked to stop.  `monotonic` in seconds."""
        self._queue, self._is_stopping, self._monotonic = store.queue, is_stopping, monotonic
        self._ahead = ReadAhead(store.settling, files, config.eligibility, monotonic)
        self._looked_at = 0.0
        self.use(config, bundle)

    def use(self, config: Config, bundle: "Bundle") -> None:
        """From now on this is what they are analysed with; nothing that another bundle answered is kept, what was read is."""
        self._early = Early(config, bundle, self._progress) if config.ai.early else None
        self._ahead.forget_answers()

    def take(self, case: int) -> Ahead:
        """What was read of the case, and answered of it; it is no longer kept here."""
        return self._ahead.take(case)

    def held(self) -> list[Ahead]:
        """What was read of each series that was being received when one last looked."""
        return self._ahead.held()

    def forget(self) -> None:
        """Nothing was read, and nothing answered: somebody else analyses what arrives."""
        self._ahead.forget()

    @property
    def has_slices(self) -> bool:
        """Whether any was read of a series that was being received when one last looked."""
        return any(each.slices for each in self.held())

    def read_some(self) -> float | None:
        """As `ReadAhead.read_some`."""
        return self._ahead.read_some()

    def analyse_early(self) -> None:
        """One series was looked at, and analysed where it shows what is wanted.  Raises DeviceLost, and nothing else."""
        if self._early is None:
            return
        for ahead in self.held():
            self._looked_at = self._monotonic()
            try:
                if self._early.analyse(ahead):
                    return
            except DeviceLost:
                raise
            except (StopRequested, GivesWay):
                ahead.judged, ahead.next_look_mm = 0, 0.0
                return
            except MemoryError:
                ahead.give_up()
                log.get().warning("early_analysis_failed", case=ahead.case, error=MemoryError.__name__)
            except Exception as error:  # noqa: BLE001  the edge: the claim will see whatever it is
                ahead.passes = MOST_PASSES
                log.get().warning("early_analysis_failed", case=ahead.case, error=type(error).__name__)

    def _progress(self, ahead: Ahead, share: float) -> None:
        """Work that is not due yet ends when a series that is due waits, or another worker has claimed this one.

        For its own only before the network has begun, or where it has answered once: else its answer will be used.
        """
        if share:
            kill_point("in_early_inference")
        if self._is_stopping():
            raise StopRequested
        not_begun = share == 0.0
        if not_begun or self._monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._monotonic()
            if self._is_due(ahead.case, None if not_begun or ahead.passes else ahead.case):
                raise GivesWay

    def _is_due(self, case: int, own: int | None) -> bool:
        """Whether a series waits, other than `own`, or this one has a claim; or the database cannot say: it is asked again soon."""
        try:
            return self._queue.other_waits(own) or self._queue.has_left(case)
        except Exception as error:  # noqa: BLE001  the edge: whatever the database raises
            log.get().warning("read_ahead_failed", error=type(error).__name__)
            return True
