"""`willis retry --notifications`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.main import app
from node.runtime.notify import NODE_PROCESS, Wakeup
from storage.queries.notifications import Notification
from storage.store import Store
from tests.support.builders import LEASE, START


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose folder is the test's own."""
    path = tmp_path / "willis.toml"
    path.write_text(f"[storage]\ndirectory = {str(tmp_path)!r}\n")
    return path


@pytest.mark.usefixtures("logging_restored")
def test_dead_notifications_are_pending_again_and_the_node_is_woken(config: Path) -> None:
    store = Store.open(f"sqlite:///{config.parent / 'willis.db'}")
    store.notifications.add([Notification("on-call", "positive", "1.1", START, START, 1, 1)])
    claimed = store.notifications.due.claim(START, LEASE)
    assert claimed is not None
    store.notifications.refused(claimed, "AR", START)
    assert store.notifications.due.claim(START + LEASE, LEASE) is None
    with Wakeup(config.parent, NODE_PROCESS) as node:
        result = CliRunner().invoke(app, ["retry", "--notifications", "--config", str(config)])
        assert node.wait(0)
    assert (result.exit_code, result.stdout) == (0, "1 notification is pending again\n")
    assert store.notifications.due.claim(START + LEASE, LEASE) is None, "due as of now, which is later"
    store.close()


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("arguments", [[], ["7", "--notifications"]])
def test_a_case_or_the_notifications_and_not_both(config: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["retry", *arguments, "--config", str(config)])
    assert (result.exit_code, result.stderr) == (1, "willis: name a case, or write --notifications\n")
