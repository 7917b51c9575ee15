"""A host whose clock is not the database server's waits until it is set."""

from datetime import timedelta
from pathlib import Path

import pytest

from node.config.sections import Config
from node.runtime.clock import utc_now
from node.workflow import supervisor
from node.workflow.namesakes import Look, require_own_name
from node.workflow.own_clock import ClockDiffers, require_clock_of_server
from storage.store import Store
from tests.conftest import PostgreSQL, running_postgresql


@pytest.mark.postgresql
@pytest.mark.parametrize(("minutes", "side"), [(10, "600 s ahead of"), (-10, "600 s behind")])
def test_a_clock_that_is_wrong_is_named_with_the_remedy(postgresql_server: PostgreSQL, minutes: int, side: str) -> None:
    with postgresql_server.database(template="migrated") as url:
        store = Store.open(url)
        require_clock_of_server(store)
        with pytest.raises(ClockDiffers, match=rf"this host's clock is {side} the database server's.*`timedatectl`"):
            require_clock_of_server(store, lambda: utc_now() + timedelta(minutes=minutes))
        store.close()


def test_sqlite_has_the_clock_of_its_host(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    require_clock_of_server(store, lambda: utc_now() + timedelta(minutes=10))
    store.close()


def test_a_node_waits_until_its_clock_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sqlite_url: str, tmp_path: object
) -> None:
    tries = iter([ClockDiffers("this host's clock is 600 s ahead"), None])

    def checked(_store: Store) -> None:
        if error := next(tries):
            raise error

    monkeypatch.setattr(supervisor, "require_clock_of_server", checked)
    values = {"storage": {"directory": tmp_path, "database_url": sqlite_url}, "audit": {"file": ""}}
    waited: list[float] = []
    node = supervisor._waited_for(lambda: supervisor.Supervisor(Config.model_validate(values), []), waited.append)
    assert len(waited) == 1
    assert "clock_differs" in "".join(capsys.readouterr())
    node._store.close()


@pytest.mark.postgresql
def test_a_node_waits_for_a_database_that_is_lost_while_it_looks_for_hosts_of_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with running_postgresql() as server:
        dies = iter([True, False])

        def look_as_it_dies(look: Look) -> None:
            if next(dies):
                server.kill()
            require_own_name(look)

        monkeypatch.setattr(supervisor, "require_own_name", look_as_it_dies)
        values = {"storage": {"directory": tmp_path, "database_url": server.url("migrated")}, "audit": {"file": ""}}
        node = supervisor._waited_for(
            lambda: supervisor.Supervisor(Config.model_validate(values), []), lambda _seconds: server.start()
        )
        said = "".join(capsys.readouterr())
        assert "database_away" in said
        assert "cannot be opened" in said
        node._store.close()
