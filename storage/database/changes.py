"""Whether anything was written to a database: what costs a microsecond to ask, however many rows there are."""

import threading

from sqlalchemy import Connection, Engine

_ASKED = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT CAST(pg_current_snapshot() AS TEXT)"}
"""SQLite: a number that another connection's commit changes.  PostgreSQL: which transactions have ended in the cluster."""


class Changes:
    """Asks on a connection of its own, so that every commit is another connection's."""

    def __init__(self, engine: Engine) -> None:
        """`engine` comes from `open_database`."""
        self._engine = engine.execution_options(reads_only=True)
        self._statement = _ASKED[engine.dialect.name]
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def stamp(self) -> str:
        """What differs from its last value once anything was committed since.  Raises the database's errors."""
        with self._lock:
            if self._connection is None:
                self._connection = self._engine.connect()
            try:
                with self._connection.begin():
                    return str(self._connection.exec_driver_sql(self._statement).scalar())
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """No connection is held."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
