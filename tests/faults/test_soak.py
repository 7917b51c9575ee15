"""The soak itself (`make soak`), for seconds: it runs, finds nothing, and finds what is taken away behind its back."""

import json
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


def test_growth_is_a_line_that_rises_and_not_a_busy_moment() -> None:
    def life(role: str, memory: Any) -> list[Sample]:
        return [Sample(at, role, 1, memory(at), 20, 5, 0.0) for at in range(0, 3600, 10)]

    steady = life("receive", lambda at: 100.0 + (at % 70) / 70 + (50 if 2000 < at < 2060 else 0))
    leaking = life("work", lambda at: 100.0 + at / 360 + (at % 70) / 70)
    found = {(each.role, each.measure): each.grows for each in growths(steady + leaking)}
    assert found == {
        ("receive", "memory_mib"): False, ("receive", "descriptors"): False,
        ("work", "memory_mib"): True, ("work", "descriptors"): False,
    }  # fmt: skip
