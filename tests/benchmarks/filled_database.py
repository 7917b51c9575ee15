"""A database that holds many finished cases, filled by its own statements: three million on PostgreSQL in some minutes.

12,000 cases came a day, the last one just now, of which a fifth was not eligible and has no report; a few are at work,
and some, of 20 sites, wait for analysis.  Each has one row in `instance`; what they came by is one association each five.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from storage.database import at_end
from storage.store import Store

AT_WORK = 60
"""Series that are received, as many that are analysed, and deliveries that are pending."""
SITES = 20
SECONDS_A_CASE = 7
SINGLE_IMAGES = "XRAY"
"""Who sends series of one instance."""
_HEADER = "{" + ", ".join(
    f'"{key}": "2.25.1"'
    for key in ("sop_instance_uid", "series_instance_uid", "study_instance_uid", "transfer_syntax_uid")
) + ', "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}'  # fmt: skip
_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last) SELECT {} FROM n WHERE {}",
    "postgresql": "SELECT {} FROM generate_series(1, :last) AS n(i) WHERE {}",
}
_THEN = {
    "sqlite": f"datetime('{{now}}', '-' || ((:last - i) * {SECONDS_A_CASE}) || ' seconds') || '.000000'",
    "postgresql": f"timestamp '{{now}}' - (:last - i) * interval '{SECONDS_A_CASE} seconds'",
}
_IN_WORK = f"i > :last - {2 * AT_WORK} - :waiting"
_IS_REPORTED = f"i <= :last - {2 * AT_WORK} - :waiting AND i % 5 <> 2"
_IS_ANSWERED = f"{_IS_REPORTED} AND i % 5 <> 1"
_OUTCOME = "CASE i % 5 WHEN 0 THEN 'positive' WHEN 1 THEN 'not_analysed' WHEN 2 THEN 'not_eligible' ELSE 'negative' END"
_STAGE = (
    f"CASE WHEN i > :last - {AT_WORK} THEN 'receiving' WHEN i > :last - {2 * AT_WORK} THEN 'analysing' "
    f"WHEN {_IN_WORK} THEN 'ready' WHEN i % 5 = 2 THEN 'set_aside' WHEN i % 500 = 1 THEN 'failed' ELSE 'reported' END"
)
_ENDED = "CASE WHEN {in_work} THEN NULL ELSE {value} END".format
_PENDING = "i % :gap = 0"
_TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "association": (
        "i % 5 = 0",
        {
            "id": "i / 5", "receiver": "'127.0.0.1:11112'", "calling_ae": "'PACS'", "opened_at": "{then}",
            "closed_at": "{then}", "closed": "'released'",
        },
    ),
    "series": (
        "i > 0",
        {
            "id": "i", "series_instance_uid": "'2.25.1' || i", "study_instance_uid": "'2.25.2' || i",
            "patient_id": "'P' || i", "issuer_of_patient_id": "''", "patient_name": "'Doe^' || i",
            "name_key": "'doe^' || i", "accession_number": "'A' || i", "study_date": "'202601' || (10 + i % 20)",
            "study_time": "''", "study_id": "''", "modality": "'CT'", "series_description": "'CTA'",
            "acquisition_key": "'2.25.3' || i",
            "calling_ae": f"CASE WHEN {_IN_WORK} THEN 'SITE' || (i % {SITES}) WHEN i % 5 = 2 THEN '{SINGLE_IMAGES}' "
            "ELSE 'PACS' END",
            "stage": _STAGE, "outcome": _ENDED(in_work=_IN_WORK, value=_OUTCOME), "reason": "''", "detail": "''",
            "evidence": "'count'", "conflicts": "'[]'", "revision": "1",
            "instance_count": "CASE WHEN i % 5 = 2 THEN 1 ELSE 2 END",
            "attempts": f"CASE WHEN {_STAGE} = 'ready' THEN 0 ELSE 1 END",
            "report_id": f"CASE WHEN {_IS_REPORTED} THEN i END", "first_instance_at": "{then}",
            "last_instance_at": "{then}", "ready_at": "{then}", "claimed_at": "{then}",
            "ended_at": _ENDED(in_work=_IN_WORK, value="{then}"), "lease_until": "{then}",
            "p_present": _ENDED(in_work=_IN_WORK, value="(i % 997) / 997.0"), "turn": f"i / {SITES}",
            "holds_images": f"CASE WHEN i <= :last - {12_000 + 2 * AT_WORK} - :waiting AND i % 5 = 2 THEN {{yes}} ELSE {{no}} END",
        },
    ),
    "instance": (
        "i > 0",
        {
            "id": "i", "sop_instance_uid": "'2.25.4' || i", "series_id": "i",
            "association_id": "CASE WHEN i < 5 THEN 1 ELSE i / 5 END", "path": "'instances/' || i", "sha256": "''",
            "size_bytes": "526336", "header": f"'{_HEADER}'", "received_at": "{then}",
        },
    ),
    "report": (
        _IS_REPORTED,
        {
            "id": "i", "series_id": "i", "revision": "1", "sop_instance_uid": "'2.25.5' || i",
            "path": "'reports/' || i", "sha256": "''", "size_bytes": "20000", "outcome": _OUTCOME, "reason": "''",
            "detail": "''", "model": "'0.1'", "lesions": "'[]'", "created_at": "{then}",
            "p_present": "(i % 997) / 997.0", "notify": "CASE WHEN i % 250 = 0 THEN {yes} END",
        },
    ),
    "delivery": (
        _IS_REPORTED,
        {
            "id": "i", "report_id": "i", "destination": "'PACS'",
            "stage": f"CASE WHEN {_PENDING} THEN 'pending' ELSE 'delivered' END", "attempts": "1",
            "created_at": "{then}", "next_attempt_at": f"CASE WHEN {_PENDING} THEN {{then}} END",
            "last_error": f"CASE WHEN {_PENDING} THEN 'away' ELSE '' END", "delivered_at": "{then}",
        },
    ),
    "review": (
        f"{_IS_REPORTED} AND i % 5 = 0",
        {
            "case_id": "i", "series_instance_uid": "'2.25.1' || i", "revision": "1", "version": "1",
            "acknowledged_at": "{then}", "acknowledged_by": "'reader'", "assigned_to": "''", "verdicts": "'[]'",
        },
    ),
    "measured": (
        _IS_ANSWERED,
        {
            "id": "i", "at": "{then}", "site": f"'SITE' || (i % {SITES})", "scanner": f"'Acme / ' || (i % {3 * SITES})",
            "kernel": "'H40s'", "model": "'0.1'", "outcome": _OUTCOME, "limited": "{no}", "p_present": "(i % 997) / 997.0",
            "noise_hu": "10 + (i % 11)",
        },
    ),
}  # fmt: skip
"""Of each table which numbers have a row, and its columns."""


def is_filled(store: Store) -> bool:
    """Whether `fill` has made what is in it."""
    case = store.worklist.case("1")
    return case is not None and (case["patient_id"], case["series_instance_uid"]) == ("P1", "2.25.11")


def fill(store: Store, count: int, waiting: int) -> None:
    """`count` series are there, of which `waiting` are ready.

    Raises ValueError, changing nothing, for a database that holds anything: the tables are emptied first.
    """
    kind = store.transactions.engine.dialect.name
    with store.transactions.engine.connect() as connection:
        for table in _TABLES:
            if connection.scalar(text(f"SELECT 1 FROM {table} LIMIT 1")):
                raise ValueError(
                    f"{store.transactions.engine.url!r}: its table {table} is not empty, and what is in it would be lost; "
                    "name a database that was made for this"
                )
    no, yes = ("0", "1") if kind == "sqlite" else ("false", "true")
    then = _THEN[kind].format(now=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    values = {"last": count, "waiting": waiting, "gap": 5 * max(1, count // (5 * AT_WORK))}
    with store.transactions.engine.begin() as connection, _without_indexes(connection):
        for table, (which, columns) in _TABLES.items():
            made = ", ".join(columns.values()).replace("{then}", then).replace("{no}", no).replace("{yes}", yes)
            statement = f"INSERT INTO {table} ({', '.join(columns)}) {_NUMBERS[kind].format(made, which)}"
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(text(statement), used)
        if kind == "postgresql":  # where no trigger has counted them
            connection.execute(text(at_end.counted()))
    while store.at_end.fold():
        pass
    if kind == "postgresql":  # whose autovacuum does so; no SQLite database of a node is ever analysed
        with store.transactions.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def _without_indexes(connection: Connection) -> Iterator[None]:
    """On PostgreSQL indexes are made again, and keys known, once the rows are there: that takes a third of the time."""
    if connection.dialect.name != "postgresql":
        yield
        return
    names = ", ".join(f"'{table}'::regclass" for table in _TABLES)
    connection.exec_driver_sql(f"TRUNCATE {', '.join(_TABLES)} CASCADE")  # so that nothing of them need be in the log
    keys = connection.exec_driver_sql(
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        f"WHERE contype IN ('f', 'u') AND conrelid IN ({names}) ORDER BY contype"
    ).all()
    for table, name, _ in keys:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    indexes = connection.exec_driver_sql(
        f"SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index "
        f"WHERE NOT indisprimary AND indrelid IN ({names})"
    ).all()
    for name, _ in indexes:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    for table in _TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '512MB'")
    yield
    for _, made in indexes:
        connection.exec_driver_sql(made)
    for table, name, definition in reversed(keys):  # those that others refer to first
        checked = "" if definition.startswith("UNIQUE") else " NOT VALID"
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{checked}")
    for table in _TABLES:
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        if table != "review":
            highest = f"(SELECT MAX(id) FROM {table})"
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {highest})")
