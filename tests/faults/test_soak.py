"""The soak itself (`make soak`), for seconds: it runs, finds nothing, and finds what is taken away behind its back."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.files.instances import Files
from storage.store import Store
from tests.soak.__main__ import is_good, soak
from tests.soak.load import Sent
from tests.soak.proof import verdict
from tests.soak.site import Planned
from tests.soak.watch import Sample, growths

DAY = (Planned(2.0, "PACS away", 120), Planned(8.0, "mail away", 60))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a day of five seconds, and its result."""
    folder = tmp_path_factory.mktemp("soak") / "run"
    return folder, soak(folder, 0.0015, 0.4, 3, DAY, with_pages=False)


@pytest.mark.faults
def test_a_day_of_seconds_with_outages_loses_and_doubles_nothing(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, result = finished
    assert (result["lost"], result["doubled"], result["drained"]) == ([], [], True)
    assert is_good(result)
    assert [each["name"] for each in result["happened"]] == [planned.name for planned in DAY]
    assert result["counts"]["whole angiographies"] and result["counts"]["reports at the PACS"]
    assert (folder / "soak.png").stat().st_size and json.loads((folder / "result.json").read_text()) == result


@pytest.mark.faults
def test_what_is_taken_away_counts_as_lost_and_what_is_there_twice_as_doubled(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    said = json.loads((folder / "sent.json").read_text())
    sent = Sent({uid: (one, other) for uid, (one, other) in said["acknowledged"].items()})
    pacs, data = folder / "node" / "pacs", folder / "node" / "var"
    store = Store.open(f"sqlite:///{data / 'willis.db'}")
    files = Files(data)
    assert not [each for each in verdict(store, files, sent, pacs, [], {}).lost if "instance" in each]
    next(data.glob("instances/**/*.dcm")).unlink()
    report = next(pacs.glob("*.dcm"))
    (pacs / "2.25.1.dcm").write_bytes(report.read_bytes())
    found = verdict(store, files, sent, pacs, [], {})
    store.close()
    assert [each for each in found.lost if each.startswith("instance")] != []
    assert [each for each in found.doubled if "which the node does not know" in each] != []
    assert [each for each in found.doubled if "reports at the PACS for" in each] != []


def life(role: str, memory: Callable[[float], float]) -> list[Sample]:
    """An hour of a process, a sample every ten seconds; its memory is never quite level."""
    return [Sample(at, role, 1, memory(at) + (at % 70) / 70, 20, 5, 0.0) for at in range(0, 3600, 10)]


def filling(at: float) -> float:
    """What the caches of a process come to: 12 MiB, most of it in the first half of the hour."""
    return 12 * (1 - math.exp(-at / 700))


@pytest.mark.parametrize(
    ("memory", "grows"),
    [
        (lambda at: 100.0 + (50 if 2900 < at < 2960 else 0), False),
        (lambda at: 200.0 + filling(at), False),
        (lambda at: 200.0 + filling(at) + (3 if at > 1500 else 0), False),
        (lambda at: 100.0 + at / 360, True),
        (lambda at: 200.0 + filling(at) + at / 900, True),
        (lambda at: 200.0 + filling(at) + max(0.0, at - 1800) / 600, True),
        (lambda at: 200.0 + 8 * math.log1p(at / 60), True),
    ],
    ids=[
        "a busy moment", "caches that fill", "caches and a step", "a leak", "a slower leak under caches that fill",
        "a leak that begins late", "what slows down and never ends",
    ],
)  # fmt: skip
def test_growth_is_what_goes_on_in_the_second_half(memory: Callable[[float], float], grows: bool) -> None:
    found = {each.measure: each.grows for each in growths(life("serve", memory))}
    assert found == {"memory_mib": grows, "descriptors": False}
