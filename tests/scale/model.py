"""A queueing model of Willis: series come whole, wait for a worker in the order in which they came, are analysed and delivered.

        last slice ─ settle ─ wait ─ claim, service ─ deliver ─ report accepted

Sites send independently of each other, each by the hour of its day; all workers take from one queue.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import simpy
from numpy.random import Generator as Random


@dataclass(frozen=True)
class Overhead:
    """Seconds that a case takes beside its service: `settle`, from the last slice on; `claim`, of the worker's time; `deliver`."""

    settle: float
    claim: float
    deliver: float


@dataclass(frozen=True)
class Arrival:
    """`at`: seconds at which the last slice came.  `service`: seconds of a worker that its analysis takes.  `site`: its number."""

    at: float
    service: float
    site: int = 0


@dataclass(frozen=True)
class Service:
    """How long analyses take: log-normal, `mean` in seconds, `variation` the standard deviation over the mean."""

    mean: float
    variation: float

    def drawn(self, random: Random, count: int) -> list[float]:
        """So many of them."""
        spread = np.log(1 + self.variation**2)
        drawn: list[float] = random.lognormal(np.log(self.mean) - spread / 2, np.sqrt(spread), count).tolist()
        return drawn


HOURS = (
    1.6,
    1.3,
    1.1,
    1.0,
    1.0,
    1.3,
    2.2,
    3.9,
    5.6,
    6.6,
    7.0,
    6.8,
    6.4,
    6.6,
    6.7,
    6.4,
    5.8,
    5.2,
    4.7,
    4.5,
    4.3,
    4.0,
    3.4,
    2.6,
)
"""Per cent of a day's head angiographies by the hour: an assumption, two peaks in the working day and a fifth of them at night."""


def day(random: Random, sites: int, series_a_day: float, service: Service) -> list[Arrival]:
    """The series of one day, in order; each site has a number of its own, log-normal about the mean and half of it apart."""
    spread = np.log(1 + 0.5**2)
    sizes = random.lognormal(np.log(series_a_day) - spread / 2, np.sqrt(spread), sites)
    ends = np.array(list(accumulate(HOURS))) / sum(HOURS)
    count = int(random.poisson(sizes.sum()))
    hours = np.interp(np.sort(random.random(count)), [0.0, *ends], np.arange(25))
    services = service.drawn(random, count)
    [apart] = random.spawn(1)
    of = apart.choice(sites, count, p=sizes / sizes.sum())
    return [
        Arrival(float(hour * 3600), seconds, int(site)) for hour, seconds, site in zip(hours, services, of, strict=True)
    ]


def turnarounds(arrivals: Sequence[Arrival], workers: int, overhead: Overhead) -> list[float]:
    """Seconds from each series' last slice to its report's acceptance."""
    world, found = simpy.Environment(), [0.0] * len(arrivals)
    pool = simpy.Resource(world, capacity=workers)

    def case(number: int, arrival: Arrival) -> Generator[simpy.Event, object, None]:
        yield world.timeout(arrival.at + overhead.settle)
        with pool.request() as turn:
            yield turn
            yield world.timeout(overhead.claim + arrival.service)
        yield world.timeout(overhead.deliver)
        found[number] = world.now - arrival.at

    for number, arrival in enumerate(arrivals):
        world.process(case(number, arrival))
    world.run()
    return found


def percentile(seconds: Sequence[float], share: float = 95) -> float:
    """Of turnarounds; 0 where there are none."""
    return float(np.percentile(seconds, share)) if seconds else 0.0
