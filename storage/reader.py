"""The worklist for a program that changes nothing and is to answer at once."""

from storage.database.plain import Reading, reading_sqlite
from storage.queries.worklist import Worklist


def open_worklist(url: str) -> Worklist:
    """The worklist of the database at `url`, which is made where there is none.  Raises DatabaseUnusable."""
    if reading := reading_sqlite(url):
        return Worklist(reading)
    from storage.store import Store  # and with it SQLAlchemy

    return Store.open(url).worklist


def open_reading(url: str) -> Reading:
    """Transactions that only read the database at `url`; as of `open_worklist`.  Raises DatabaseUnusable."""
    if reading := reading_sqlite(url):
        return reading
    from storage.store import Store  # and with it SQLAlchemy

    return Store.open(url).transactions.reading_plainly
