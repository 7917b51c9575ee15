"""`willis shadow`: the comparison in words, as JSON and as CSV."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.main import app
from storage.queries.shadow import Bundles
from storage.records import Conclusion
from storage.stages import Outcome
from storage.store import Store
from tests.support.builders import FakeClock, reported

MODEL = "0.1.0"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One report, which the second bundle has answered."""
    path = tmp_path / "config.toml"
    path.write_text('[storage]\ndirectory = "files"\n', "utf-8")
    (tmp_path / "files").mkdir()
    store = Store.open(f"sqlite:///{tmp_path / 'files' / 'willis.db'}")
    clock = FakeClock(datetime(2026, 11, 23, 9, tzinfo=UTC))
    reported(store, clock)
    claim = store.shadows.begin(Bundles("a" * 64, "2.0", MODEL), clock(), timedelta(minutes=5))
    assert claim is not None
    store.shadows.end(claim, Conclusion(Outcome.NEGATIVE, probabilities=(0.1,) * 14, notify=False, threshold=0.5))
    store.close()
    return path


def printed(config: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["shadow", "--config", str(config), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_it_says_how_both_compare(config: Path) -> None:
    words = printed(config)
    assert "0.1.0 reports, 2.0 (aaaaaaaaaaaa) answers too: 1 series" in words
    assert "findings: 1 of the first, 0 of the second, 0 of both within 5 mm" in words
    assert "no finding of these was accepted or rejected yet" in words


def test_a_second_bundle_whose_version_another_one_has_taken_is_called_by_its_digest_too(config: Path) -> None:
    store = Store.open(f"sqlite:///{config.parent / 'files' / 'willis.db'}")
    assert store.models.take_name("2.0", "b" * 64) == "2.0"
    store.close()
    assert "0.1.0 reports, 2.0 (aaaaaaaa) answers too: 1 series" in printed(config)


def test_json_and_csv_have_the_same(config: Path) -> None:
    [found] = json.loads(printed(config, "--json", "--within-mm", "3"))
    assert (found["second_model"], found["series"], found["within_mm"]) == ("2.0", 1, 3.0)
    assert found["report"]["only_first"] == 1 and found["report"]["kappa"] == 0.0
    [row] = csv.DictReader(io.StringIO(printed(config, "--csv")))
    assert (row["outcome"], row["p_present"], row["first_present"]) == ("negative", "0.1", "True")
    assert json.loads(row["first_lesions"])[0]["diameter_mm"] == 6.5


def test_nothing_to_compare_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[storage]\ndirectory = "files"\n', "utf-8")
    (tmp_path / "files").mkdir()
    assert "[ai] shadow" in printed(path)
