"""Power is lost after every system call of a node; whatever was acknowledged is there after the next start, and reports are whole."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select

from node.config.sections import Config
from node.scp.receiver import Receiver
from storage.database.schema import InstanceRow, ObjectRow, ReportRow
from storage.errors import Damaged
from storage.files.instances import Files
from storage.records import StoredFile
from storage.store import Store
from tests.conftest import PostgreSQL
from tests.faults.committed import CommitsSeen, CommittedAtOnce, without_commits
from tests.faults.power_loss import Choice, Step, renamed_to, without_flushes
from tests.faults.proof import violations
from tests.faults.recorded import SENT, Left, Recorded, a_node, a_receiver, a_receiver_on_postgresql
from tests.faults.small_node import configuration
from tests.support.absent import absent

pytestmark = pytest.mark.faults
FULL = "WILLIS_KILLS" in os.environ


def is_database(path: str) -> bool:
    """Whether the path is one of SQLite's."""
    return "willis.db" in path.rpartition("/")[2]


def by_chance(seed: int) -> Choice:
    """Each unflushed write and name survives or not."""
    random = Random(seed)
    return lambda _path, _is_name: random.random() < 0.5


CHOICES: dict[str, Callable[[int], Choice]] = {
    "nothing unflushed": lambda _seed: lambda _path, _is_name: False,
    "everything": lambda _seed: lambda _path, _is_name: True,
    "names without contents": lambda _seed: lambda _path, is_name: is_name,
    "contents without names": lambda _seed: lambda _path, is_name: not is_name,
    "only the database": lambda _seed: lambda path, _is_name: is_database(path),
    "only the files": lambda _seed: lambda path, _is_name: not is_database(path),
    "by chance": by_chance,
    "by another chance": lambda seed: by_chance(seed + 1_000_000),
}
"""What survives of what was not flushed."""
SHORT = ["nothing unflushed", "only the database"]
WITHOUT_SQLITE = ["nothing unflushed", "names without contents", "contents without names", "by chance", "everything"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder to record in; strace is needed (in CI: or it fails)."""
    if shutil.which("strace") is None:
        absent("strace is not installed: apt-get install strace")
    with tempfile.TemporaryDirectory(prefix="willis-power-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def receiver(folder: Path) -> Recorded:
    """The same recording for every test."""
    (folder / "sqlite").mkdir()
    return a_receiver(folder / "sqlite")


@pytest.fixture(scope="module")
def on_postgresql(folder: Path, postgresql_server: PostgreSQL) -> Recorded:
    """The same recording for every test: one in which no two transactions committed at once, which have no order."""
    for attempt in range(20):
        (folder / f"pg{attempt}").mkdir()
        with suppress(CommittedAtOnce), postgresql_server.database(template="migrated") as url:
            recorded = a_receiver_on_postgresql(folder / f"pg{attempt}", url)
            seen = CommitsSeen()
            for step in recorded.steps:
                seen.see(step)
            assert len(recorded.databases) > seen.begun
            return recorded
    raise AssertionError("in each of 20 recordings two transactions committed at once")


@pytest.fixture(scope="module")
def node(folder: Path) -> Recorded:
    """The same recording for every test."""
    (folder / "whole").mkdir()
    return a_node(folder / "whole")


def found_at_the_next_start(folder: Path, config: Config, safe_message: set[str], left: Left) -> list[str]:
    """What is wrong once a receiver has recovered on what power loss left."""
    for path, content in left.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    files = Files(folder)
    store = Store.open(config.storage.url)
    try:
        receiver = Receiver(config, store, files, lambda: None)
        receiver._recover()
        files.sweep_incoming(lambda _writer: True)
        return [
            *violations(store, files, {uid: SENT[uid] for uid in safe_message}),
            *rows_without_a_file(store, files),
        ]
    finally:
        store.close()


def rows_without_a_file(store: Store, files: Files) -> Iterator[str]:
    """Instances, reports and what belongs to them that the database has and the disk has not, or not whole."""
    with store.transactions.reading() as session:
        for row in session.execute(select(InstanceRow.path, InstanceRow.sha256, InstanceRow.size_bytes)):
            if not files.holds(StoredFile(*row)):
                yield f"{row.path} is in the database and not on disk"
        for table in (ReportRow, ObjectRow):
            for row in session.execute(select(table.path, table.sha256, table.size_bytes)):
                try:
                    files.verify(StoredFile(*row))
                except Damaged as error:
                    yield f"a report is in the database: {error}"


def first_found(recorded: Recorded, steps: list[Step], choice: str, root: Path) -> tuple[int, list[str]]:
    """How many states of the disk were started from, and what was wrong with the first that was wrong."""
    count = 0
    for number, safe_message, left in recorded.crashes(steps, CHOICES[choice]):
        count += 1
        folder = root / str(count)
        folder.mkdir()
        found = found_at_the_next_start(folder, configuration(folder, recorded.port, 1), safe_message, left)
        shutil.rmtree(folder)
        if found:
            return count, [f"after step {number} of {len(steps)}, {choice} survived:", *found]
    return count, []


@pytest.mark.parametrize("choice", CHOICES if FULL else SHORT)
def test_whatever_was_acknowledged_survives_power_loss_at_any_moment(
    receiver: Recorded, tmp_path: Path, choice: str
) -> None:
    count, found = first_found(receiver, receiver.steps, choice, tmp_path)
    assert found == []
    assert count > 20
    print(f"{choice}: {count} states of the disk")


@pytest.mark.parametrize("forgotten", ["files", "folders", "database"])
def test_a_flush_that_is_left_out_is_noticed(receiver: Recorded, tmp_path: Path, forgotten: str) -> None:
    kinds = {
        "files": lambda path: "/incoming/" in path,
        "folders": lambda path: "/instances" in path,
        "database": is_database,
    }
    steps = without_flushes(receiver.steps, kinds[forgotten])
    assert len(steps) < len(receiver.steps)
    _, found = first_found(receiver, steps, "nothing unflushed", tmp_path)
    assert any("was acknowledged and" in line for line in found), found


@pytest.mark.postgresql
@pytest.mark.parametrize("choice", WITHOUT_SQLITE if FULL else WITHOUT_SQLITE[:1])
def test_the_same_where_postgresql_may_have_committed_what_it_has_not_answered_yet(
    on_postgresql: Recorded, tmp_path: Path, choice: str
) -> None:
    count, found = first_found(on_postgresql, on_postgresql.steps, choice, tmp_path)
    assert found == []
    assert count > 20
    print(f"PostgreSQL, {choice}: {count} states of the disk")


@pytest.mark.postgresql
@pytest.mark.parametrize("forgotten", ["files", "folders", "commit"])
def test_a_flush_or_a_commit_that_is_not_waited_for_is_noticed_with_postgresql(
    on_postgresql: Recorded, tmp_path: Path, forgotten: str
) -> None:
    kinds = {"files": "/incoming/", "folders": "/instances"}
    steps = without_commits(on_postgresql.steps)
    if forgotten in kinds:
        steps = without_flushes(on_postgresql.steps, lambda path: kinds[forgotten] in path)
    assert len(steps) < len(on_postgresql.steps)
    _, found = first_found(on_postgresql, steps, "nothing unflushed", tmp_path)
    assert any("was acknowledged and" in line for line in found), found


@pytest.mark.parametrize("choice", CHOICES if FULL else SHORT[1:])
def test_every_report_in_the_database_is_whole_on_disk_after_power_loss_at_any_moment(
    node: Recorded, tmp_path: Path, choice: str
) -> None:
    count, found = first_found(node, node.steps, choice, tmp_path)
    assert found == []
    assert count > 20
    print(f"the whole node, {choice}: {count} states of the disk")


@pytest.mark.parametrize("forgotten", ["files", "folders"])
def test_a_flush_of_a_report_that_is_left_out_is_noticed(node: Recorded, tmp_path: Path, forgotten: str) -> None:
    temporaries = renamed_to(node.steps, "/reports/")
    assert len(temporaries) == 2
    of = {"files": lambda path: path in temporaries, "folders": lambda path: "/reports" in path}
    steps = without_flushes(node.steps, of[forgotten])
    assert len(steps) < len(node.steps)
    _, found = first_found(node, steps, "nothing unflushed", tmp_path)
    assert any("a report is in the database" in line for line in found), found
