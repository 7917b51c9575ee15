"""Whatever runs at the site is killed under load, one after the other, or the object store is away for a moment."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from tests.scale_demo.shown import waits
from tests.scale_demo.site import Say, Site
from tests.soak.load import Load
from tests.soak.proof import Verdict, of_cases, waiting
from tests.support.running import wait_until

AWAY_SECONDS = 2.0
"""Of what nobody starts again by itself: a host, the scheduler, the object store."""
SHARES = {"cta": 0.7, "broken_off": 0.1, "other": 0.1, "query": 0.1}
"""What the senders do."""
SECONDS_BETWEEN = 2.0
"""Between the beginnings of two studies."""
DRAINED_SECONDS = 600.0


class Kills:
    """What can happen to the site, by name."""

    def __init__(self, site: Site, random: Random) -> None:
        """Nothing has happened yet."""
        self._site, self._random = site, random
        self.kinds: dict[str, Callable[[], object]] = {
            "a busy worker of the engine": self._busy_worker,
            "the scheduler": lambda: site.kill_scheduler(AWAY_SECONDS),
            "a host": lambda: site.kill_host(self._host(), AWAY_SECONDS),
            "a receiver": lambda: self._process_of_a_host(b"receive"),
            "a host's own worker": lambda: self._process_of_a_host(b"work"),
            "the object store, away": self._store_away,
        }
        self.done: Counter[str] = Counter()

    def some(self, count: int) -> Iterator[str]:
        """So many have happened, of every kind about as many, in a drawn order; each is named before it happens."""
        kinds: list[str] = []
        for _ in range(count):
            kinds = kinds or self._random.sample(list(self.kinds), len(self.kinds))
            kind = kinds.pop()
            yield kind
            self.kinds[kind]()
            self.done[kind] += 1

    def _host(self) -> str:
        return self._random.choice(list(self._site.hosts.nodes))

    def _busy_worker(self) -> None:
        wait_until(self._site.serves, 240, "the engine has a worker")
        self._site.kill_a_busy_worker()

    def _process_of_a_host(self, role: bytes) -> None:
        node = self._site.hosts.nodes[self._host()]
        os.kill(wait_until(lambda: node.child(role), 90, f"{node.folder.name} has {role.decode()}"), signal.SIGKILL)

    def _store_away(self) -> None:
        self._site.s3.stop()
        time.sleep(AWAY_SECONDS)
        self._site.s3.start()


def killed_under_load(site: Site, count: int, seed: int, say: Say) -> tuple[Verdict, dict[str, float]]:
    """What is wrong after so many kills, when nothing is under way any longer; and how long each report was waited for."""
    random = Random(seed)
    kills, load = (
        Kills(site, random),
        Load(site.hosts.address, site.hosts.address, SECONDS_BETWEEN, seed, shares=SHARES),
    )
    load.start()
    try:
        for kind in kills.some(count):
            time.sleep(random.uniform(0.5, 4.0))
            say(f"kill -9: {kind}")
    finally:
        load.stop()
    wait_until(lambda: not any(waiting(site.hosts.store).values()), DRAINED_SECONDS, "nothing is under way")
    say(", ".join(f"{kind}: {number}" for kind, number in kills.done.items()))
    found = of_cases(site.hosts.store, site.hosts.where, load.sent, site.hosts.pacs.folder)
    return found, waits(site, load.sent.series)
