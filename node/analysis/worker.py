"""The analysis process: torch lives here and nowhere else at run time.  A crash or a hang costs one attempt.

The kernel ends an analysis that takes too long: the alarm's default action kills the process, whatever holds the
interpreter.  A process without memory, or whose GPU no longer answers, ends itself: nothing that it would still do can be
relied upon, not even giving back its claim.  The supervisor starts the next one and gives back what this one held.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType
from typing import Any

import ai.predict
from ai import heap
from ai.bundle import Bundle
from ai.errors import DeviceLost
from ai.volume import decoders
from node.analysis.analysis import AnalysisContext, analyse, order_of, record
from node.analysis.arriving import Arriving
from node.analysis.bundle import algorithm_of, configured_bundle, model_name
from node.analysis.device import configured_device
from node.analysis.engine import Ended, Engine, How
from node.analysis.interruptions import LOOK_SECONDS, GivesWay, StopRequested
from node.analysis.shadow import answer_apart, claim_next, shadow_of
from node.config.files import files_of
from node.config.reloading import Reloading, never
from node.config.sections import Config
from node.results.document import Algorithm
from node.results.sr import read_tables
from node.runtime import log
from node.runtime.backoff import Backoff
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from node.runtime.job import Job, scheduler_of, still_working
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, Wakeup, wake
from node.runtime.processes import DEVICE_LOST, LEASE_SLACK_SECONDS, NO_MEMORY, worker_name
from storage.errors import ObjectsAway, StorageFull
from storage.killpoints import kill_point
from storage.records import Claim
from storage.store import Store

FULL_DISK = STORE_AWAY = Backoff(first_seconds=2.0, longest_seconds=60.0)
"""The pauses while the disk is full, or the object store away."""
PERIOD_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 2 * PERIOD_SECONDS
"""Between two looks at the queue, should no wakeup come."""


@dataclass(frozen=True)
class GiveBack:
    """How the claim of an attempt that has ended is given back, without `token` all claims; see `Queue.give_back`."""

    refund: bool
    token: str = ""
    why: str = ""


class Worker:
    """Claims and analyses until it is asked to stop."""

    def __init__(
        self,
        config: Config,
        monotonic: Callable[[], float] = time.monotonic,
        reloading: Reloading | None = None,
    ) -> None:
        """`monotonic` in seconds.  Raises ConfigError when the bundle or the device cannot be used."""
        self._config = config
        self._device = configured_device(config)
        bundle = configured_bundle(config)
        self._name = worker_name(os.getpid())
        files = files_of(config)
        self._store = Store.open(config.storage.url, files.folder)
        self._stopping = threading.Event()
        self._monotonic = monotonic
        self._resume_at, self._times_full = 0.0, 0
        self._ask_store_at, self._times_away = 0.0, 0
        self._to_give_back: GiveBack | None = None
        self._somebody_waits: Callable[[], bool] | None = None
        self._looked_at = 0.0
        self._keeps_heap = False
        self._heartbeat: Heartbeat | None = None
        self._shadow = shadow_of(config, self._store.models)
        self._reloading = reloading or never()
        self._arriving = Arriving(config, bundle, self._store, files, self._stopping.is_set, monotonic)
        algorithm, ahead = self._algorithm_of(bundle), self._arriving.take
        self._context = AnalysisContext(
            config, files, bundle, algorithm, utc_now, self._progress, ahead, store=self._store
        )
        self._news = threading.Event()
        self._engine: Engine | None = None
        self._drains, self._refused = False, set[int]()
        if config.ai.engine != "local":
            self._engine = Engine(config, model_name(bundle), self._news.set, monotonic)
        longest_seconds = config.ai.time_limit_seconds + 2 * LEASE_SLACK_SECONDS
        self._job = Job("analyse", PERIOD_SECONDS, True, self._while_the_device_answers, longest_seconds)

    def run(self) -> None:
        """Works until SIGTERM; what it holds then is given back without counting the attempt."""
        signal.signal(signal.SIGTERM, self._on_term)
        scheduler = scheduler_of([self._job])
        scheduler.start()
        read_tables()
        decoders(self._config.ai.threads)
        directory = self._config.storage.directory
        with Wakeup(directory, WORKER_PROCESS) as wakeup:
            listener = threading.Thread(target=self._listen, args=(wakeup,))
            listener.start()
            log.get().info("worker_started", pid=os.getpid(), model=self._context.algorithm.version)
            self._heartbeat = Heartbeat(self._store.processes, "work", directory, self._details)
            self._heartbeat.start()
            if self._engine:
                self._engine.start()
            self._job.wake()
            self._job.run()
            if self._engine:
                self._engine.stop()
            listener.join()
            self._heartbeat.stop()
        scheduler.shutdown(wait=False)
        self._store.queue.give_back(self._name, refund=True)
        self._store.close()

    def _details(self) -> dict[str, Any]:
        """For its heartbeat: the model that it has loaded, on which device, and when it last got on."""
        jobs = {self._job.name: self._job.progress.as_details()}
        shadow = {"shadow": self._shadow.version, "shadow_trouble": self._shadow.trouble}
        return {
            "model": self._context.algorithm.version,
            "device": self._device,
            "jobs": jobs,
            **shadow,
            **({"engine": self._engine.details} if self._engine else {}),
            **self._reloading.as_details(),
        }

    def _on_term(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()  # nobody waits for it, and so this thread cannot hold its lock; `_listen` does the rest

    def _progress(self, _share: float) -> None:
        kill_point("in_inference")
        if self._stopping.is_set():
            raise StopRequested
        if self._somebody_waits and self._monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = self._monotonic()
            if self._somebody_waits():
                raise GivesWay

    def _while_the_device_answers(self) -> None:
        """As `_work_and_read_ahead`.  A process whose GPU no longer answers would fail every further attempt of every series."""
        try:
            self._work_and_read_ahead()
        except DeviceLost as error:
            log.get().error("device_lost", device=self._device, error=str(error))
            os._exit(DEVICE_LOST)

    def _work_and_read_ahead(self) -> None:
        """As `_work`; then what arrives is read and analysed until it is woken again, or would have to look without a wakeup.

        Where nothing arrives either, the second bundle answers one series; then all begins anew.  What the engine will
        analyse is not read here.
        """
        try:
            self._work()
        finally:
            self._keep_heap(self._arriving.has_slices)
        self._work_in_the_shadow()
        if self._engine and self._engine.serves:
            self._arriving.forget()
            self._keep_heap(False)
            return
        until = self._monotonic() + LONGEST_PAUSE_SECONDS
        seconds: float | None = 0.0
        while seconds is not None and self._monotonic() < until and not self._job.woken_within(seconds):
            signal.setitimer(signal.ITIMER_REAL, self._config.ai.time_limit_seconds)
            seconds = self._arriving.read_some()
            self._keep_heap(self._arriving.has_slices)
            if seconds is not None and self._monotonic() >= self._resume_at:
                self._arriving.analyse_early()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _keep_heap(self, busy: bool) -> None:
        """From a series' first slices to its report, memory that one step frees is the next one's; then the kernel has it back.

        What is free at a heartbeat's minute goes back meanwhile.
        """
        if busy != self._keeps_heap:
            self._keeps_heap = busy
            (heap.keep if busy else heap.let_go)()

    def _work(self) -> None:
        """Nothing waits for analysis any longer, or the worker is asked to stop, or the disk is full.

        Whatever the database raises leaves the claim with this worker; the next run gives it back first.
        """
        self._reload()
        while not self._stopping.is_set() and self._monotonic() >= self._resume_at:
            still_working()
            signal.setitimer(signal.ITIMER_REAL, self._config.ai.time_limit_seconds)
            try:
                if not self._next():
                    return
            except StopRequested:
                return
            except MemoryError:
                os._exit(NO_MEMORY)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            self._reload()

    def _next(self) -> bool:
        """One more series was analysed or placed, or an attempt has failed; False when none waits."""
        settings, queue, engine = self._config.ai, self._store.queue, self._engine
        self._give_back()  # of an attempt that failed: its error, and the datasets that hung from it, are gone by now
        if engine and (ended := engine.ended()):
            self._end(ended)
            return True
        lease = timedelta(seconds=settings.time_limit_seconds + LEASE_SLACK_SECONDS)
        queue.lies_here_only = self._monotonic() < self._ask_store_at
        who, stat = (self._name, utc_now(), lease, settings.attempts), settings.stat_calling_ae
        claim = None
        if engine is None or self._may_claim(engine):
            full = engine is not None and engine.is_full
            claim = queue.claim_exhausted(*who) if full else queue.claim_next(*who, stat)
        if claim is None:
            return engine is not None and self._wait_for_engine(engine)
        log.get().info("claimed", case=claim.series.id, attempt=claim.series.attempts)
        self._attempt(claim, lambda: self._place_or_analyse(claim))
        return True

    def _may_claim(self, engine: Engine) -> bool:
        """Not while the engine has tasks of ours and the next series is for here: their claims would age meanwhile."""
        self._drains = self._drains and engine.has_any
        return not engine.has_any or (engine.serves and not self._drains)

    def _is_for_engine(self, engine: Engine, claim: Claim) -> bool:
        """Whether it is to be placed.  The last attempt is the node's, and so is what a worker of the engine refused."""
        is_last = claim.exhausted or claim.series.attempts >= self._config.ai.attempts
        return engine.serves and not is_last and claim.series.id not in self._refused

    def _place_or_analyse(self, claim: Claim) -> None:
        """The engine has it, or it was analysed, or it is given back until the engine has none of ours any longer."""
        engine, context, version = self._engine, self._context, self._context.algorithm.version
        if engine and self._is_for_engine(engine, claim) and engine.place(claim, order_of(context, claim), version):
            return
        if engine and engine.has_any:
            self._drains, self._to_give_back = True, GiveBack(True, claim.token)
            return
        self._refused.discard(claim.series.id)
        self._keep_heap(True)
        analyse(context, claim)

    def _end(self, ended: Ended) -> None:
        """What the engine answered is recorded; all else is given back, and what it refused is analysed here."""
        claim, answer = ended.claim, ended.answer
        if answer is not None:
            self._attempt(claim, lambda: record(self._context, claim, answer))
        elif ended.how is How.REFUSED:
            log.get().warning("engine_refused", case=claim.series.id, reason=ended.why)
            self._refused.add(claim.series.id)
            self._to_give_back = GiveBack(True, claim.token)
        else:
            self._to_give_back = GiveBack(ended.how is How.LOST, claim.token)
            log.get().error("attempt_failed", case=claim.series.id, error=ended.why)

    def _wait_for_engine(self, engine: Engine) -> bool:
        """There is news of it, or of the queue; False when nothing is to be waited for."""
        until = self._monotonic() + LONGEST_PAUSE_SECONDS
        while engine.has_any or (engine.is_full and self._store.queue.other_waits(None)):
            if self._news.wait(LOOK_SECONDS) or self._stopping.is_set() or self._monotonic() > until:
                self._news.clear()
                return True
        return False

    def _attempt(self, claim: Claim, run: Callable[[], object]) -> None:
        """`run` was called; whatever it raises costs this attempt, or less, and nothing else.

        Raises StopRequested, MemoryError and DeviceLost.
        """
        queue = self._store.queue
        self._somebody_waits = (lambda: queue.other_waits(None)) if claim.series.canary else None
        self._looked_at = self._monotonic()
        try:
            if not claim.series.canary:
                self._take_name()
            run()
            self._times_full = self._times_away = 0
        except GivesWay:
            self._to_give_back = GiveBack(True, claim.token)
            log.get().info("canary_gives_way", case=claim.series.id)
        except (StopRequested, MemoryError, DeviceLost):
            raise
        except StorageFull as error:
            self._wait_for_room(claim, str(error))
        except ObjectsAway as error:
            self._wait_for_store(claim, str(error))
        except Exception as error:  # noqa: BLE001  the edge: a failed analysis costs this attempt and nothing else
            self._to_give_back = GiveBack(False, claim.token)
            log.get().error("attempt_failed", case=claim.series.id, error=type(error).__name__)
        wake(self._config.storage.directory, NODE_PROCESS)

    def _work_in_the_shadow(self) -> None:
        """The second bundle has answered one more reported series, unless somebody waits or comes meanwhile."""
        if self._stopping.is_set() or self._monotonic() < self._resume_at:
            return
        lease = timedelta(seconds=self._config.ai.time_limit_seconds + LEASE_SLACK_SECONDS)
        claim = claim_next(self._context, self._shadow, lease)
        if claim is None:
            return
        still_working()
        seconds = self._config.ai.time_limit_seconds
        self._shadow = answer_apart(self._context, self._shadow, claim, self._is_wanted, seconds)
        self._job.wake()

    def _is_wanted(self) -> bool:
        """Whether there is something better to do than to answer what is reported."""
        return self._stopping.is_set() or self._reloading.asked.is_set() or self._store.shadows.somebody_waits()

    def _wait_for_room(self, claim: Claim, error: str) -> None:
        """No attempt counts, not of what the engine has either; cases say why they wait; nothing is analysed for a while.

        The database may be on that disk: what it does not take back now, it does before the next claim.
        """
        if self._engine:
            self._engine.forget()
        self._to_give_back = GiveBack(True, why=error)
        self._times_full += 1
        seconds = FULL_DISK.after(self._times_full)
        self._resume_at = self._monotonic() + seconds
        free_bytes = self._context.files.free_bytes()
        log.get().error("disk_full", case=claim.series.id, free_bytes=free_bytes, next_attempt_seconds=seconds)
        self._give_back()

    def _wait_for_store(self, claim: Claim, error: str) -> None:
        """The attempt does not count, the case says why it waits, and for a while only what lies here is analysed."""
        self._to_give_back = GiveBack(True, claim.token, error)
        self._times_away += 1
        seconds = STORE_AWAY.after(self._times_away)
        self._ask_store_at = self._monotonic() + seconds
        log.get().error("objects_away", case=claim.series.id, error=error, next_attempt_seconds=seconds)

    def _give_back(self) -> None:
        """What an attempt that has ended left held is ready again.  Whatever the database raises, it is owed still."""
        if owed := self._to_give_back:
            self._store.queue.give_back(self._name, owed.refund, owed.why, owed.token)
            self._to_give_back = None
            wake(self._config.storage.directory, NODE_PROCESS)

    def _reload(self) -> None:
        """Between two series: the next one is analysed with the bundle that is configured now, where that can be used."""
        if not self._reloading.asked.is_set():
            return
        self._config = self._reloading(self._config, self._take)
        if self._heartbeat is not None:
            self._heartbeat.beat()

    def _take(self, config: Config) -> str:
        """The bundles of this configuration are loaded and warm.  Raises ConfigError, changing nothing."""
        bundle = configured_bundle(config)
        ai.predict.warm(bundle, config.ai.device)
        context = replace(self._context, config=config, bundle=bundle, algorithm=self._algorithm_of(bundle))
        self._context, self._shadow = context, shadow_of(config, self._store.models)
        if self._engine:
            self._engine.model = model_name(bundle)
        self._arriving.use(config, bundle)
        second = f", second {self._shadow.version}" if self._shadow.version else ""
        return f"model {context.algorithm.version}{second}"

    def _algorithm_of(self, bundle: Bundle) -> Algorithm:
        manifest = bundle.manifest
        return algorithm_of(manifest, self._store.models.name_of(manifest.version, bundle.sha256))

    def _take_name(self) -> None:
        """The bundle has its name for good, as what it reports has it."""
        bundle, algorithm = self._context.bundle, self._context.algorithm
        name = self._store.models.take_name(bundle.manifest.version, bundle.sha256)
        if name != algorithm.version:  # another one of its version has reported since it was loaded
            self._context = replace(self._context, algorithm=algorithm_of(bundle.manifest, name))

    def _listen(self, wakeup: Wakeup) -> None:
        try:
            while not self._stopping.is_set():
                if wakeup.wait(LOOK_SECONDS) or self._reloading.asked.is_set():
                    self._job.wake()
                    self._news.set()
        finally:
            self._job.stop()
            self._news.set()
