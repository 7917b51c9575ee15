"""How a database finds what it is asked for: the plans of the statements that a call makes, and how much it goes through.

What the receiver prepares itself (`storage.database.prepared`) goes past the engine, and is not seen.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, event

from storage.store import Store

_ABOUT_ROWS = ("SELECT", "UPDATE", "DELETE", "WITH")
_STEPS = 100


def plans(store: Store, ask: Callable[[], Any]) -> list[str]:
    """The plan of each statement, as lines; what the call changes is not changed again."""
    is_sqlite = store.transactions.engine.dialect.name == "sqlite"
    begin = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN (ANALYZE, BUFFERS) "
    return [str(row[-1]) for rows in _explained(store, ask, begin) for row in rows]


def effort(store: Store, ask: Callable[[], Any]) -> int:
    """How much the database goes through: on PostgreSQL rows and entries of indexes, on SQLite steps of its machine."""
    if store.transactions.engine.dialect.name == "sqlite":
        return _steps(store, ask)
    found = _explained(store, ask, "EXPLAIN (ANALYZE, FORMAT JSON) ")
    return sum(_rows(node) for [[plan]] in found for node in _nodes(_decoded(plan)[0]["Plan"]))


def _steps(store: Store, ask: Callable[[], Any]) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += _STEPS
        return 0

    def begin(_connection: Connection, cursor: Any, *_: Any) -> None:
        cursor.connection.set_progress_handler(count, _STEPS)

    engine = store.transactions.engine
    event.listen(engine, "before_cursor_execute", begin)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", begin)
        engine.dispose()  # and with the connections what counts
    return steps


def _rows(node: dict[str, Any]) -> int:
    """What a node of a plan reads of a table, used or not."""
    if "Relation Name" not in node and "Index Name" not in node:
        return 0
    removed = sum(value for name, value in node.items() if name.startswith("Rows Removed"))
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _decoded(plan: Any) -> Any:
    return json.loads(plan) if isinstance(plan, str) else plan


def _explained(store: Store, ask: Callable[[], Any], begin: str) -> list[Any]:
    """What the database answers to each statement of the call with this in front of it."""
    found, engine = list[tuple[str, Any]](), store.transactions.engine

    def note(_connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().upper().startswith(_ABOUT_ROWS):
            found.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    answers = []
    for statement, parameters in found:
        with engine.connect() as connection:
            answers.append(connection.exec_driver_sql(begin + statement, parameters).all())
            connection.rollback()
    return answers
