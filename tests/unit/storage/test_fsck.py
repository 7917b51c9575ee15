"""`willis fsck` on either database with real files: every kind of difference is found, mended or not, and nothing deleted."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from node.cli.main import app
from storage.files.instances import Files
from storage.fsck import GRACE_SECONDS, Checked, Difference, Kind, check
from storage.queries.retention import Removal, Why
from storage.records import ReportObject
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, conclusion, keep
from tests.support.dicom_factory import ct_series

Spoil = Callable[[Store, Files], None]


@pytest.fixture
def whole(store: Store, files: Files, clock: FakeClock) -> Store:
    """A store with a series of three slices and its report, as the node leaves them."""
    fill(store, files, clock)
    return store


def fill(store: Store, files: Files, clock: FakeClock) -> None:
    series = keep(store, files, clock, ct_series(3))
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    claim = store.queue.claim("worker", clock(), LEASE, 3)
    assert claim is not None
    report = ReportObject("2.25.9", files.write_report("2.25.9", b"report"))
    assert store.queue.finish(claim, conclusion(), report, ["PACS"], clock())


def after_grace() -> float:
    """When all that lies here is old enough to be judged."""
    return time.time() + 2 * GRACE_SECONDS


def first(files: Files, room: str = "instances") -> Path:
    return min((files.root / room).rglob("*.dcm"))


def found(store: Store, files: Files, repair: bool = False) -> list[tuple[Kind, bool]]:
    said = list(check(store, files, repair, after_grace()))
    assert isinstance(said[-1], Checked)
    return [(one.kind, one.mended) for one in said if isinstance(one, Difference)]


def everything(files: Files) -> list[bytes]:
    return sorted(path.read_bytes() for path in files.root.rglob("*") if path.is_file())


def unlink(room: str) -> Spoil:
    return lambda _store, files: first(files, room).unlink()


def turn_a_bit(room: str) -> Spoil:
    def turn(_store: Store, files: Files) -> None:
        content = bytearray(first(files, room).read_bytes())
        content[-1] ^= 1
        first(files, room).write_bytes(content)

    return turn


def add(name: str) -> Spoil:
    def write(_store: Store, files: Files) -> None:
        path = files.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stray")

    return write


def beside(_store: Store, files: Files) -> None:
    first(files).with_name("other.dcm").write_bytes(b"stray")


def miscount(store: Store, _files: Files) -> None:
    with store.transactions.writing() as session:
        session.execute(text("UPDATE series SET instance_count = 7"))


def test_a_whole_store_has_no_difference(whole: Store, files: Files) -> None:
    assert list(check(whole, files, now_seconds=after_grace())) == [Checked(series=1, files=4)]


@pytest.mark.parametrize(
    ("spoil", "kind", "mended"),
    [
        (unlink("instances"), Kind.MISSING, False),
        (unlink("reports"), Kind.MISSING, False),
        (turn_a_bit("instances"), Kind.DAMAGED, False),
        (turn_a_bit("reports"), Kind.DAMAGED, False),
        (beside, Kind.STRAY, True),
        (add("instances/ab/abcd/x-y.dcm"), Kind.STRAY, True),
        (add("reports/ab/x-y.dcm"), Kind.STRAY, True),
        (add("incoming/abcd"), Kind.HALF_WRITTEN, False),
        (miscount, Kind.COUNT, True),
    ],
)
def test_each_difference_is_found_and_mended_where_it_can_be_and_nothing_is_deleted(
    whole: Store, files: Files, spoil: Spoil, kind: Kind, mended: bool
) -> None:
    spoil(whole, files)
    before = everything(files)
    assert found(whole, files) == [(kind, False)]
    assert found(whole, files, repair=True) == [(kind, mended)]
    assert found(whole, files) == ([] if mended else [(kind, False)])
    assert everything(files) == before


def test_what_is_younger_than_the_grace_may_be_on_its_way(whole: Store, files: Files) -> None:
    beside(whole, files)
    add("incoming/abcd")(whole, files)
    assert [one for one in check(whole, files, repair=True) if isinstance(one, Difference)] == []


@pytest.mark.parametrize("asked", ["holds", "verify"])
@pytest.mark.parametrize("forgotten", [True, False])
def test_what_retention_removes_meanwhile_is_not_missing(
    whole: Store, files: Files, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, asked: str, forgotten: bool
) -> None:
    delivery = whole.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    whole.outbox.accepted(delivery, clock())
    look = getattr(Files, asked)
    begun: list[Removal] = []

    def remove_first(self: Files, file: Any) -> Any:
        if not begun:
            removal = whole.retention.begin(1, Why.AGE, clock(), clock())
            assert removal is not None
            files.move((path, f"{removal.folder}/{index}") for index, path in enumerate(removal.paths))
            assert not forgotten or whole.retention.forget(removal, clock())
            begun.append(removal)
        return look(self, file)

    monkeypatch.setattr(Files, asked, remove_first)
    assert found(whole, files) == []


def test_sending_again_mends_what_is_missing_or_damaged(whole: Store, files: Files) -> None:
    kept = [(head, files.path(file), files.read(file)) for head, file in whole.settling.instances(1)[:2]]
    kept[0][1].unlink()
    kept[1][1].write_bytes(b"x")
    for head, _, content in kept:
        meta = 144 + int.from_bytes(content[140:144], "little")
        writer = files.begin_instance(content[:meta])
        writer.write(content[meta:])
        writer.seal(head.series_instance_uid, head.sop_instance_uid)
        writer.publish()
        writer.flush()
    assert found(whole, files) == []


def test_the_command_tells_each_difference_and_its_remedy(
    sqlite_store: Store, tmp_path: Path, files: Files, clock: FakeClock, logging_restored: None
) -> None:
    fill(sqlite_store, files, clock)
    url = f"sqlite:///{tmp_path / 'willis.db'}"
    config = tmp_path / "config.toml"
    config.write_text(f'[storage]\ndirectory = "{files.root}"\ndatabase_url = "{url}"\n', "utf-8")

    def run(*options: str) -> Any:
        return CliRunner().invoke(app, ["fsck", "--config", str(config), *options])

    assert (run().exit_code, "1 series and 4 files compared" in run().stdout) == (0, True)
    beside(sqlite_store, files)
    os.utime(first(files).with_name("other.dcm"), (0, 0))
    said = run()
    assert said.exit_code == 1
    assert "stray: instances/" in said.stdout
    assert "--repair moves it to strays" in said.stdout
    assert "1 difference remains, 0 mended" in said.stdout
    (line, summary) = run("--json").stdout.splitlines()
    assert json.loads(line)["kind"] == "stray"
    assert json.loads(summary) == {"series": 1, "files": 4}
    assert run("--repair").exit_code == 0
    assert len(list((files.root / "strays").iterdir())) == 1
    first(files).unlink()
    assert "send the instance again" in run("--repair").stdout
