"""The node as a service: systemd knows when it receives, that it is not stuck, how it is, and that it ends."""

import os
import time
from collections.abc import Iterable, Iterator

from node.config.sections import Config
from node.rules.health import Health, is_alive, judge, late_jobs
from node.rules.health_facts import Facts
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.processes import Child
from node.runtime.service_manager import ServiceManager
from node.workflow.health import facts_of
from storage.database.plain import Reading

START_SECONDS = 120.0
"""A child that was started so lately need not have been heard of: a slow machine reads torch for long."""
UNREADY_SECONDS, CALM_SECONDS = 1.0, 15.0
"""How often it is looked whether the node receives; how often how it is, where no watchdog wants to know it more often."""


class Service:
    """What systemd hears of the node."""

    def __init__(self, config: Config, reading: Reading, manager: ServiceManager) -> None:
        """`reading` is of the node's database, which may be away."""
        self._config, self._reading, self._manager = config, reading, manager
        self._is_ready = False
        self._next = 0.0
        wanted = manager.watchdog_seconds
        self._seconds = CALM_SECONDS if wanted is None else min(CALM_SECONDS, wanted / 4)

    def look(self, children: Iterable[Child]) -> None:
        """Where it is time for it: systemd heard how the node is, and that it is not stuck, unless it is."""
        if not self._manager.listens or time.monotonic() < self._next:
            return
        facts = facts_of(self._config, utc_now(), self._reading)
        stuck = tuple(stuck_of(facts, children))
        if not self._is_ready and any(each.role == "receive" and is_alive(each, facts.now) for each in facts.processes):
            self._manager.ready()
            self._is_ready = True
        if stuck:
            log.get().error("watchdog_not_fed", reason=", ".join(stuck))
        else:
            self._manager.watchdog()
        self._manager.status(status_of(judge(facts), stuck))
        self._next = time.monotonic() + (self._seconds if self._is_ready else UNREADY_SECONDS)

    def stopping(self, within_seconds: float) -> None:
        """Systemd knows that the node ends as it should, and how long that may take."""
        self._manager.stopping(within_seconds)


def stuck_of(facts: Facts, children: Iterable[Child]) -> Iterator[str]:
    """What only starting the node anew can help: a child that runs and is silent, a job of ours that stands still.

    Where the database is away, or takes nothing of ours either, nothing is known of them, and starting anew would not
    bring it back; unless it is one of us who has locked it.
    """
    running = [each for each in children if each.process is not None and each.process.poll() is None]
    pids = {os.getpid(), *(each.process.pid for each in running if each.process is not None)}
    alive = {each.pid: each for each in facts.processes if each.host == facts.host and is_alive(each, facts.now)}
    if facts.locked_by not in pids and (facts.database_error or os.getpid() not in alive):
        return
    for child in running:
        assert child.process is not None
        if time.monotonic() - child.started_at > START_SECONDS and child.process.pid not in alive:
            yield f"the process `willis {child.role}` is silent"
    if ours := alive.get(os.getpid()):
        yield from (f"the job {name} stands still" for name, _ in late_jobs(ours, facts.now))


def status_of(health: Health, stuck: Iterable[str]) -> str:
    """In a line."""
    worst = [*stuck, *(reason.message for reason in health.reasons)]
    return f"{health.verdict}: {worst[0]}" if worst else health.verdict.value
