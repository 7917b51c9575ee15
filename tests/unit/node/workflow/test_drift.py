"""What analyses measure is kept without whose it was; a scanner that drifts is a reason of health until it is accepted."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from ai.findings import Findings
from ai.quality import Quality
from node.analysis.analysis import Seen, _measures
from node.config.sections import Config
from node.rules.drift import BLOCK
from node.workflow import drift
from node.workflow.context import Context
from node.workflow.health import health_of
from storage.files.instances import Files
from storage.records import Measured, Measures
from storage.stages import Outcome
from storage.store import Store
from tests.support.builders import START, FakeClock, claimed, conclusion, report_object
from tests.support.command_line import Run, config, run
from tests.support.dicom_factory import ct_series
from tests.support.simulated_scanner import SCANNER, SITE, cases

__all__ = ["config", "run"]


def measured(count: int, sharper: bool = False, after: int = 0) -> list[Measured]:
    return cases(np.random.default_rng(3 + after), START + timedelta(days=after / 12), count, sharper=sharper)


@pytest.fixture
def context(tmp_path: Path, sqlite_store: Store, clock: FakeClock) -> Context:
    folder = tmp_path / "files"
    url = str(sqlite_store.transactions.engine.url)
    values = {"storage": {"directory": folder, "database_url": url}, "drift": {"baseline_weeks": 2}}
    return Context(Config.model_validate(values), sqlite_store, Files(folder), lambda: None, clock)


def reasons(context: Context) -> list[str]:
    return [each.message for each in health_of(context.config, context.clock()).reasons if each.about == "drift"]


def test_a_scanner_that_drifts_is_a_reason_of_health_until_it_is_accepted(context: Context, clock: FakeClock) -> None:
    assert drift.look(context) == 0
    context.store.drift.add(measured(200))
    assert (drift.look(context), reasons(context)) == (0, [])
    context.store.drift.add(measured(2 * BLOCK, sharper=True, after=200))
    assert drift.look(context) >= 2
    said = "; ".join(reasons(context))
    assert f"{SCANNER} of {SITE}: noise HU from " in said
    assert "share of other kernels from " in said
    assert f"since {START:%Y-%m-%d}" in said
    clock.advance(86_400)
    drift.look(context)
    assert f"since {START:%Y-%m-%d}" in reasons(context)[0], "since it was noticed, not since it was looked at"
    context.store.drift.accept(SITE, SCANNER, START + timedelta(days=30))
    assert reasons(context) == []
    assert drift.look(context) == 0


def test_what_an_analysis_measured_is_kept_once_and_names_nobody(store: Store, clock: FakeClock) -> None:
    what = replace(conclusion(), measures=Measures(SCANNER, "H40s", 380.0, 12.0, 4.0, 45.0))
    assert store.queue.finish(claimed(store, clock), what, report_object(), ("PACS",), clock())
    [row] = store.drift.measured()
    assert row == Measured(
        *vars(what.measures).values(),
        at=clock(),
        site="PACS",
        model=what.model,
        outcome=Outcome.POSITIVE,
        limited=bool(what.limits),
        p_present=what.probabilities[-1],
    )
    without = conclusion(Outcome.NOT_ANALYSED)
    claim = claimed(store, clock, series="2.25.9")
    assert store.queue.finish(claim, without, report_object("2.25.78"), ("PACS",), clock())
    assert len(store.drift.measured()) == 1


def test_the_measures_are_those_of_the_images_that_were_analysed() -> None:
    quality = Quality(noise_hu=12.5, arterial_hu=float("nan"), spread_mm=3.0)
    found = Findings((0.1,) * 14, (), 0.5, quality=quality)
    [ds] = ct_series(1, Manufacturer="Acme", ManufacturerModelName="CT 9000", StationName="ROOM2", CTDIvol=45.5)
    ds.ConvolutionKernel = ["H40s", "3"]
    measures = _measures(Seen(found, [ds]))
    assert measures is not None
    assert (measures.scanner, measures.arterial_hu, measures.noise_hu, measures.dose_mgy) == (SCANNER, None, 12.5, 45.5)
    assert "H40s" in measures.kernel
    del ds.CTDIvol, ds.StationName
    unknown = _measures(Seen(replace(found, quality=None), [ds]))
    assert unknown == Measures("Acme / CT 9000 / ", measures.kernel)


@pytest.fixture
def drifted_store(config: Path) -> Store:
    store = Store.open(f"sqlite:///{config.parent / 'var' / 'willis.db'}")
    found = [*measured(400), *measured(2 * BLOCK, sharper=True, after=400)]
    store.drift.add([replace(each, at=each.at - timedelta(days=90)) for each in found])
    return store


def test_the_command_says_draws_and_accepts(run: Run, config: Path, drifted_store: Store, tmp_path: Path) -> None:
    ended = run("drift", "--plot", tmp_path / "drift.svg", "-c", config)
    assert ended.exit_code == 1
    assert "noise HU from" in ended.stdout and "CT 9000" in ended.stdout
    picture = fromstring((tmp_path / "drift.svg").read_text())
    dots = [each.get("fill") for each in picture.iter("{http://www.w3.org/2000/svg}circle")]
    assert "#b3261e" in dots and "#1f5fa8" in dots
    assert "there are 1 scanners" in run("drift", "--accept", 2, "-c", config).stderr
    assert "its baseline begins now" in run("drift", "--accept", 1, "-c", config).stdout
    assert run("drift", "-c", config).exit_code == 0
    drifted_store.close()
