"""Is the node well?  One pure rule over facts: the verdict, and every reason for it with its remedy.

`down`: images are refused or lost time counts (no process receives, no database, no room).  `degraded`: what comes is
kept, but reports are late, or something will fail soon.  `ok`: nothing is known that a person should do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ai.wording import counted
from node.rules.health_facts import OWN_CERTIFICATE, CertificateFact, Facts, ProcessFact


class Verdict(StrEnum):
    """How the node is; the order is from well to ill."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"

    @property
    def exit_status(self) -> int:
        """That of `willis status`."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong: what it concerns, how bad it is, and in one line the value, the cause and the remedy.

    `subject`: which one, where there may be several: the peer, the process, the job.
    """

    about: str
    verdict: Verdict
    message: str
    subject: str = ""


@dataclass(frozen=True)
class Health:
    """The verdict and its reasons, the worst first; without a reason the node is well."""

    reasons: tuple[Reason, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the reasons'."""
        return max((reason.verdict for reason in self.reasons), key=lambda one: one.exit_status, default=Verdict.OK)


BEAT_SECONDS = 3.0
LATE = timedelta(seconds=12)
"""A process that has not said for so long that it runs counts as dead or hung."""
MISSED = timedelta(hours=1)
"""A host that has been silent for longer is taken to have been put away, as that of a container is."""
CLOCKS_DIFFER = timedelta(seconds=5)
FULL_BYTES, LOW_BYTES = 64 << 20, 2 << 30
"""With less room than the first nothing is received; less than the second holds about eight studies."""
PENDING_LATE, READY_LATE, REFUSED_LATELY = timedelta(minutes=15), timedelta(minutes=15), timedelta(hours=1)
EXPIRES_SOON = timedelta(days=30)
UPLOAD_FAILED, UPLOAD_LATE = timedelta(seconds=30), timedelta(minutes=15)
"""So long a file may wait for the object store where that has failed, and where it has not."""
_NEEDED = {
    "serve": (Verdict.DOWN, "nothing is settled or delivered"),
    "receive": (Verdict.DOWN, "no image is received"),
    "work": (Verdict.DEGRADED, "nothing is analysed"),
    "web": (Verdict.DEGRADED, "no pages are served"),
}
"""Each process, how bad it is when it does not run, and what that means; `web` only where pages are wanted."""
_OF_EACH_HOST = ("receive", "work")
_JOBS = {
    "upload": (Verdict.DEGRADED, "nothing goes to the object store"),
    "settle": (Verdict.DOWN, "no series is taken to be whole"),
    "deliver": (Verdict.DOWN, "no report is delivered"),
    "intake": (Verdict.DOWN, "no image is answered"),
    "supervise": (Verdict.DEGRADED, "a process that ends is not started again"),
    "analyse": (Verdict.DEGRADED, "nothing is analysed"),
    "notify": (Verdict.DEGRADED, "nobody is notified"),
}
"""The same of jobs; one that is not here makes the node degraded."""


ABOUT = (
    "database", "processes", "disk", "instances", "model", "peers", "deliveries", "analysis", "certificates", "clock",
    "notifications", "jobs", "canary", "drift", "objects", "engine", "audit",
)  # fmt: skip
"""What a reason may be about."""


def judge(facts: Facts) -> Health:
    """How the node is."""
    rules = (
        _database, _processes, _silent_hosts, _not_reloaded, _two_nodes, _jobs, _disk, _refused,
        _model, _engine, _peers, _waiting, _uploads, _canary, _drift, _certificates, _clock, _audit,
    )  # fmt: skip
    reasons = [reason for rule in rules for reason in rule(facts)]
    return Health(tuple(sorted(reasons, key=lambda one: -one.verdict.exit_status)))


def _database(facts: Facts) -> Iterator[Reason]:
    if facts.database_error:
        yield Reason("database", Verdict.DOWN, facts.database_error)


def is_alive(process: ProcessFact, now: datetime) -> bool:
    """Whether the process runs, as far as is known."""
    return not process.is_gone and "trouble" not in process.details and now - process.beat_at <= LATE


def _processes(facts: Facts) -> Iterator[Reason]:
    if facts.database_error:
        return  # nothing is known of them
    if not facts.processes:
        message = f"no node runs on {facts.folder}: nothing is received; start it with `willis serve` (or its service)"
        yield Reason("processes", Verdict.DOWN, message)
        return
    serving = _serving_hosts(facts)
    for role, (verdict, what) in _NEEDED.items():
        if role == "web" and not facts.serves_pages:
            continue
        for host in serving if serving and role in _OF_EACH_HOST else [""]:
            known = [each for each in facts.processes if each.role == role and host in ("", each.host)]
            if any(is_alive(process, facts.now) for process in known):
                continue
            last = max(known, key=lambda process: process.beat_at, default=None)
            why = _why_dead(role, last, facts.now) + (f" on {host}" if last is None and len(serving) > 1 else "")
            message = f"{why}: {what}; {_remedy_of(role, last, bool(serving))}"
            yield Reason("processes", verdict, message, f"{role} {host if len(serving) > 1 else ''}".strip())


def _serving_hosts(facts: Facts) -> list[str]:
    return sorted({each.host for each in facts.processes if each.role == "serve" and is_alive(each, facts.now)})


def speaks(facts: Facts) -> bool:
    """Whether it is for this host to notice what people are to be told of: the first by name of those that can."""
    late = {
        each.host for each in facts.processes for name, _ in late_jobs(each, facts.now) if name.startswith("notify")
    }
    serving = _serving_hosts(facts)
    able = [host for host in serving if host not in late] or serving
    return facts.host not in serving or facts.host == able[0]


def _silent_hosts(facts: Facts) -> Iterator[Reason]:
    """A host whose node has died without a word, while that of another host works on."""
    serving = _serving_hosts(facts)
    silent = {each.host: each for each in facts.processes if each.role == "serve" and each.host not in serving}
    for host, last in sorted(silent.items()) if serving else ():
        if facts.now - last.beat_at <= MISSED:
            message = f"{_why_dead('serve', last, facts.now)}: that of {', '.join(serving)} works on; {_remedy_of('serve', last, False)}"
            yield Reason("processes", Verdict.DEGRADED, message, f"serve {host}")


def _jobs(facts: Facts) -> Iterator[Reason]:
    """What stands still in a process that says that it runs."""
    for process in facts.processes:
        if not is_alive(process, facts.now):
            continue
        for name, since in late_jobs(process, facts.now):
            verdict, what = _JOBS.get(name, (Verdict.DEGRADED, "what it is for waits"))
            where = f"`willis {process.role}` (pid {process.pid} on {process.host})"
            message = f"the job {name} of {where} has not finished since {_utc(since)}: {what}; look at its log, and restart the node"
            yield Reason("jobs", verdict, message, f"{name} {process.host}")


def late_jobs(process: ProcessFact, now: datetime) -> Iterator[tuple[str, datetime]]:
    """The process's jobs that stand still, and since when."""
    for name, progress in process.details.get("jobs", {}).items():
        since = datetime.fromisoformat(progress["at"])
        if now - since > timedelta(seconds=progress["late_after_seconds"]):
            yield name, since


def _why_dead(role: str, last: ProcessFact | None, now: datetime) -> str:
    name = f"the process `willis {role}`"
    if last is None:
        return f"{name} does not run"
    if trouble := last.details.get("trouble"):
        return f"{name} ended ({trouble})"
    ago = f"{(now - last.beat_at).total_seconds():.0f} s"
    if last.is_gone:
        return f"{name} (pid {last.pid}) died without a word, last seen {ago} ago"
    return f"{name} (pid {last.pid} on {last.host}) has not been heard of for {ago}"


def _remedy_of(role: str, last: ProcessFact | None, is_supervised: bool) -> str:
    if is_supervised:
        return "`willis serve` starts it again within 30 s; if this stays, look at its log"
    if role == "serve" and last is not None and not last.is_gone:
        return "look at its log, and restart it"
    return "start it with `willis serve` (or its service)"


def _not_reloaded(facts: Facts) -> Iterator[Reason]:
    for process in facts.processes:
        error = process.details.get("reload", {}).get("error")
        if error and is_alive(process, facts.now):
            message = (
                f"`willis {process.role}` could not reload and works on with what it had: {error}; then `willis reload`"
            )
            yield Reason("processes", Verdict.DEGRADED, message, f"reload {process.role} {process.host}")


def _two_nodes(facts: Facts) -> Iterator[Reason]:
    running = [each for each in facts.processes if each.role == "serve" and is_alive(each, facts.now)]
    for host in sorted({each.host for each in running}):
        pids = [str(each.pid) for each in running if each.host == host]
        if len(pids) > 1:
            message = (
                f"{len(pids)} nodes on {host} use the folder {facts.folder} (pids {', '.join(pids)}): stop all but one"
            )
            yield Reason("processes", Verdict.DEGRADED, message)


def _disk(facts: Facts) -> Iterator[Reason]:
    yield from _room(facts.folder, facts.free_bytes, facts.disk_error, facts.host)
    for each in facts.processes:
        if each.role == "serve" and each.host != facts.host and is_alive(each, facts.now):
            where = f"{facts.folder} of {each.host}"
            yield from _room(where, each.details.get("free_bytes"), each.details.get("disk_error", ""), each.host)


def _room(where: str, free_bytes: int | None, error: str, subject: str) -> Iterator[Reason]:
    if error:
        yield Reason("disk", Verdict.DOWN, f"{where}: {error}", subject)
    elif free_bytes is not None and free_bytes < LOW_BYTES:
        is_full = free_bytes < FULL_BYTES
        what = "instances are refused" if is_full else "about eight studies fit"
        message = (
            f"{free_bytes / 2**20:.0f} MiB free in {where}, {what}; free some, set [storage] retention_days or "
            "high_water_percent, or move [storage] directory"
        )
        yield Reason("disk", Verdict.DOWN if is_full else Verdict.DEGRADED, message, subject)


def _refused(facts: Facts) -> Iterator[Reason]:
    for process in facts.processes:
        at, count = process.details.get("refused_at"), process.details.get("refused", 0)
        if at and facts.now - datetime.fromisoformat(at) <= REFUSED_LATELY:
            error = process.details.get("refused_error", "")
            message = f"{counted(count, 'instance was', 'instances were')} refused, the last at {at[11:19]} UTC: {error}; see the log"
            yield Reason("instances", Verdict.DEGRADED, message)


def _model(facts: Facts) -> Iterator[Reason]:
    for process in facts.processes:
        if process.role == "work" and is_alive(process, facts.now) and not process.details.get("model"):
            yield Reason("model", Verdict.DEGRADED, "the model is not loaded yet; wait, or look at the log")
        elif process.role == "work" and is_alive(process, facts.now) and process.details.get("shadow_trouble"):
            message = f"no second bundle answers what is reported: {process.details['shadow_trouble']}"
            yield Reason("model", Verdict.DEGRADED, message, f"shadow {process.host}")
    if facts.held_up:
        yield Reason("model", Verdict.DEGRADED, f"an analysis waits: {facts.held_up}")


def _engine(facts: Facts) -> Iterator[Reason]:
    for process in facts.processes:
        trouble = process.details.get("engine", {}).get("trouble")
        if process.role == "work" and trouble and is_alive(process, facts.now):
            message = f"{trouble} (meanwhile `willis work` on {process.host} analyses by itself)"
            yield Reason("engine", Verdict.DEGRADED, message, process.host)


def _audit(facts: Facts) -> Iterator[Reason]:
    for process in facts.processes:
        if (trouble := process.details.get("audit_trouble")) and is_alive(process, facts.now):
            message = (
                f"the audit trail of `willis {process.role}` is not written ({trouble}); what waits is lost at a stop"
            )
            yield Reason("audit", Verdict.DEGRADED, message, f"audit {process.role} {process.host}")


def _peers(facts: Facts) -> Iterator[Reason]:
    for peer in facts.peers:
        if peer.error:
            last = f"last answered {_utc(peer.answered_at)}" if peer.answered_at else "has not answered yet"
            yield Reason("peers", Verdict.DEGRADED, f"{peer.name} does not answer ({last}): {peer.error}", peer.name)
    for each in facts.results_given_up:
        results = counted(each.number, "result of a storage commitment", "results of storage commitments")
        message = f"{each.peer} never got {results} that it asked for: {each.error}; mend that, and have it ask again"
        yield Reason("peers", Verdict.DEGRADED, message, f"commitment {each.peer}")


def _waiting(facts: Facts) -> Iterator[Reason]:
    if facts.oldest_pending_at and facts.now - facts.oldest_pending_at > PENDING_LATE:
        message = f"a report has waited to be delivered since {_utc(facts.oldest_pending_at)}; `willis status` names the error"
        yield Reason("deliveries", Verdict.DEGRADED, message)
    if facts.dead_deliveries:
        number = counted(facts.dead_deliveries, "delivery was", "deliveries were")
        message = f"{number} refused or given up; `willis worklist` shows them as dead: mend the cause, then `willis retry CASE`"
        yield Reason("deliveries", Verdict.DEGRADED, message)
    if facts.dead_notifications:
        number = counted(facts.dead_notifications, "notification was", "notifications were")
        message = (
            f"{number} refused or given up: mend the cause in [[notifications]], then `willis retry --notifications`"
        )
        yield Reason("notifications", Verdict.DEGRADED, message)
    if facts.oldest_refused_at and facts.now - facts.oldest_refused_at > PENDING_LATE:
        message = f"a notification has been tried since {_utc(facts.oldest_refused_at)}; the log names target and error"
        yield Reason("notifications", Verdict.DEGRADED, message)
    if facts.oldest_ready_at and facts.now - facts.oldest_ready_at > READY_LATE:
        since = _utc(facts.oldest_ready_at)
        message = f"a case has waited for its analysis since {since}; look at the log of `willis work`"
        yield Reason("analysis", Verdict.DEGRADED, message)


def _uploads(facts: Facts) -> Iterator[Reason]:
    for each in facts.uploads:
        waits = facts.now - each.oldest_at
        if waits > UPLOAD_LATE or (each.error and waits > UPLOAD_FAILED):
            files = counted(each.number, "file waits", "files wait")
            why = each.error or "no attempt has failed; does `willis serve` run there, and is it fast enough?"
            message = (
                f"{files} for the object store in {each.folder} since {_utc(each.oldest_at)}: {why} "
                "(nothing is refused; other hosts cannot analyse these)"
            )
            yield Reason("objects", Verdict.DEGRADED, message, each.folder)


def _canary(facts: Facts) -> Iterator[Reason]:
    if facts.canary and facts.canary.trouble:
        message = (
            f"the canary of {_utc(facts.canary.sent_at)} was not answered as it should be: {facts.canary.trouble}; "
            "see the log, and Canary in docs/operations.md"
        )
        yield Reason("canary", Verdict.DEGRADED, message)
    if facts.canary_overdue:
        yield Reason("canary", Verdict.DEGRADED, facts.canary_overdue, "overdue")


def _drift(facts: Facts) -> Iterator[Reason]:
    for each in facts.drifted:
        message = f"{each}; ask the site what was changed, `willis drift` says more and accepts it"
        yield Reason("drift", Verdict.DEGRADED, message, each.partition(" from ")[0])


def _certificates(facts: Facts) -> Iterator[Reason]:
    for error in facts.certificate_errors:
        yield Reason("certificates", Verdict.DEGRADED, error, error.partition(" = ")[0])
    for each in facts.certificates:
        if trouble := certificate_trouble(each, facts.now):
            yield Reason("certificates", Verdict.DEGRADED, trouble, each.key)
    yield from _held_certificates(facts)


def _held_certificates(facts: Facts) -> Iterator[Reason]:
    """A process of this host shows a certificate that expires soon, though there is a later one in the file."""
    in_file = next((each.not_after for each in facts.certificates if each.key == OWN_CERTIFICATE), None)
    for process in facts.processes:
        until = process.details.get("certificate_until")
        if in_file is None or not until or process.host != facts.host or not is_alive(process, facts.now):
            continue
        held = datetime.fromisoformat(until)
        if held < in_file and held - facts.now < EXPIRES_SOON:
            message = (
                f"`willis {process.role}` still shows a certificate that expires on {held:%Y-%m-%d}, though {OWN_CERTIFICATE} "
                "is renewed: `willis reload`"
            )
            yield Reason("certificates", Verdict.DEGRADED, message, f"held {process.role}")


def certificate_trouble(certificate: CertificateFact, now: datetime) -> str:
    """What is wrong with the certificate's dates, "" where nothing is."""
    named = f"{certificate.key} = '{certificate.path}'"
    is_tls = certificate.key.startswith("[node.tls]")
    who, then = (
        ("peers refuse it", "`willis reload`") if is_tls else ("that server is trusted no longer", "restart the node")
    )
    if now > certificate.not_after:
        return f"{named} expired on {certificate.not_after:%Y-%m-%d}: {who}; renew it, then {then}"
    if now < certificate.not_before:
        return f"{named} holds only from {certificate.not_before:%Y-%m-%d %H:%M} UTC; is this machine's clock right?"
    if certificate.not_after - now < EXPIRES_SOON:
        return f"{named} expires on {certificate.not_after:%Y-%m-%d}; renew it, then {then}"
    return ""


def is_expired(certificate: CertificateFact, now: datetime) -> bool:
    """Whether the certificate does not hold now."""
    return not certificate.not_before <= now <= certificate.not_after


def _clock(facts: Facts) -> Iterator[Reason]:
    latest = max(facts.processes, key=lambda process: process.beat_at, default=None)
    ahead = latest.beat_at - facts.now if latest else timedelta()
    if latest and ahead > CLOCKS_DIFFER:
        message = (
            f"a process of {latest.host} was last heard of {ahead.total_seconds():.0f} s in the future: this machine's clock was "
            "set back, or the clocks of two hosts differ; look at `timedatectl` on each"
        )
        yield Reason("clock", Verdict.DEGRADED, message)


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
