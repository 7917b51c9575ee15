"""The database gets the tables of this version while no node works on it."""

import time
from collections.abc import Callable
from datetime import datetime

from node.config.sections import Config
from node.errors import Unavailable
from node.rules.health import is_alive
from node.rules.health_facts import ProcessFact
from node.runtime import log
from node.runtime.processes import has_died
from node.workflow.namesakes import require_own_name
from storage import migration
from storage.migration import Plan


def plan(config: Config, now: datetime | None) -> Plan:
    """What there is to do; changes nothing.  `now`: as `storage.migration.plan` takes it.  Raises DatabaseUnusable."""
    return migration.plan(config.storage.url, config.storage.directory, now)


def migrate(
    config: Config,
    planned: Plan,
    clock: Callable[[], datetime],
    with_copy: bool = True,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """What was planned is done.  Raises Unavailable where a node runs, ConfigError where one does on another host of our name,
    and what `storage.migration.migrate` raises.
    """
    url = config.storage.url
    if planned.found is not None and planned.steps:
        if config.storage.database_url:  # whose processes are not here, but beat on, has not died
            require_own_name(lambda: migration.processes_of(url), wait)
        for process in migration.processes_of(url):
            is_gone = has_died(f"{process.host}:{process.pid}")
            fact = ProcessFact(process.role, process.host, process.pid, process.beat_at, is_gone, process.details)
            if is_alive(fact, clock()):
                where = f"`willis {process.role}`, pid {process.pid} on {process.host}"
                raise Unavailable(f"a node of another version works on the database ({where}): stop it first")
    migration.migrate(url, planned, with_copy)


def migrate_by_itself(config: Config, clock: Callable[[], datetime]) -> None:
    """With [storage] migrate = "by_itself" an older database is migrated, and the log says so; else nothing is done."""
    if config.storage.migrate != "by_itself":
        return
    planned = plan(config, None)
    if planned.found is None or not planned.steps:
        return
    migrate(config, planned, clock)
    log.get().warning("database_migrated", count=len(planned.steps), where=str(planned.copy))
