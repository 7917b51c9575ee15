"""Two hosts with PostgreSQL, an object store, a balancer and an engine: `make scale-demo`, and more kills under load.

`WILLIS_HOST_KILLS` says how many, a handful without it.
"""

import importlib.util
import os
from collections.abc import Iterator
from random import Random

import pytest

from tests.conftest import PostgreSQL
from tests.scale_demo import __main__ as command
from tests.scale_demo.__main__ import demonstrate, missing
from tests.scale_demo.kills import killed_under_load
from tests.scale_demo.shown import Clock, waits
from tests.scale_demo.site import Site, running_site
from tests.support.absent import absent
from tests.support.object_store import ObjectStore, s3_server

__all__ = ["s3_server"]
pytestmark = [pytest.mark.faults, pytest.mark.postgresql]
KILLS = int(os.environ.get("WILLIS_HOST_KILLS", "3"))


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgreSQL, s3_server: ObjectStore
) -> Iterator[Site]:
    """One for all tests: it takes half a minute to start."""
    if importlib.util.find_spec("distributed") is None:
        absent("distributed is not installed: pip install --constraint constraints.txt '.[engine]'")
    s3_server.begin_anew()
    with running_site(tmp_path_factory.mktemp("scale-demo"), postgresql_server, s3_server) as running:
        yield running


def test_with_a_worker_and_a_host_killed_every_study_has_one_report(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    found = demonstrate(site, Clock())
    assert (found.lost, found.doubled) == ([], [])
    said = capsys.readouterr().out
    assert "cases: 12; reports in the PACS: 12; lost: 0; doubled: 0" in said
    assert all(f"worker-{number} analysed case" in said for number in (1, 2))
    rows = site.hosts.store.worklist.rows()
    assert max(row["attempts"] for row in rows) == 2, "the worker was killed in the middle of an analysis"
    for worker in site.workers:
        files = worker.folder / "files"
        assert not list((files / "instances").rglob("*.dcm"))
        assert list((files / "fetched").rglob("*.dcm")), "what it analysed came from the object store"


@pytest.mark.timeout(300 + 60 * KILLS)
def test_kills_of_every_part_under_load_lose_nothing_and_make_no_second_report(site: Site) -> None:
    seed = int(os.environ.get("WILLIS_SEED", "0")) or Random().randrange(1 << 30)
    print(f"WILLIS_SEED={seed}")
    found, kills = killed_under_load(site, KILLS, seed, Clock().say)
    assert (found.lost, found.doubled) == ([], [])
    print(f"{dict(kills)}, {found.counts}, the longest stall {max(waits(site).values()):.1f} s")


def test_what_the_command_lacks_it_names_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert missing() == []
    monkeypatch.setitem(command.PROGRAMS, "haproxy", ("no-such-program", "is the balancer"))
    assert command.main() == 2
    assert capsys.readouterr().err == "no-such-program was not found: it is the balancer; apt-get install haproxy\n"
