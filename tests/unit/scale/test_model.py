"""The queueing model: what is known of queues comes out of it."""

import numpy as np
import pytest

from tests.scale.model import Arrival, Overhead, Service, day, percentile, turnarounds

NONE = Overhead(0.0, 0.0, 0.0)


def test_series_wait_for_one_another_in_the_order_in_which_they_came() -> None:
    overhead = Overhead(settle=1.0, claim=0.5, deliver=0.25)
    arrivals = [Arrival(0.0, 4.0), Arrival(1.0, 2.0), Arrival(1.5, 2.0)]
    assert turnarounds(arrivals, 1, overhead) == [5.75, 7.25, 9.25]
    assert turnarounds(arrivals, 3, overhead) == [5.75, 3.75, 3.75]
    assert percentile([]) == 0.0


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_the_mean_wait_at_one_worker_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    random, service = np.random.default_rng(3), Service(mean=1.0, variation=0.5)
    count = 20_000
    at = np.cumsum(random.exponential(1 / load, count)).tolist()
    drawn = service.drawn(random, count)
    found = turnarounds([Arrival(*each) for each in zip(at, drawn, strict=True)], 1, NONE)
    expected = load * (1 + service.variation**2) / (2 * (1 - load))
    assert float(np.mean(found)) - float(np.mean(drawn)) == pytest.approx(expected, rel=0.15)


def test_a_day_has_the_hours_and_the_number_of_its_sites() -> None:
    arrivals = day(np.random.default_rng(5), 1000, 12.0, Service(3.0, 0.25))
    hours = np.array([arrival.at for arrival in arrivals]) / 3600
    assert len(arrivals) == pytest.approx(12_000, rel=0.05)
    assert (np.diff(hours) >= 0).all()
    assert (hours < 24).all()
    assert 4 < ((hours >= 10) & (hours < 11)).sum() / ((hours >= 3) & (hours < 4)).sum() < 10
    assert np.mean([arrival.service for arrival in arrivals]) == pytest.approx(3.0, rel=0.02)
