"""The facts of the node's health, gathered where they are: in the database, on the disk, in the certificates' files.

Changes nothing, and needs no part of the node that may be what is ill.
"""

import os
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from node.config.sections import Config, Tls
from node.errors import ConfigError, safe_message
from node.net.certificates import read_certificates
from node.rules.canary import overdue
from node.rules.health import Health, is_alive, judge
from node.rules.health_facts import OWN_CERTIFICATE, CertificateFact, Facts, PeerFact, ProcessFact
from node.runtime.processes import has_died
from storage.database import revision
from storage.database.inspection import inspect_database
from storage.database.plain import Reading
from storage.database.probing import require_no_lock, require_sqlite_file
from storage.errors import DatabaseLocked, DatabaseUnusable
from storage.queries import health as asked
from storage.reader import open_reading
from storage.running import CanaryEnd, PeerAnswer, Process, ResultsGivenUp, UploadsWaiting, Waiting

GIVEN_UP_LATELY = timedelta(days=7)
"""So long a result of a storage commitment that was given up is spoken of; then the peer will not ask for it again."""

SILENT = timedelta(seconds=5)
"""Where no process has said anything for so long, though each does every 3 s, it is asked whether any can."""


def health_of(config: Config, now: datetime) -> Health:
    """How the node of this configuration is."""
    return judge(facts_of(config, now))


def facts_of(config: Config, now: datetime, known: Reading | None = None, of_all_hosts: bool = False) -> Facts:
    """What is known of it; `known`: its database, where that is open already and of this version.

    `of_all_hosts`: of peers what any host was answered, the worst, and not this one alone.
    """
    folder, lately = config.storage.directory, timedelta(hours=config.delivery.give_up_hours) + GIVEN_UP_LATELY
    free_bytes, disk_error = room_in(folder)
    certificates, certificate_errors = _certificates(config)
    processes: list[Process] = []
    peers: list[PeerAnswer] = []
    given_up: list[ResultsGivenUp] = []
    drifted: list[str] = []
    uploads: list[UploadsWaiting] = []
    waiting, canary, canary_overdue, database_error, locked_by = Waiting(), None, "", "", 0
    try:
        require_sqlite_file(config.storage.url)
        if reading := known or readable(config.storage.url):
            processes, peers, waiting = asked.processes(reading), asked.peers(reading), asked.waiting(reading)
            given_up = asked.results_given_up(reading)
            drifted = asked.drifted(reading) if config.drift.baseline_weeks else []
            uploads = asked.uploads(reading) if config.storage.objects else []
            if config.canary.minutes:
                canary, unanswered = asked.canary(reading), asked.unanswered_canaries(reading)
                canary_overdue = _overdue(config, canary, unanswered, processes, now)
        if processes and all(now - each.beat_at > SILENT for each in processes):
            require_no_lock(config.storage.url)
    except Exception as error:  # noqa: BLE001  the edge: whatever the database raises is what is wrong with it
        database_error = safe_message(error)
        locked_by = error.pid if isinstance(error, DatabaseLocked) else 0
    host = socket.gethostname()[:64]
    return Facts(
        now=now,
        host=host,
        folder=str(folder),
        free_bytes=free_bytes,
        disk_error=disk_error,
        database_error=database_error,
        locked_by=locked_by,
        processes=[_process(each) for each in processes],
        peers=_peers(config, peers, host, {each.host for each in processes if _serves(each, now)}, of_all_hosts),
        certificates=certificates,
        certificate_errors=certificate_errors,
        oldest_pending_at=waiting.oldest_pending_at,
        oldest_ready_at=waiting.oldest_ready_at,
        oldest_refused_at=waiting.oldest_refused_at,
        dead_deliveries=waiting.dead,
        dead_notifications=waiting.dead_notifications,
        results_given_up=[each for each in given_up if now - each.asked_at <= lately],
        held_up=waiting.held_up,
        canary=canary,
        canary_overdue=canary_overdue,
        drifted=drifted,
        uploads=uploads,
        serves_pages=config.web.enabled,
    )


def readable(url: str) -> Reading | None:
    """The database for reading; None where none is there yet.  Raises DatabaseUnusable; it is never migrated here."""
    found = inspect_database(url)
    if found.revision is None:
        return None
    if not found.is_current:
        raise DatabaseUnusable(f"the database {revision.why_not(found.revision)}")
    return open_reading(url)


def room_in(folder: Path, statvfs: Callable[[str | Path], os.statvfs_result] = os.statvfs) -> tuple[int | None, str]:
    """The bytes that are free for us where the folder is, or will be; or why that cannot be told."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    try:
        found = statvfs(there)
    except OSError as error:
        return None, safe_message(error)
    return found.f_bavail * found.f_frsize, ""


def _overdue(config: Config, last: CanaryEnd | None, unanswered: int, processes: list[Process], now: datetime) -> str:
    """Why no canary has had its turn for too long, as far as a node runs that could have sent one."""
    started = [each.started_at for each in processes if _serves(each, now)]
    if not started:
        return ""
    since = max(min(started), last.ended_at) if last else min(started)
    return overdue(since, unanswered, timedelta(minutes=config.canary.minutes), now)


def _serves(process: Process, now: datetime) -> bool:
    return process.role == "serve" and is_alive(_process(process), now)


def _peers(
    config: Config, answers: list[PeerAnswer], host: str, serving: set[str], of_all_hosts: bool
) -> list[PeerFact]:
    """What the node of this host was answered; where none runs here, what those that run elsewhere were, the worst of each peer."""
    asking = serving if serving and (of_all_hosts or host not in serving) else {host}
    found: dict[str, PeerFact] = {}
    for each in answers:
        if each.host in asking and each.peer in config.peers and config.node.echo_seconds:
            known = found.get(each.peer)
            if known is None or not known.error:
                found[each.peer] = PeerFact(each.peer, each.asked_at, each.answered_at, each.error)
    return list(found.values())


def _process(process: Process) -> ProcessFact:
    is_gone = has_died(f"{process.host}:{process.pid}")
    return ProcessFact(process.role, process.host, process.pid, process.beat_at, is_gone, process.details)


def _certificates(config: Config) -> tuple[list[CertificateFact], list[str]]:
    """Those that can be read, and why the others cannot.

    Of each file of CAs of a server that we call the one that holds longest, as it may be one of all CAs.
    """
    oidc, ldap, objects = config.web.oidc, config.web.ldap, config.storage.objects_ca
    named = {
        "[web.oidc] ca": oidc.ca if oidc else None,
        "[web.ldap] ca": ldap.ca if ldap else None,
        "[storage] objects_ca": Path(objects) if objects else None,
    }
    found: list[CertificateFact] = []
    errors: list[str] = []
    ours = _of_tls(config.node.tls)
    for key, path in {**ours, **named}.items():
        if path is None:
            continue
        try:
            facts = _read(key, path)
        except ConfigError as error:
            errors.append(str(error))
        else:
            found += facts if key in ours else sorted(facts, key=lambda each: each.not_after)[-1:]
    return found, errors


def certificate_facts(tls: Tls | None) -> list[CertificateFact]:
    """Every certificate that [node.tls] names, with its dates.  Raises ConfigError."""
    return [each for key, path in _of_tls(tls).items() for each in _read(key, path)]


def _of_tls(tls: Tls | None) -> dict[str, Path]:
    return {OWN_CERTIFICATE: tls.certificate, "[node.tls] ca": tls.ca} if tls else {}


def _read(key: str, path: Path) -> list[CertificateFact]:
    return [CertificateFact(key, str(path), each.not_before, each.not_after) for each in read_certificates(key, path)]
