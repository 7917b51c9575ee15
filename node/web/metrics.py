"""The node's numbers as Prometheus takes them, read anew at each scrape: this process keeps none.

Counters and histograms come from the database and survive a restart of every process; but those of the receiver begin
anew with it, as Prometheus expects.  While the database is away there is `willis_health` and what the disk says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as version_of

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from node.config.sections import Config
from node.rules.health import ABOUT, Verdict, is_alive, judge
from node.rules.health_facts import Facts
from node.workflow.health import facts_of
from storage.queries.tally import ABOVE, BOUNDS_SECONDS, REPORTS, SECONDS, SUM
from storage.queries.worklist import Counts
from storage.stages import DeliveryStage, Stage
from storage.store import Store

PARTS = ("settle", "wait", "volume", "inference", "report", "delivery", "total")
"""Of the way of a case, from its last slice to its report in the PACS."""


class NodeCollector:
    """Collects what the node's database, disk and certificates say."""

    def __init__(self, config: Config, store: Store, clock: Callable[[], datetime]) -> None:
        """Nothing is read yet."""
        self._config, self._store, self._clock = config, store, clock

    def collect(self) -> Iterator[Metric]:
        """Every metric as of now."""
        facts = facts_of(self._config, self._clock(), self._store.transactions.reading_plainly)
        yield from _of_health(facts)
        if not facts.database_error:
            yield from _of_queues(self._store.worklist.counts(), facts.now)
            yield from _of_tally(self._store.tally.all())


def _gauge(name: str, what: str, values: Iterable[tuple[Sequence[str], float]], *labels: str) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"willis_{name}", what, labels=labels)
    for given, value in values:
        found.add_metric(list(given), value)
    return found


def _of_health(facts: Facts) -> Iterator[Metric]:
    health = judge(facts)
    worst = dict.fromkeys(ABOUT, 0)
    for reason in health.reasons:
        worst[reason.about] = max(worst[reason.about], reason.verdict.exit_status)
    verdicts = ", ".join(f"{verdict.exit_status} {verdict}" for verdict in Verdict)
    yield _gauge("health", f"The node's verdict: {verdicts}", [((), health.verdict.exit_status)])
    about = {(name,): float(value) for name, value in worst.items()}
    yield _gauge("unwell", f"The same of each thing that may be wrong: {verdicts}", about.items(), "about")
    yield _gauge("version_info", "This version", [((version_of("willis"),), 1)], "version")
    if facts.free_bytes is not None:
        yield _gauge("storage_free_bytes", "Room in [storage] directory", [((), facts.free_bytes)])
    roles = {each.role: 0.0 for each in facts.processes}
    roles |= {each.role: 1.0 for each in facts.processes if is_alive(each, facts.now)}
    yield _gauge(
        "process_up", "Whether a process of the role runs", (((role,), up) for role, up in roles.items()), "role"
    )
    models = {
        (str(each.details["model"]), str(each.details.get("device", ""))): 1.0
        for each in facts.processes
        if each.details.get("model") and is_alive(each, facts.now)
    }
    yield _gauge("model_info", "The model that is loaded, and on which device", models.items(), "model", "device")
    refused = CounterMetricFamily("willis_refused_instances", "Instances refused since the receiver started")
    refused.add_metric([], sum(each.details.get("refused", 0) for each in facts.processes))
    yield refused
    peers = {(each.name,): 0.0 if each.error else 1.0 for each in facts.peers}
    yield _gauge("peer_up", "Whether the peer answered when it was last asked", peers.items(), "peer")
    yield _gauge("drifted", "How many measures of scanners are not as they were", [((), len(facts.drifted))])
    if facts.canary:
        right = 0.0 if facts.canary.trouble else 1.0
        yield _gauge("canary_right", "Whether the last canary was answered rightly and in time", [((), right)])
        seconds = [] if facts.canary.seconds is None else [((), facts.canary.seconds)]
        yield _gauge("canary_seconds", "How long its answer took", seconds)
        yield _gauge("canary_timestamp_seconds", "When it was sent", [((), facts.canary.sent_at.timestamp())])
    expiry: dict[tuple[str], float] = {}
    for each in facts.certificates:
        expiry[(each.key,)] = min(each.not_after.timestamp(), expiry.get((each.key,), float("inf")))
    yield _gauge("certificate_expires_timestamp_seconds", "Until when our certificate holds", expiry.items(), "key")


def _of_queues(counts: Counts, now: datetime) -> Iterator[Metric]:
    series = {(stage.value,): float(counts.stages.get(stage, 0)) for stage in Stage} | {("empty",): float(counts.empty)}
    yield _gauge("series", "Series by stage", series.items(), "stage")
    deliveries = {(stage.value,): float(counts.deliveries.get(stage, 0)) for stage in DeliveryStage}
    yield _gauge("deliveries", "Deliveries of reports and objects beside them by stage", deliveries.items(), "stage")
    oldest = {
        ("analysis",): _age(counts.oldest_ready_at, now),
        ("delivery",): _age(counts.oldest_pending_at, now),
    }
    yield _gauge(
        "oldest_waiting_seconds", "How long the oldest has waited; 0 where none waits", oldest.items(), "queue"
    )


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _of_tally(tally: Mapping[tuple[str, str, str], float]) -> Iterator[Metric]:
    reports = CounterMetricFamily("willis_reports", "Reports made", labels=["outcome", "model"])
    for (name, label, _bucket), value in tally.items():
        if name == REPORTS:
            outcome, _, model = label.partition(" ")
            reports.add_metric([outcome, model], value)
    yield reports
    what = "Seconds that each part of the way took, from the last slice to the report in the PACS (total)"
    clocks = HistogramMetricFamily("willis_case_seconds", what, labels=["part"])
    for part in PARTS:
        buckets, below = [], 0.0
        for bound in (*map(str, BOUNDS_SECONDS), ABOVE):
            below += tally.get((SECONDS, part, bound), 0.0)
            buckets.append((bound if bound == ABOVE else str(float(bound)), below))
        clocks.add_metric([part], buckets, tally.get((SECONDS, part, SUM), 0.0))
    yield clocks
