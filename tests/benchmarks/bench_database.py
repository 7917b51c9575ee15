"""The state tables with a million finished series: `make bench-database`.

Fills SQLite in a temporary folder, and PostgreSQL where its programs are, with finished series by bulk SQL, a few at work,
and 10,000 of 20 sites that wait for analysis; then times what the node asks again and again, and prints the query plans of
what is not asked by a key.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from storage.conditions import Between, Condition, Level, Like
from storage.database.schema import DeliveryRow, SeriesRow
from storage.queries import health
from storage.queries.turns import IN_TURN, IS_READY, next_turn
from storage.queries.worklist import MOST_URGENT
from storage.stages import Event
from storage.store import Store

GOAL_MS = 20.0
ROUNDS = 30
HEADER = "{" + ", ".join(
    f'"{key}": "2.25.1"'
    for key in (
        "sop_instance_uid", "sop_class_uid", "series_instance_uid", "study_instance_uid", "transfer_syntax_uid",
    )
) + "}"  # fmt: skip
QUERIES: dict[str, dict[str, Condition]] = {
    "everything, the first 2,000": {},
    "a patient's name": {"name_key": [Like("doe^123*")]},
    "an accession number": {"accession_number": ["A4711"]},
    "a day": {"study_date": [Between("20260112", "20260112")]},
    "what is positive on a day": {"study_date": [Between("20260112", "20260112")], "outcome": ["positive"]},
}
DATABASES = ("SQLite", "PostgreSQL")
AT_WORK = 40
"""Series that are received or analysed, and pending deliveries."""
SITES = 20
_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT {} FROM n",
    "postgresql": "SELECT {} FROM generate_series(1, :last) AS n(i)",
}
_THEN = {
    "sqlite": "datetime('2020-01-01', '+' || {} || ' seconds') || '.000000'",
    "postgresql": "timestamp '2020-01-01' + {} * interval '1 second'",
}


def fill(store: Store, count: int, waiting: int) -> None:
    """`count` series, each with one instance and report, all delivered; the last are at work, `waiting` of them ready."""
    kind = store.transactions.engine.dialect.name
    rows = _NUMBERS[kind]
    then = _THEN[kind].format("i")
    soon = _THEN[kind].format("0")
    outcome = (
        "CASE i % 5 WHEN 0 THEN 'positive' WHEN 1 THEN 'not_analysed' WHEN 2 THEN 'not_eligible' ELSE 'negative' END"
    )
    stage = (
        f"CASE WHEN i > :last - {AT_WORK} THEN 'receiving' WHEN i > :last - {2 * AT_WORK} THEN 'analysing' "
        f"WHEN i > :last - {2 * AT_WORK} - :waiting THEN 'ready' ELSE 'reported' END"
    )
    in_work = f"i > :last - {2 * AT_WORK} - :waiting"
    statements = [
        "INSERT INTO association (id, receiver, calling_ae, opened_at, closed_at, closed) "
        + rows.format(f"i, '127.0.0.1:11112', 'PACS', {then}, {then}, 'released'"),
        "INSERT INTO series (id, series_instance_uid, study_instance_uid, patient_id, issuer_of_patient_id, patient_name,"
        " accession_number, study_date, modality, series_description, acquisition_key, calling_ae, stage, outcome, reason,"
        " detail, evidence, conflicts, revision, instance_count, attempts, report_id, first_instance_at, last_instance_at,"
        " ready_at, claimed_at, ended_at, lease_until, p_present, name_key, study_time, study_id, turn) "
        + rows.format(
            f"i, '2.25.1' || i, '2.25.2' || i, 'P' || i, '', 'Doe^' || i, 'A' || i, '202601' || (10 + i % 20), 'CT', 'CTA', '2.25.3' || i,"
            f" CASE WHEN {stage} = 'ready' THEN 'SITE' || (i % {SITES}) ELSE 'PACS' END,"
            f" {stage}, CASE WHEN {in_work} THEN NULL ELSE {outcome} END, '', '', 'count', '[]', 1, 2,"
            f" CASE WHEN {stage} = 'ready' THEN 0 ELSE 1 END,"
            f" CASE WHEN {in_work} THEN NULL ELSE i END, {then}, {then}, {then}, {then}, CASE WHEN {in_work} THEN NULL ELSE {then} END,"
            f" {then}, (i % 997) / 997.0, 'doe^' || i, '', '', i / {SITES}"
        ),
        "INSERT INTO instance (id, sop_instance_uid, series_id, association_id, path, sha256, size_bytes, header, received_at) "
        + rows.format(f"i, '2.25.4' || i, i, i, 'instances/' || i, '', 526336, '{HEADER}', {then}"),
        "INSERT INTO report (id, series_id, revision, sop_instance_uid, path, sha256, size_bytes, outcome, reason, detail,"
        " model, lesions, created_at, p_present) "
        + rows.format(
            f"i, i, 1, '2.25.5' || i, 'reports/' || i, '', 20000, {outcome}, '', '', '0.1', '[]', {then}, (i % 997) / 997.0"
        ),
        "INSERT INTO delivery (id, report_id, destination, stage, attempts, created_at, next_attempt_at, last_error,"
        " delivered_at) "
        + rows.format(
            f"i, i, 'PACS', CASE WHEN i % {max(1, count // AT_WORK)} = 0 THEN 'pending' ELSE 'delivered' END, 1, {then},"
            f" CASE WHEN i % {max(1, count // AT_WORK)} = 0 THEN {soon} ELSE NULL END, '', {then}"
        ),
    ]  # fmt: skip
    with store.transactions.writing() as session:
        for statement in statements:
            values = {"last": count, "waiting": waiting}
            session.execute(text(statement), {name: value for name, value in values.items() if f":{name}" in statement})
        if kind == "postgresql":
            for table in ("association", "series", "instance", "report", "delivery"):
                session.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {count})"))
    with store.transactions.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE" if kind == "postgresql" else "ANALYZE"))


def asked(store: Store, count: int) -> dict[str, Callable[[], Any]]:
    """What the node asks again and again."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    one, *others = store.settling.receiving()
    leaving, mark, reading = iter(others), store.triage.mark(), store.transactions.reading_plainly
    case = store.worklist.case(str(count // 2))
    assert case is not None
    sites = [f"SITE{number}" for number in range(3)]
    return {
        "settle: series being received": store.settling.receiving,
        "settle: who brought a series": lambda: store.settling.contributions(one.id),
        "settle: its instances": lambda: store.settling.instances(one.id),
        "settle: its siblings": lambda: store.settling.siblings(one),
        "settle: last instance of its study": lambda: store.settling.last_instance_in_study(one.study_instance_uid),
        "settle: a peer's habits": lambda: store.settling.habits("PACS", 5),
        "settle: a stranger's habits": lambda: store.settling.habits("NOBODY", 5),
        "settle: it is ready": lambda: store.settling.leave(next(leaving), Event.SETTLED, "count", now),
        "claim": lambda: store.queue.claim("worker", now, hour, 3),
        "claim, of stat sites first": lambda: store.queue.claim("worker", now, hour, 3, sites),
        "claim, of a stat site that has none": lambda: store.queue.claim("worker", now, hour, 3, ["NOBODY"]),
        "claim: exhausted": lambda: store.queue.claim_exhausted("worker", now, hour, 3),
        "claim: whether another waits": lambda: store.queue.other_waits(None),
        "rescue: leases that ended": lambda: store.queue.expire(datetime(2019, 1, 1, tzinfo=UTC)),
        "rescue: who holds claims": store.queue.claimants,
        **{
            f"query: {what}": partial(store.cfind.find, Level.STUDY, conditions, 2001)
            for what, conditions in QUERIES.items()
        },
        "outbox: claim what is due": lambda: store.outbox.due.claim(now, hour),
        "worklist: the most urgent 100": store.worklist.rows,
        "worklist: a case by its number": lambda: store.worklist.case(str(count // 2)),
        "pages: what has changed": lambda: store.triage.changed(mark, ()),
        "pages: how cases are delivered": lambda: store.triage.deliveries(range(count // 2, count // 2 + 100)),
        "pages: a case's deliveries": lambda: store.worklist.deliveries(count // 2),
        "pages: a case's earlier ones": lambda: store.earlier.cases(case),
        "health: what waits": lambda: health.waiting(reading),
        "metrics: counts": store.worklist.counts,
        "start: doubtful instances": lambda: store.intake.doubtful_instances("127.0.0.1:11112"),
        "start: lost associations": lambda: store.intake.lose_associations("127.0.0.1:11112", now),
        "retention: candidates": lambda: store.retention.candidates(datetime(2019, 1, 1, tzinfo=UTC), 50),
        "retention: candidates, all old": lambda: store.retention.candidates(now, 50),
    }


def plans(store: Store) -> Iterator[str]:
    """The plans of the queries that go over whole tables in an index's order."""
    begin = "EXPLAIN QUERY PLAN " if store.transactions.engine.dialect.name == "sqlite" else "EXPLAIN "
    waiting = select(SeriesRow.id).where(IS_READY).limit(1)
    attempts, exhausted, stat = (
        SeriesRow.attempts + 0,
        SeriesRow.attempts >= 3,
        SeriesRow.calling_ae.in_(["SITE1", "SITE2"]),
    )
    due = (
        select(DeliveryRow.id)
        .where(DeliveryRow.stage == "pending", DeliveryRow.next_attempt_at <= datetime.now(UTC))
        .order_by(DeliveryRow.next_attempt_at)
    )
    receiving = select(SeriesRow.id).where(SeriesRow.stage == "receiving").order_by(SeriesRow.last_instance_at)
    queries = {
        "worklist": text(MOST_URGENT).bindparams(most=100),
        "claim": waiting.where(attempts < 3).order_by(*IN_TURN),
        "claim: exhausted": waiting.where(exhausted).order_by(SeriesRow.attempts, SeriesRow.turn),
        "claim, of stat sites first": waiting.where(attempts == 0, stat, SeriesRow.canary.is_not(True)).order_by(
            *IN_TURN[1:]
        ),
        "settle: it is ready": select(next_turn("SITE1")),
        "outbox": due.limit(1),
        "settle": receiving,
    }
    with store.transactions.engine.connect() as connection:
        for name, query in queries.items():
            statement = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
            yield f"{name}:"
            yield from (f"    {row[-1]}" for row in connection.exec_driver_sql(begin + statement.replace("%", "%%")))


@contextmanager
def stores(count: int, waiting: int, databases: list[str]) -> Iterator[dict[str, Store]]:
    """A filled store on each database that is here."""
    from tests.conftest import postgresql_server

    with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
        found = {"SQLite": Store.open(f"sqlite:///{Path(folder) / 'willis.db'}")} if "SQLite" in databases else {}
        server = None
        if "PostgreSQL" in databases and any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
            server = postgresql_server.__wrapped__()  # type: ignore[attr-defined]
            running = next(server)
            running.run("CREATE DATABASE bench")
            found["PostgreSQL"] = Store.open(running.url("bench"))
        try:
            for store in found.values():
                fill(store, count, waiting)
            yield found
        finally:
            for store in found.values():
                store.close()
            if server is not None:
                next(server, None)


def main() -> None:
    """Prints the table and the plans."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--series", type=int, default=1_000_000)
    arguments.add_argument("--waiting", type=int, default=10_000, help="so many of them are ready")
    arguments.add_argument("--database", choices=DATABASES, action="append", help="this one alone; default: both")
    options = arguments.parse_args()
    slow: list[str] = []
    with stores(options.series, options.waiting, options.database or list(DATABASES)) as found:
        print(f"{options.series} series; ms, median of {ROUNDS} (most)\n")
        print(f"| query | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
        asks = {database: asked(store, options.series) for database, store in found.items()}
        for name in next(iter(asks.values())):
            cells = []
            for database in found:
                ask, took = asks[database][name], []
                for _ in range(ROUNDS):
                    began = time.perf_counter()
                    ask()
                    took.append(1000 * (time.perf_counter() - began))
                cells.append(f"{statistics.median(took):.1f} ({max(took):.1f})")
                if statistics.median(took) > GOAL_MS and not name.startswith(
                    "query:"
                ):  # which nobody asks all the time
                    slow.append(name)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        for database, store in found.items():
            print(f"\n{database}:")
            print("\n".join(plans(store)))
    if slow:
        raise SystemExit(f"slower than {GOAL_MS:g} ms: {', '.join(slow)}")


if __name__ == "__main__":
    main()
