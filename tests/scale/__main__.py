"""What a node can carry: `make simulate`.

First the model is checked: the same series, at the same times, through a real node (`--cases`; the network a stand-in
that sleeps) and through the model, whose overheads are fitted to `--alone` cases that came one by one.  Status 1:
the 95th percentiles of the turnaround differ by more than 20 %.

Then a day of so many hospitals, with as many workers as it takes: a table, and a picture with `--picture FILE`.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.scale.model import Arrival, Overhead, Service, day, percentile, turnarounds
from tests.scale.played import fitted, play, sleeping_node
from tests.scale.sleeper import MOST_SECONDS

LOAD = 0.6
"""Of the worker, while the model is checked."""
SLEPT = Service(0.8, 0.5)
SITES = (1, 10, 100, 1000)
SERIES_A_DAY = 12.0
"""Head angiographies of a hospital a day: an assumption."""
DEVICES = {"two processor cores": Service(3.3, 0.25), "a share of a GPU": Service(0.8, 0.25)}
"""Service times of a whole analysis: the first measured (`make bench-latency`), the second from `docs/model-card.md` (.53 s) and
what is around it.
"""
LIMIT_SECONDS = 15.0
"""What the 95th percentile of the turnaround is to stay below."""
DAYS = 5


def checked(cases: int, alone: int) -> tuple[Overhead, list[float], list[float]]:
    """The overheads, and the turnarounds of the node and of the model."""
    random = np.random.default_rng(7)
    services = [min(seconds, MOST_SECONDS) for seconds in SLEPT.drawn(random, cases)]
    gaps = random.exponential(float(np.mean(services)) / LOAD, cases)
    arrivals = [Arrival(float(at), seconds) for at, seconds in zip(np.cumsum(gaps), services, strict=True)]
    with tempfile.TemporaryDirectory(prefix="willis-scale-") as named:
        folder = Path(named)
        with sleeping_node(folder / "alone") as node:
            lonely = [Arrival(2.5 * number, 0.5) for number in range(alone)]
            _, clocks = play(node, lonely)
            overhead = fitted(clocks, [each.service for each in lonely])
        with sleeping_node(folder / "loaded") as node:
            came, clocks = play(node, arrivals)
    return overhead, [clock.total for clock in clocks], turnarounds(came, 1, overhead)


def workers_for(sites: int, service: Service, overhead: Overhead) -> tuple[int, list[float], float]:
    """The fewest workers that keep the limit, the turnarounds then, and the busiest hour's share of them."""
    random = np.random.default_rng([sites, 1])
    days = [day(random, sites, SERIES_A_DAY, service) for _ in range(DAYS)]
    busiest = max(
        sum(each.service for each in one if hour <= each.at / 3600 < hour + 1) for one in days for hour in range(24)
    )
    workers = max(1, int(busiest / 3600))
    while True:
        found = [seconds for one in days for seconds in turnarounds(one, workers, overhead)]
        if percentile(found) <= LIMIT_SECONDS:
            return workers, found, busiest / 3600 / workers
        workers += 1


def main() -> int:
    """Print the check and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--alone", type=int, default=12)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    overhead, real, modelled = checked(options.cases, options.alone)
    print("overhead, seconds: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in asdict(overhead).items()))
    print(f"\n{options.cases} series, one worker at a load of {LOAD:g}\n")
    print("| turnaround, seconds | the node | the model | ratio |\n|---|---|---|---|")
    for share in (50, 95):
        one, other = percentile(real, share), percentile(modelled, share)
        print(f"| {share}th percentile | {one:.2f} | {other:.2f} | {other / one:.2f} |")
    is_right = 0.8 <= percentile(modelled) / percentile(real) <= 1.2
    print(
        f"\n| hospitals | workers, each with | fewest | busiest hour's load | median | 95th percentile | most |\n|{'---|' * 7}"
    )
    for device, service in DEVICES.items():
        for sites in SITES:
            workers, found, load = workers_for(sites, service, overhead)
            middle, late, most = percentile(found, 50), percentile(found), max(found)
            print(f"| {sites:,} | {device} | {workers} | {load:.2f} | {middle:.1f} | {late:.1f} | {most:.1f} |")
    if options.picture:
        from tests.scale.picture import draw

        draw(options.picture, overhead, (real, modelled))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
