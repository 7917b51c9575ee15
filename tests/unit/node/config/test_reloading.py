"""What a reload takes from a changed configuration, and what it names."""

import threading
from typing import Any

from node.config.reloading import Reloading, reloaded
from node.config.sections import Config
from node.errors import ConfigError

TLS = {"certificate": "a.pem", "key": "a.key", "ca": "ca.pem"}


def config(**sections: Any) -> Config:
    return Config.model_validate(sections)


def test_model_and_certificates_are_taken_and_all_else_is_named() -> None:
    old = config(node={"tls": TLS}, peers={"A": {"ae_title": "A", "host": "a", "port": 1}})
    new = config(
        node={"tls": TLS | {"key": "b.key", "port": 2763}, "port": 104},
        ai={"bundle": "new", "shadow": "old", "flip": True, "precision": "float32", "threads": 2},
        completion={"quiet_seconds": 5},
        peers={"A": {"ae_title": "A", "host": "b", "port": 1}, "B": {"ae_title": "B", "host": "b", "port": 1}},
        notifications=[{"name": "n", "kind": "apprise", "url": "json://127.0.0.1", "events": ["positive"]}],
    )
    taken, needs_restart = reloaded(old, new)
    assert (str(taken.ai.bundle), str(taken.ai.shadow), taken.ai.flip, taken.ai.threads) == ("new", "old", True, 0)
    assert taken.ai.precision == "float32"
    assert taken.node.tls is not None
    assert (str(taken.node.tls.key), taken.node.tls.port, taken.node.port) == ("b.key", 2762, 11112)
    assert (taken.completion, taken.peers) == (old.completion, old.peers)
    assert set(needs_restart) == {
        "[node] port", "[node.tls] port", "[completion] quiet_seconds", "[ai] threads", "[peers.A]", "[peers.B]",
        "[[notifications]]",
    }  # fmt: skip


def test_tls_that_is_new_or_gone_needs_a_restart() -> None:
    for old, new in ((config(), config(node={"tls": TLS})), (config(node={"tls": TLS}), config())):
        taken, needs_restart = reloaded(old, new)
        assert (taken, needs_restart) == (old, ("[node.tls]",))


def test_what_cannot_be_read_or_used_changes_nothing_and_is_said_until_the_next_reload() -> None:
    old, answers = config(), list[Config | None]([None, config(ai={"bundle": "broken"}), config(ai={"flip": True})])
    asked = threading.Event()

    def read() -> Config:
        answer = answers.pop(0)
        if answer is None:
            raise ConfigError("not TOML")
        return answer

    def take(new: Config) -> str:
        if new.ai.bundle:
            raise ConfigError("[ai] bundle: it is broken")
        return "model 2"

    reloading = Reloading(asked, read)
    assert reloading.as_details() == {}
    for error in ("not TOML", "[ai] bundle: it is broken"):
        asked.set()
        assert reloading(old, take) is old
        assert reloading.as_details()["reload"]["error"] == error
        assert not asked.is_set()
    assert reloading(old, take).ai.flip
    assert (reloading.as_details()["reload"]["error"], reloading.as_details()["reload"]["taken"]) == ("", "model 2")
