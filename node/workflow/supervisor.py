"""`willis serve`: settles and delivers, and supervises receiver, worker and pages, each a process of its own."""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from node.audit.messages import Activity
from node.audit.trail import open_trail
from node.config.files import files_of
from node.config.reloading import Reloading, never
from node.config.sections import Config
from node.net.certificates import held_until
from node.net.tls import hold_anew
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from node.runtime.job import LATE_AFTER_SECONDS, Job, Progress, scheduler_of
from node.runtime.listener import Listener, wake_process
from node.runtime.memory import FEW_HEAPS
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, Wakeup, wake
from node.runtime.processes import CONFIG_ERROR, NO_SPINNING, RESTARTS, Child, worker_name
from node.runtime.service_manager import VARIABLES, ServiceManager
from node.workflow import (
    canary,
    commitments,
    delivery,
    drift,
    migration,
    notifications,
    peer_checks,
    recovery,
    retention,
    retrieval,
    reviews,
    settling,
    uploads,
)
from node.workflow.context import Context
from node.workflow.health import room_in
from node.workflow.namesakes import require_own_name
from node.workflow.own_clock import ClockDiffers, require_clock_of_server
from node.workflow.service import Service
from storage.database.engine import named
from storage.errors import DatabaseAway
from storage.queries.health import processes
from storage.store import Store

ALARM_SLACK_SECONDS = 5
"""The kernel's alarm comes first, and the lease ends last."""
STOP_SLACK_SECONDS = 10
"""Beyond what a stop may take, before the service manager kills what is left."""


class Supervisor:
    """The node: its child processes, its jobs, one scheduler."""

    def __init__(self, config: Config, arguments: list[str], read: Callable[[], Config] | None = None) -> None:
        """`arguments` are those with which a child finds the same configuration, and `read` does, when it is to reload."""
        self._reloading = Reloading(threading.Event(), read) if read else never()
        self._is_to_reload = False
        self._config = config
        self._held = held_until(config.node.tls)
        directory = config.storage.directory
        self._files = files_of(config)
        migration.migrate_by_itself(config, utc_now)
        self._store = Store.open(config.storage.url, self._files.folder)
        if config.storage.database_url:
            _require_place(self._store, config.storage.url)
        self._trail = open_trail(config)
        self._context = Context(
            config, self._store, self._files, lambda: wake(directory, WORKER_PROCESS), trail=self._trail
        )
        self._heartbeat = Heartbeat(self._store.processes, "serve", directory, self._details)
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        if config.ai.threads:
            environment["OMP_NUM_THREADS"] = str(config.ai.threads)
        few_heaps = FEW_HEAPS | environment  # 30 MiB less of the pages
        no_spinning = NO_SPINNING | environment
        self._children = [Child("receive", arguments, few_heaps), Child("work", arguments, no_spinning)]
        if config.web.enabled:
            self._children.append(Child("web", [*arguments, "--as-child"], few_heaps))
        self._stopping = threading.Event()
        self._drained_at: float | None = None
        self._is_hurried = False
        self._jobs = _jobs_of(self._context, self._rescue)
        self._listener = Listener(
            self._store.listening, lambda heard: wake_process(directory, heard, self._context.random)
        )
        self._service = Service(config, self._store.transactions.reading_plainly, ServiceManager())
        self._progress = Progress("supervise", LATE_AFTER_SECONDS)

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)
        self._record(Activity.START)
        self._heartbeat.start()
        retrieval.resume(self._context)
        canary.resume(self._context)
        scheduler, threads = scheduler_of(self._jobs), [job.start() for job in self._jobs]
        for job in self._jobs:
            job.wake()  # for what the last run left
        with Wakeup(self._config.storage.directory, NODE_PROCESS) as wakeup:
            scheduler.start()
            self._listener.start()
            status = self._supervise(wakeup)
            self._listener.stop()
            scheduler.shutdown(wait=False)
        self._service.stopping(self._config.node.stop_seconds + STOP_SLACK_SECONDS)
        deadline = time.monotonic() + self._config.node.stop_seconds
        self._context.stopping.set()
        for job in self._jobs:
            job.stop()
        self._stop_children(deadline)
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        self._give_back_begun()
        self._heartbeat.stop()
        self._store.close()
        self._record(Activity.STOP)
        self._trail.close()
        log.get().info("node_stopped", exit_code=status)
        return status

    def _details(self) -> dict[str, Any]:
        """For its heartbeat: when each job last got on, and what room there is on this host."""
        free_bytes, error = room_in(self._config.storage.directory)
        jobs = {each.name: each.as_details() for each in (self._progress, *(job.progress for job in self._jobs))}
        details = {"jobs": jobs, "free_bytes": free_bytes, "disk_error": error, "drains": self._stopping.is_set()}
        return {**details, **self._held, **self._reloading.as_details(), **self._trail.as_details()}

    def _supervise(self, wakeup: Wakeup) -> int:
        while not self._has_drained():
            self._progress.made()
            self._service.look(self._children)
            for child in self._children:
                if not self._look_after(child):
                    return CONFIG_ERROR
            if self._is_to_reload:
                self._is_to_reload = False
                self._config = self._context.config = self._reloading(self._config, self._take)
                self._heartbeat.beat()
            if wakeup.wait(0.2):
                for job in self._jobs:
                    if job.on_wakeup:
                        job.wake()
        return 0

    def _has_drained(self) -> bool:
        """Whether it was asked to stop, and so long ago that a balancer has sent new associations elsewhere since."""
        if not self._stopping.is_set():
            return False
        if self._drained_at is None:
            settings = self._config.node
            self._drained_at = time.monotonic() + settings.drain_seconds
            if settings.drain_seconds:
                self._service.stopping(settings.drain_seconds + settings.stop_seconds + STOP_SLACK_SECONDS)
                self._heartbeat.beat()
                log.get().info("node_drains", seconds=settings.drain_seconds)
        return self._is_hurried or time.monotonic() >= self._drained_at

    def _take(self, config: Config) -> str:
        """Our certificates are those of the files, and the children are asked to take what is theirs.

        Raises ConfigError where the certificates cannot be used; then all stays as it is.
        """
        if config.node.tls is not None:
            held = held_until(config.node.tls)
            hold_anew(config.node.tls)
            self._held = held
        for child in self._children:
            child.reload()
        return "configuration read again"

    def _look_after(self, child: Child) -> bool:
        """The child runs, or will be started again after a pause; False when that will not help."""
        if child.process is None:
            if time.monotonic() >= child.start_at:
                self._start(child)
            return True
        code = child.process.poll()
        if code is None:
            return True
        log.get().error("process_ended", process=child.role, exit_code=code)
        self._give_back(child.process.pid, refund=False)
        return child.ended(code)

    def _start(self, child: Child) -> None:
        """The child runs, and holds nothing yet: what is signed with its process id, a process that died had claimed."""
        try:
            child.start()
        except OSError as error:  # the host lacks memory, processes or descriptors: the node outlives that
            log.get().error("process_not_started", process=child.role, error=type(error).__name__)
            child.pause()
            return
        if child.process is not None:
            self._give_back(child.process.pid, refund=False)

    def _rescue(self) -> None:
        self._end_stuck()
        recovery.rescue(self._context)

    def _end_stuck(self) -> None:
        """A child that analyses for longer than it may is killed, should the kernel's alarm not have reached it."""
        longest = timedelta(seconds=self._config.ai.time_limit_seconds + ALARM_SLACK_SECONDS)
        stuck = self._store.queue.claimants(utc_now() - longest)
        for process in [child.process for child in self._children if child.process is not None]:
            if worker_name(process.pid) in stuck:
                log.get().error("process_stuck", pid=process.pid)
                process.kill()

    def _give_back(self, pid: int, refund: bool) -> None:
        """What the process held is ready again; where the database is away, `rescue` does it later."""
        try:
            if self._store.queue.give_back(worker_name(pid), refund):
                wake(self._config.storage.directory, WORKER_PROCESS)
        except Exception as error:  # noqa: BLE001  the edge: the node outlives its database
            log.get().error("give_back_failed", error=type(error).__name__)

    def _give_back_begun(self) -> None:
        """What a job still holds that was not waited for is due at once, and not after its lease."""
        try:
            self._context.give_back()
        except Exception as error:  # noqa: BLE001  the edge: where the database is away, the leases end by themselves
            log.get().error("give_back_failed", error=type(error).__name__)

    def _stop_children(self, deadline: float) -> None:
        """Every child has ended, killed if need be, and what it held is given back."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._give_back(process.pid, refund=True)

    def _record(self, what: Activity) -> None:
        self._trail.record(lambda reporter: reporter.activity(what, os.getpid(), utc_now()))

    def _on_hangup(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_to_reload = True  # no Event: this thread may hold its lock

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_hurried = self._stopping.is_set()
        self._stopping.set()


def _jobs_of(context: Context, rescue: Callable[[], None]) -> list[Job]:
    """The jobs of this process; what nobody wants has none."""
    config = context.config
    one_attempt = context.lease.total_seconds() + LATE_AFTER_SECONDS / 4
    one_retrieval = config.completion.retrieve_seconds + retrieval.SLACK_SECONDS + one_attempt
    jobs = [
        #   name          seconds on_wakeup
        Job("settle",         0.5, True,  lambda: settling.settle(context), one_attempt),
        Job("deliver",        1.0, True,  lambda: delivery.deliver(context), one_attempt),
        Job("commitments",    1.0, True,  lambda: (commitments.ask(context), commitments.tell(context)), one_attempt),
        Job("retrieve",       1.0, False, lambda: retrieval.retrieve(context), one_retrieval),
        Job("renew",          5.0, False, context.renew),
        Job("rescue",        10.0, False, rescue),
        Job("reviews",       10.0, False, lambda: reviews.send(context)),
        Job("retain",        60.0, False, lambda: retention.retain(context)),
    ]  # fmt: skip
    if config.storage.objects:
        uploader = uploads.Uploader(context)
        jobs.append(Job("upload", 1.0, True, uploader.run, uploads.LEASE.total_seconds()))
        jobs.append(Job("evict", 60.0, False, lambda: uploads.evict(context)))
    if config.notifications:
        one_message = notifications.lease(context).total_seconds() + LATE_AFTER_SECONDS / 4
        jobs.append(Job("notify", 2.0, True, lambda: notifications.tell(context), one_message))
        jobs.append(Job("notify_health", 5.0, False, lambda: notifications.notice_health(context)))
    else:  # what was still to be told of when they were taken out of the configuration becomes a dead letter
        jobs.append(Job("notify", 60.0, False, lambda: notifications.send(context)))
    if config.canary.minutes:
        jobs.append(Job("canary", 2.0, False, lambda: canary.look_after(context), one_attempt))
    if config.drift.baseline_weeks:
        jobs.append(Job("drift", 3600.0, False, lambda: drift.look(context)))
    if config.node.echo_seconds:
        jobs.append(Job("peers", config.node.echo_seconds, False, lambda: peer_checks.ask(context)))
    return jobs


def serve(config: Config, arguments: list[str], read: Callable[[], Config] | None = None) -> int:
    """Runs the node; returns the exit status: 2 when a child found at its first start that it cannot run."""
    return _waited_for(lambda: Supervisor(config, arguments, read)).run()


def _require_place(store: Store, url: str) -> None:
    """This host has the time of the database at `url`, and its name there for itself.

    Raises ClockDiffers, DatabaseAway and ConfigError; then the store is closed.
    """
    try:
        with named(url):
            require_clock_of_server(store)
            require_own_name(lambda: processes(store.transactions.reading_plainly))
    except Exception:
        store.close()
        raise


def _waited_for(make: Callable[[], Supervisor], sleep: Callable[[float], None] = time.sleep) -> Supervisor:
    """The node, once its database is there and has its time: after a power failure both may come later than we do."""
    for attempts in itertools.count(1):
        try:
            return make()
        except (DatabaseAway, ClockDiffers) as error:
            seconds = RESTARTS.after(attempts)
            event = "database_away" if isinstance(error, DatabaseAway) else "clock_differs"
            log.get().error(event, error=str(error), next_attempt_seconds=seconds)
            ServiceManager().status(f"waits for its database: {error}")
            sleep(seconds)
    raise AssertionError  # the count never ends
