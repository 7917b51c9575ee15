"""A receiver of the test's own, and what it has kept."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from node.config.sections import Config
from node.scp.receiver import Receiver
from storage.database.schema import AssociationRow, InstanceRow
from storage.files.instances import Files
from storage.records import StoredFile
from storage.store import Store
from tests.support.dicom_factory import ct_series
from tests.support.running import free_port

ABORT_PDU = 7
Start = Callable[..., int]


@pytest.fixture
def start(sqlite_store: Store, files: Files) -> Iterator[Start]:
    """Starts a receiver on a port of its own, with settings of [node]; returns the port."""
    receivers: list[Receiver] = []

    def begin(**settings: Any) -> int:
        port = free_port()
        receiver = Receiver(
            Config.model_validate({"node": {"port": port, **settings}}), sqlite_store, files, lambda: None
        )
        receiver.start()
        receivers.append(receiver)
        return port

    yield begin
    for receiver in receivers:
        receiver.stop()


@pytest.fixture
def port(start: Start) -> int:
    """The port of a receiver with the usual settings."""
    return start()


def rows(store: Store) -> list[InstanceRow]:
    with store.transactions.reading() as session:
        return session.query(InstanceRow).order_by(InstanceRow.id).all()


def how_they_closed(store: Store) -> list[str | None]:
    with store.transactions.reading() as session:
        return [row.closed for row in session.query(AssociationRow).order_by(AssociationRow.id)]


def leftovers(files: Files) -> list[Path]:
    return list((files.root / "incoming").iterdir())


def kept_dataset(files: Files, row: InstanceRow) -> bytes:
    content = (files.root / row.path).read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def slices(count: int = 1, **changes: Any) -> list[Dataset]:
    return ct_series(count, **changes)


def kept_file(row: InstanceRow) -> StoredFile:
    return StoredFile(row.path, row.sha256, row.size_bytes)
