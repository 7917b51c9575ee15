"""`willis serve`: settles and delivers, and supervises the receiver and the worker, each a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from types import FrameType

from apscheduler.schedulers.background import BackgroundScheduler
from pynetdicom.dul import DULServiceProvider

from node.audit.messages import Activity
from node.audit.trail import open_trail
from node.config.sections import Config
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.job import Job
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, Wakeup, wake
from node.runtime.processes import CONFIG_ERROR, Child, worker_name
from node.workflow import commitments, delivery, recovery, retention, retrieval, settling
from node.workflow.context import Context
from storage.files.instances import Files
from storage.store import Store

PERIODS_SECONDS = (0.5, 1.0, 1.0, 10.0, 60.0, 1.0)
"""Of settle, deliver, commit, rescue, retain and retrieve."""
ALARM_SLACK_SECONDS = 5
"""The kernel's alarm comes first, and the lease ends last."""


class Supervisor:
    """The node: two children, six beats, one metronome."""

    def __init__(self, config: Config, arguments: list[str]) -> None:
        """`arguments` are those with which a child finds the same configuration."""
        self._config = config
        directory = config.storage.directory
        self._files = Files(directory)
        self._store = Store.open(config.storage.url)
        self._trail = open_trail(config)
        self._desk = Context(
            config, self._store, self._files, lambda: wake(directory, WORKER_PROCESS), trail=self._trail
        )
        environment = dict(os.environ)
        if config.ai.threads:
            environment["OMP_NUM_THREADS"] = str(config.ai.threads)
        self._children = [Child(role, arguments, environment) for role in ("receive", "work")]
        self._stopping = threading.Event()
        self._beats = [
            Job("settle", lambda: settling.settle(self._desk), 2 * PERIODS_SECONDS[0]),
            Job("deliver", lambda: delivery.deliver(self._desk), 2 * PERIODS_SECONDS[1]),
            Job("commit", lambda: (commitments.ask(self._desk), commitments.tell(self._desk)), 2 * PERIODS_SECONDS[2]),
            Job("rescue", self._rescue, 2 * PERIODS_SECONDS[3]),
            Job("retain", lambda: retention.retain(self._desk), 2 * PERIODS_SECONDS[4]),
            Job("retrieve", lambda: retrieval.retrieve(self._desk), 2 * PERIODS_SECONDS[5]),
        ]

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        self._record(Activity.START)
        retrieval.resume(self._desk)
        scheduler, threads = BackgroundScheduler(), list[threading.Thread]()
        for beat, seconds in zip(self._beats, PERIODS_SECONDS, strict=True):
            scheduler.add_job(beat.wake, "interval", seconds=seconds, coalesce=True, max_instances=1)
            threads.append(beat.start())
            beat.wake()  # for what the last run left
        with Wakeup(self._config.storage.directory, NODE_PROCESS) as bell:
            scheduler.start()
            status = self._supervise(bell)
            scheduler.shutdown(wait=False)
        deadline = time.monotonic() + self._config.node.stop_seconds
        self._desk.stopping.set()
        for beat in self._beats:
            beat.stop()
        self._stop_children(deadline)
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        self._give_back_begun()
        self._store.close()
        self._record(Activity.STOP)
        self._trail.close()
        log.get().info("node_stopped", exit_code=status)
        return status

    def _supervise(self, bell: Wakeup) -> int:
        while not self._stopping.is_set():
            for child in self._children:
                if not self._look_after(child):
                    return CONFIG_ERROR
            if bell.wait(0.2):
                for beat in self._beats[:3]:
                    beat.wake()
        return 0

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
        recovery.rescue(self._desk)

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
        """What a beat still holds that was not waited for is due at once, and not after its lease."""
        try:
            self._desk.give_back()
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

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()


def serve(config: Config, arguments: list[str]) -> int:
    """Runs the node; returns the exit status: 2 when a child found at its first start that it cannot run."""
    status = Supervisor(config, arguments).run()
    if any(isinstance(thread, DULServiceProvider) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # pynetdicom's threads would keep the process until their peer answers or times out
    return status
