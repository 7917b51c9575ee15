"""The node is killed at random moments under load: `WILLIS_KILLS` times, a handful without it."""

import itertools
import os
import threading
from pathlib import Path
from random import Random

import pytest

from node.simulated_pacs import SimulatedPeer
from tests.faults.proof import unreported, violations
from tests.faults.senders import send, small_series
from tests.faults.small_node import ALGORITHM, Killable, SmallNode, configuration
from tests.support.running import free_port, wait_until

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get("WILLIS_KILLS", "4"))
SENDERS = 3


class Load:
    """Senders that send one small series after the other, each until all of it was acknowledged."""

    def __init__(self, port: int) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self._stopping, self._gives_up = threading.Event(), threading.Event()
        self._port = port
        self._numbers = itertools.count(1)
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stopping.is_set():
            series = small_series(next(self._numbers))
            while not send(self._port, series, self.acknowledged):
                if self._gives_up.wait(0.05):  # else it will be there again
                    return

    def stop(self) -> None:
        """Every series that was begun was acknowledged."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def give_up(self) -> None:
        """Nothing is sent any longer, acknowledged or not."""
        self._stopping.set()
        self._gives_up.set()


@pytest.mark.timeout(60 + 20 * KILLS)
def test_random_kills_under_load_lose_nothing_and_make_no_second_report(tmp_path: Path) -> None:
    seed = int(os.environ.get("WILLIS_SEED", "0")) or Random().randrange(1 << 30)
    print(f"WILLIS_SEED={seed}")
    random, port = Random(seed), free_port()
    peer = SimulatedPeer(tmp_path / "pacs")
    pacs_port = peer.start(0)
    load = Load(port)
    try:
        for _ in range(KILLS):
            with Killable(tmp_path / "node", port, pacs_port):
                threading.Event().wait(random.uniform(0.0, 1.5))
        with SmallNode(configuration(tmp_path / "node", port, pacs_port)) as node:
            load.stop()
            assert violations(node.store, node.files, load.acknowledged) == []

            def ended() -> bool:
                node.step()
                return not unreported(node.store, peer.folder, ALGORITHM.version, revision=None)

            wait_until(ended, 60 + KILLS, "every series is reported")
            assert violations(node.store, node.files, load.acknowledged) == []
            print(f"{KILLS} kills, {len(load.acknowledged)} instances acknowledged, {len(peer.requests)} reports sent")
    finally:
        load.give_up()
        peer.stop()
