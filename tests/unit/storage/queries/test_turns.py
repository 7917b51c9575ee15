"""Whose series is claimed next, as a property of whole days: through the real store, on both databases."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from sqlalchemy import delete

from storage.database.schema import SeriesRow
from storage.queries.claims import Queue
from storage.queries.rows import as_series
from storage.records import Claim, Series
from storage.stages import Event, Stage
from storage.store import Store
from tests.support.builders import LEASE, START, FakeClock, series_now

FLOOD = "ARCHIVE"
SMALL = ("CT_EAST", "CT_WEST", "CT_NORTH", "CT_SOUTH")
MOST_TURNS = 2
"""A series whose site has nothing else waiting meets what is left of one turn, and the next."""


class Hospital:
    """Series come to be ready and are claimed, one worker at a time."""

    def __init__(self, store: Store, clock: FakeClock, random: Random | None = None) -> None:
        self.store, self.clock, self.queue = store, clock, Queue(store.transactions, random=random)
        self._made = 0

    def sends(self, site: str, count: int = 1, canary: bool = False) -> list[Series]:
        """So many series of the site become ready, one after the other."""
        with self.store.transactions.writing() as session:
            rows = [self._row(site, canary) for _ in range(count)]
            session.add_all(rows)
            session.flush()
            series = [as_series(row) for row in rows]
        for each in series:
            self.clock.advance(1)
            assert self.store.settling.leave(each, Event.SETTLED, "count", self.clock())
        return series

    def _row(self, site: str, canary: bool) -> SeriesRow:
        self._made += 1
        texts = ("patient_id", "issuer_of_patient_id", "patient_name", "name_key", "accession_number", "study_date")
        more = ("study_time", "study_id", "modality", "series_description", "acquisition_key")
        uid = f"2.25.{self._made}"
        return SeriesRow(
            **dict.fromkeys((*texts, *more), ""), series_instance_uid=uid, study_instance_uid=uid, calling_ae=site,
            stage=Stage.RECEIVING.value, first_instance_at=START, last_instance_at=START, canary=canary,
        )  # fmt: skip

    def claims(self, stat: Sequence[str] = (), worker: str = "worker:1") -> Claim | None:
        """The next claim."""
        self.clock.advance(1)
        return self.queue.claim(worker, self.clock(), LEASE, 3, stat)

    def order(self, count: int, stat: Sequence[str] = ()) -> list[str]:
        """The sites of the next claims."""
        claims = [self.claims(stat) for _ in range(count)]
        return [claim.series.calling_ae for claim in claims if claim]


class Lot(Random):
    """Always the same lot."""

    def __init__(self, lot: float) -> None:
        super().__init__()
        self._lot = lot

    def random(self) -> float:
        """It."""
        return self._lot


@pytest.fixture
def hospital(store: Store, clock: FakeClock) -> Hospital:
    return Hospital(store, clock, Random(1))


@pytest.mark.parametrize("seed", [1, 2])
def test_on_no_day_does_a_small_site_wait_behind_what_a_large_one_has_sent(hospital: Hospital, seed: int) -> None:
    chance, since, longest, claimed = Random(seed), dict[str, int](), 0, list[Claim]()
    hospital.sends(FLOOD, 50)
    for number in range(55):
        for site in SMALL:
            if site not in since and chance.random() < 0.15:
                hospital.sends(site)
                since[site] = number
        if chance.random() < 0.05:
            hospital.sends(FLOOD, 3)
        claim = hospital.claims()
        assert claim is not None
        claimed.append(claim)
        if began := since.pop(claim.series.calling_ae, None):
            longest = max(longest, number - began)
    assert longest <= MOST_TURNS * (1 + len(SMALL))
    counts = Counter(claim.series.calling_ae for claim in claimed)
    assert counts[FLOOD] >= len(claimed) // (1 + len(SMALL)), "nor does the large one get less than its share"
    flood = [claim.series.id for claim in claimed if claim.series.calling_ae == FLOOD]
    assert flood == sorted(flood), "age within a site"


def test_sites_that_all_wait_are_served_in_turn(hospital: Hospital) -> None:
    hospital.sends("A", 6)
    hospital.sends("B", 3)
    hospital.sends("C", 1)
    assert "".join(hospital.order(10)) == "AABCABABAA"


def test_who_keeps_on_sending_one_after_the_other_does_not_hold_up_who_waits_with_many(hospital: Hospital) -> None:
    hospital.sends(FLOOD, 10)
    served = Counter[str]()
    for _ in range(30):
        for site in SMALL[:2]:
            if not served[f"{site} waits"]:
                hospital.sends(site)
                served[f"{site} waits"] = 1
        [site] = hospital.order(1)
        served[site] += 1
        served[f"{site} waits"] = 0
    assert served[FLOOD] >= 9


def test_several_workers_at_once_keep_to_the_turns(hospital: Hospital) -> None:
    hospital.sends(FLOOD, 30)
    small = {hospital.sends(site)[0].id for site in SMALL}
    order, lock, barrier = list[int](), threading.Lock(), threading.Barrier(4)

    def work(worker: str) -> None:
        barrier.wait()
        for _ in range(5):
            claim = hospital.queue.claim(worker, hospital.clock(), LEASE, 3)
            if claim:
                with lock:
                    order.append(claim.series.id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"worker:{number}" for number in range(4)]))
    assert small <= set(order[: MOST_TURNS * (1 + len(SMALL)) + 4])


def test_a_stat_site_comes_first_but_others_have_their_share_of_the_claims(hospital: Hospital) -> None:
    hospital.sends(FLOOD, 40)
    hospital.sends("CT_EAST", 2)
    order = []
    for _ in range(40):
        hospital.sends("ED")
        order += hospital.order(1, ["ED"])
    assert order[0] == "ED"
    assert order.count("ED") >= 24, "with one always waiting it has about three claims of four"
    assert order.count(FLOOD) >= 4
    assert order.count("CT_EAST") == 2, "who is no stat site waits for its turn among the others alone"


def test_stat_sites_share_what_comes_first_and_nobody_needs_to_wait_for_them(hospital: Hospital) -> None:
    hospital.queue = Queue(hospital.store.transactions, random=Lot(0.0))
    hospital.sends("ED", 5)
    hospital.sends("STROKE", 1)
    hospital.sends(FLOOD, 2)
    assert hospital.order(8, ["ED", "STROKE", "NOBODY"]) == ["ED", "ED", "STROKE", "ED", "ED", "ED", FLOOD, FLOOD]


def test_without_a_stat_site_or_with_no_other_nothing_is_changed(hospital: Hospital) -> None:
    for stat in ([], ["PACS"], ["NOBODY"]):
        series = hospital.sends("PACS", 3)
        claims = [hospital.claims(stat) for _ in series]
        assert [claim and claim.series.id for claim in claims] == [each.id for each in series]


def test_broken_series_of_one_site_hold_up_neither_its_own_nor_others(hospital: Hospital) -> None:
    broken = {series.id for series in hospital.sends(FLOOD, 8)}
    own = hospital.sends(FLOOD, 2)[0].id
    attempts = Counter[int]()
    seen = list[int]()
    for _ in range(40):
        claim = hospital.claims(["ARCHIVE"])
        if claim is None:
            break
        seen.append(claim.series.id)
        if claim.series.id in broken:
            attempts[claim.series.id] += 1
            assert hospital.queue.give_back("worker:1", refund=False, token=claim.token) == 1
        if len(seen) == 5:
            other = hospital.sends("CT_EAST")[0].id
    assert seen.index(other) <= 5 + MOST_TURNS * 2
    assert seen.index(own) == 8 + (other in seen[:9]), "every one that was never tried comes before a second attempt"
    assert attempts == Counter(dict.fromkeys(broken, 3)), "and each of the broken has all its attempts"


def test_many_claims_that_end_at_once_come_back_one_a_turn(hospital: Hospital) -> None:
    hospital.sends(FLOOD, 20)
    assert len(hospital.order(20)) == 20
    hospital.clock.advance(120)
    assert hospital.queue.expire(hospital.clock()) == 20
    hospital.sends("CT_EAST")
    assert "CT_EAST" in hospital.order(3)


def test_a_worker_that_stops_gives_its_series_back_to_the_place_that_it_had(hospital: Hospital) -> None:
    first, *_ = hospital.sends("PACS", 3)
    hospital.claims()
    hospital.queue.give_back("worker:1", refund=True)
    claim = hospital.claims()
    assert claim is not None
    assert claim.series.id == first.id


def test_a_report_that_kills_its_process_does_not_come_before_another(hospital: Hospital) -> None:
    one, other = hospital.sends("PACS", 2)
    for _ in range(2):
        hospital.order(2)
        hospital.queue.give_back("worker:1", refund=False)
    hospital.sends("PACS")
    for expected in (one.id, other.id):
        claim = hospital.queue.claim_next("worker:1", hospital.clock(), LEASE, 2)
        assert claim is not None
        assert (claim.series.id, claim.exhausted) == (expected, True), "before any that is to be analysed"
        hospital.queue.give_back("worker:1", refund=False)
    with hospital.store.transactions.writing() as session:
        session.execute(delete(SeriesRow).where(SeriesRow.attempts > 1))
    claim = hospital.queue.claim_next("worker:1", hospital.clock(), LEASE, 2)
    assert claim is not None
    assert not claim.exhausted


def test_what_is_analysed_again_on_request_takes_its_sites_next_turn(hospital: Hospital) -> None:
    old = hospital.sends("PACS")[0]
    claim = hospital.claims()
    assert claim is not None
    hospital.sends("CT_EAST")
    with hospital.store.transactions.writing() as session:
        session.get_one(SeriesRow, old.id).stage = Stage.REPORTED.value
    hospital.sends("PACS", 2)
    assert hospital.queue.retry(old.id)
    assert hospital.order(4) == ["CT_EAST", "PACS", "PACS", "PACS"]
    assert series_now(hospital.store, old.series_instance_uid).attempts == 1


def test_a_canary_is_last_and_has_no_turn_among_patients(hospital: Hospital) -> None:
    hospital.sends("WILLIS", canary=True)
    hospital.sends("PACS", 4)
    assert hospital.order(2, ["WILLIS"]) == ["PACS", "PACS"]
    hospital.sends("WILLIS", canary=True)
    hospital.sends("CT_EAST")
    assert hospital.order(5, ["WILLIS"]) == ["PACS", "PACS", "CT_EAST", "WILLIS", "WILLIS"]


def test_what_is_given_back_unharmed_comes_first_though_turns_were_numbered_anew(hospital: Hospital) -> None:
    hospital.sends(FLOOD, 40)
    claims = [hospital.claims(worker=f"worker:{number}") for number in range(40)]
    last = claims[-1]
    assert last is not None
    for site in SMALL:
        hospital.sends(site, 30)
    assert hospital.queue.give_back("worker:39", refund=True) == 1
    again = hospital.claims()
    assert again is not None and again.series.id == last.series.id


def test_what_is_given_back_unharmed_lets_nobody_overtake_who_waits(hospital: Hospital) -> None:
    hospital.sends(FLOOD, 60)
    first = hospital.claims(worker="worker:2")
    assert first is not None
    hospital.order(40)
    [lone] = hospital.sends("LONE")
    assert hospital.queue.give_back("worker:2", refund=True) == 1
    for site in SMALL:
        hospital.sends(site, 20)
    order = hospital.order(MOST_TURNS * (len(SMALL) + 1) + 2)
    assert "LONE" in order and lone.calling_ae == "LONE"
