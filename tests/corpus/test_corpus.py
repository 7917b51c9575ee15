"""Every situation of the table ends as it must.  `make corpus` prints the table."""

from collections.abc import Iterator

import pytest

from tests.corpus.hospital import Hospital, open_hospital
from tests.corpus.situation import Situation
from tests.corpus.situations import SITUATIONS


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """One node for all."""
    with open_hospital(tmp_path_factory.mktemp("corpus")) as opened:
        yield opened


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_it_ends_right(hospital: Hospital, situation: Situation) -> None:
    end = hospital.play(situation)
    assert end.measured == situation.expected, end.details
    assert end.is_right(situation), end.details


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len(SITUATIONS) >= 60
    assert len({each.name for each in SITUATIONS}) == len(SITUATIONS)
