"""Statements compiled once, for what is done for every instance: the driver itself executes them.

To look a statement up, bind its values and wrap its result takes SQLAlchemy several times as long as SQLite takes to do it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import Select


class Prepared:
    """A statement in the words of one database's driver, with SQLAlchemy's types."""

    def __init__(self, statement: UpdateBase | Select[Any], dialect: Dialect, columns: Iterable[str] = ()) -> None:
        """An INSERT is of these `columns`."""
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(columns) or None)
        self._text = compiled.string
        self._names: Sequence[str] = compiled.positiontup or list(compiled.params)
        self._by_name = compiled.positiontup is None
        self._constants = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        self._to_driver = {
            name: convert
            for name in self._names
            if (convert := compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
        }
        self._from_driver: list[Callable[[Any], Any]] = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) or _as_it_is
            for column in statement.exported_columns
        ]

    def first(self, connection: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The statement was executed with `values`; its first row, None without one.  Raises the driver's errors."""
        given = {**self._constants, **values}
        for name, convert in self._to_driver.items():
            given[name] = convert(given[name])
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._text, given if self._by_name else [given[name] for name in self._names])
            row = cursor.fetchone() if self._from_driver else None
        finally:
            cursor.close()
        return None if row is None else tuple(c(v) for c, v in zip(self._from_driver, row, strict=True))


def _as_it_is(value: Any) -> Any:
    return value
