"""A day of many sites: what they send, and what is said of it."""

from collections import Counter
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.scale.day import Case, Happened, Played, table
from tests.scale.model import Service, day
from tests.scale.sites import ANGIOGRAPHY, BESIDE, PRIVATE, Senders, Study, drawn
from tests.scale_demo.site import Site
from tests.soak.proof import Verdict
from tests.support.running import free_port


def test_sites_send_angiographies_and_other_studies_in_their_shares_within_the_day() -> None:
    studies = drawn(np.random.default_rng(1), 300, 10.0, hour_seconds=2.0)
    at = [study.at for study in studies]
    assert at == sorted(at)
    assert 0 <= at[0] < at[-1] <= 48
    sent = Counter(study.kind for study in studies)
    for kind, share in BESIDE.items():
        assert sent[kind] / sent[ANGIOGRAPHY] == pytest.approx(share, rel=0.2)
    assert {study.site for study in studies if study.kind == ANGIOGRAPHY} == set(range(300))


def test_a_site_that_is_larger_sends_more() -> None:
    sent = Counter(each.site for each in day(np.random.default_rng(2), 100, 200.0, Service(1.0, 0.5)))
    assert np.std(list(sent.values())) / np.mean(list(sent.values())) == pytest.approx(0.5, abs=0.15)


def test_a_site_that_cannot_send_ends_when_sending_is_to_stop() -> None:
    hosts = SimpleNamespace(balancer=SimpleNamespace(port=free_port()))
    senders = Senders(cast("Site", SimpleNamespace(hosts=hosts)))
    senders.stopping.set()
    with pytest.raises(AssertionError, match="SITE003 could not send its radiograph whole"):
        senders.send(1, Study(0.0, 3, "radiograph"))
    assert senders.done == {"again": 1}


@pytest.fixture
def played() -> Played:
    """Three angiographies, of which one met a kill, and an object that was refused."""
    cases = [
        Case(site=1, came=10.0, waited=2.0, modelled=1.0, is_calm=True),
        Case(site=1, came=20.0, waited=4.0, modelled=2.0, is_calm=True),
        Case(site=2, came=40.0, waited=30.0, modelled=3.0, is_calm=False),
    ]
    studies = [Study(case.came, case.site, ANGIOGRAPHY, 0.5) for case in cases] + [Study(50.0, 1, PRIVATE)]
    happened = [Happened("a host", 41.0, 43.0)]
    return Played(15.0, studies, cases, happened, Verdict(), {ANGIOGRAPHY: 3, PRIVATE: 1, "refused": 1})


def test_the_table_has_the_waits_beside_those_of_the_model_and_of_the_slowest_site(played: Played) -> None:
    said = table(played)
    assert "| median | 4.0 | 2.0 | 0.50 |" in said
    assert "| most where nothing had happened | 4.0 | 2.0 | 0.50 |" in said
    assert "| the slowest site's | 30.0 | 3.0 | 0.10 |" in said
    assert "| private object (refused, as it should be) | 1 |" in said


def test_what_is_lost_and_what_was_taken_that_should_be_refused_fail_the_day(played: Played) -> None:
    assert played.is_good
    taken = Played(**vars(played) | {"done": {PRIVATE: 1}})
    lost = Played(**vars(played) | {"verdict": Verdict(lost=["instance 2.25.1"])})
    late = Played(**vars(played) | {"trouble": ["not within 300 s: nothing is under way"]})
    assert not taken.is_good
    assert not late.is_good
    assert "not as planned: not within 300 s: nothing is under way" in table(late)
    assert not lost.is_good
    assert "instance 2.25.1" in table(lost)
