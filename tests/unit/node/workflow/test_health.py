"""What health finds in the database."""

from datetime import timedelta
from pathlib import Path

from node.config.sections import Config
from node.workflow.health import facts_of
from storage.running import ResultsGivenUp
from storage.store import Store
from tests.support.builders import FakeClock


def test_results_that_were_given_up_are_known_until_the_peer_gets_one_or_for_some_days(
    sqlite_store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    url, requests = str(sqlite_store.transactions.engine.url), sqlite_store.commitment_requests
    config = Config.model_validate({"storage": {"directory": tmp_path, "database_url": url}})

    def given_up() -> dict[str, int]:
        return {each.peer: each.number for each in facts_of(config, clock()).results_given_up}

    for uid, peer in (("1.1", "CT1"), ("1.2", "CT1"), ("1.3", "CT2"), ("1.4", "CT3")):
        request = requests.add(uid, peer, [("1.2", "1.3")], clock.advance(1), clock())
        assert request is not None
        if peer != "CT3":  # that one is owed still
            requests.postponed(request, f"no association with {peer}", None)
    assert given_up() == {"CT1": 2, "CT2": 1}
    [first, _] = facts_of(config, clock()).results_given_up
    assert first == ResultsGivenUp("CT1", 2, clock() - timedelta(seconds=2), "no association with CT1")
    again = requests.add("1.5", "CT1", [("1.2", "1.3")], clock.advance(1), clock())
    assert again is not None
    requests.answered(again, clock.advance(1))
    assert given_up() == {"CT2": 1}, "CT1 can be reached again"
    clock.advance(11 * 86_400)
    assert given_up() == {}
