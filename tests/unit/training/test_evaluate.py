import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ai.bundle import Bundle
from ai.decode import Calibration, Candidate
from ai.inference import Tiling
from ai.locations import Location
from ai.preprocess import Preprocessing, Region
from ai.unet import UNet
from ai.volume import Volume
from tests.support.made_up_head import affine, head
from tests.support.made_up_scan import scan
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.training.test_figures import made_up_cases, probabilities
from training import dataset, evaluate
from training.cases import Case, Scored
from training.config import ConfigError, read_config
from training.evaluate import ScanSet, held_out_set, identity_of, region_scorer, score_all, score_series
from training.export import specific_threshold
from training.held_out import STRATA, held_out_scans
from training.phantom.make import is_confounded
from training.phantom.scan import PhantomScan, TrueLesion
from training.report import PHANTOM, Subject, write_report
from training.report_pictures import picture, worst_cases

CONFIGS = Path(evaluate.__file__).parent / "configs"
LESION = TrueLesion(Location.ACOM, (1.0, 2.0, 3.0), 4.5)
CANDIDATE = Candidate(1.5, (1.0, 2.0, 3.5), 4.0, np.eye(13)[6])


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    settings = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))
    return Bundle(manifest(preprocessing=settings, tiling=Tiling(size=64)), (UNet(TINY).eval(),))


def answers(count: int = 4) -> list[Scored]:
    """The first and every second scan has a lesion that is found."""
    return [
        Scored(seed, (LESION,) if seed % 2 == 0 else (), (CANDIDATE,) if seed % 2 == 0 else (), ("loop",))
        for seed in range(count)
    ]


def nothing(_: Scored) -> None:
    pass


def test_the_held_out_set_is_half_negative_half_confounded_and_nobody_s_training() -> None:
    scans = held_out_scans()
    assert len(scans) == 200 and all(options["held_out"] is True for options in scans.values())
    kinds = [(options["positive"], is_confounded(seed)) for seed, options in scans.items()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        (positive, confounded): 50 for positive in (True, False) for confounded in (True, False)
    }
    assert all(len(set(kinds[first : first + 4])) == len(STRATA) for first in range(0, 200, 4))
    data = read_config(CONFIGS / "willis.toml").data
    used = {*range(data.first_seed, data.first_seed + data.scans)}
    used |= {*range(data.validation_first_seed, data.validation_first_seed + data.validation_scans)}
    assert not used & set(scans)


def test_a_part_of_the_held_out_set_is_its_beginning() -> None:
    assert held_out_set(8).seeds == held_out_set().seeds[:8]
    with pytest.raises(ConfigError, match="200 scans, not 201"):
        held_out_set(201)
    with pytest.raises(ConfigError, match="at least one"):
        ScanSet("none", ())


def test_a_killed_evaluation_goes_on_with_what_is_left(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def killed_after_two(seeds: Sequence[int]) -> Iterator[Scored]:
        asked.append(list(seeds))
        for number, seed in enumerate(seeds):
            if len(asked) == 1 and number == 2:
                raise KeyboardInterrupt
            yield answers()[seed]

    with pytest.raises(KeyboardInterrupt):
        score_all(tmp_path, {"weights": "a"}, range(4), killed_after_two, nothing)
    computed: list[int] = []
    found = score_all(tmp_path, {"weights": "a"}, range(4), killed_after_two, lambda one: computed.append(one.seed))
    assert asked == [[0, 1, 2, 3], [2, 3]] and computed == [2, 3]
    assert [one.seed for one in found] == [0, 1, 2, 3]
    score_all(tmp_path, {"weights": "a"}, range(4), killed_after_two, nothing)
    assert len(asked) == 2


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    safe_message = [*answers(1), Scored(1, (LESION,), (), reason="coverage"), Scored(2, (), (), (), (0.25,) * 14)]
    score_all(tmp_path, {}, range(3), lambda seeds: iter(safe_message), nothing)
    first, failed, bare = score_all(tmp_path, {}, range(3), lambda seeds: iter(()), nothing)
    assert first.lesions == (LESION,) and first.confounders == ("loop",)
    assert first.candidates[0].centre_lps_mm == CANDIDATE.centre_lps_mm
    assert np.array_equal(first.candidates[0].location_shares, CANDIDATE.location_shares)
    assert failed.reason == "coverage" and bare.probabilities == (0.25,) * 14


def test_answers_of_another_model_are_not_mixed_in(tmp_path: Path, bundle: Bundle) -> None:
    scans = ScanSet("some", (0, 1))
    score_all(tmp_path, identity_of(bundle, scans, "regions"), (), lambda seeds: iter(()), nothing)
    held_out = ScanSet("others", (0, 1), {seed: {"held_out": True} for seed in (0, 1)})
    for identity in (identity_of(bundle, scans, "series"), identity_of(bundle, held_out, "regions"), {"weights": "b"}):
        with pytest.raises(ConfigError, match="another --out"):
            score_all(tmp_path, identity, (), lambda seeds: iter(()), nothing)
    more = ScanSet("more of them", (0, 1, 2))
    score_all(tmp_path, identity_of(bundle, more, "regions"), (), lambda seeds: iter(()), nothing)


def test_regions_are_built_as_the_set_says_and_scored(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[int, dict[str, Any]] = {}

    def noted(seed: int, **options: Any) -> PhantomScan:
        made[seed] = options
        return scan(seed)

    monkeypatch.setattr(dataset, "make_scan", noted)
    scans = ScanSet("two", (1, 2), {1: {"positive": True, "held_out": True}})
    found = list(region_scorer(bundle, scans, tmp_path, "cpu")(scans.seeds))
    assert [(one.seed, len(one.lesions)) for one in found] == [(1, 1), (2, 0)]
    assert made[1] == {"extent": "roi", "spacing_mm": 1.0, "positive": True, "held_out": True}
    assert "held_out" not in made[2]
    finer = Bundle(manifest(), bundle.networks)
    with pytest.raises(ConfigError, match=r"regions at 1 mm and the bundle reads 0\.7 mm"):
        list(region_scorer(finer, scans, tmp_path, "cpu")(scans.seeds))


def test_a_series_is_scored_from_its_volume_or_has_a_reason(bundle: Bundle) -> None:
    volume = head()
    nowhere = np.zeros(volume.hu_DHW.shape, np.uint8)
    scored = score_series(bundle, PhantomScan(5, volume, (LESION,), nowhere, nowhere), "cpu")
    assert scored.reason == "" and scored.lesions == (LESION,)
    air = Volume(np.full((60, 80, 80), -1000, np.int16), affine((2, 2, 2), (0, 0, 0)))
    scored = score_series(bundle, PhantomScan(6, air, (), nowhere, nowhere), "cpu")
    assert scored.reason == "not_a_head" and scored.candidates == ()


def test_the_report_is_json_without_nan_and_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    region = Region(np.zeros((64, 64, 64), np.int16), affine((1, 1, 1), (-32, -32, -32)), (0.0, 0.0, 0.0))
    far = Candidate(3.0, (20.0, 20.0, 20.0), 4.0, np.eye(13)[4])
    scored = [*answers(5), Scored(5, (), (far,)), Scored(6, (LESION,), (), reason="coverage")]
    found = write_report(tmp_path, Subject("willis 1", "6 phantoms"), scored, lambda seed: region)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text and json.loads(text)["notice"] == PHANTOM
    assert json.loads(text)["auc"]["Basilar Tip"] is None
    assert found["scans"] == 6 and found["not_analysed"] == [{"seed": 6, "reason": "coverage", "positive": True}]
    page = (tmp_path / "report.html").read_text()
    for said in (
        PHANTOM,
        "CPM",
        "Goals, on phantoms",
        "PPV at 4.5 % prevalence",
        "false alarm, seed 5",
        "Not analysed",
    ):
        assert said in page, said
    assert "http" not in page and "<script" not in page and page.count("data:image/png") == 7
    assert {goal["met"] for goal in found["goals"]} == {None}
    assert "not judged: 3 scans of a kind, 30 with and without are needed" in page
    assert not list(tmp_path.glob("*.tmp"))


def test_a_method_without_places_says_so_and_is_compared(tmp_path: Path) -> None:
    bare = [Scored(i, (LESION,) if i % 2 else (), (), (), probabilities(0.5, ACOM=0.5)) for i in range(4)]
    write_report(tmp_path / "baseline", Subject("baseline", "4 phantoms"), bare)
    assert "says nothing about where" in (tmp_path / "baseline" / "report.html").read_text()
    subject = Subject("willis 1", "4 phantoms")
    found = write_report(tmp_path / "own", subject, answers(), baseline=tmp_path / "baseline" / "report.json")
    assert found["baseline"]["difference"] == pytest.approx(0.5)  # 1.0 against a coin
    with pytest.raises(ConfigError, match="evaluate both on the same"):
        write_report(tmp_path / "own", subject, answers(3), baseline=tmp_path / "baseline" / "report.json")
    with pytest.raises(ConfigError, match=r"not a report\.json"):
        write_report(tmp_path / "own", subject, answers(), baseline=tmp_path / "nowhere.json")


def test_no_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of 1 scans could be analysed: coverage"):
        write_report(tmp_path, Subject("willis 1", "1 phantom"), [Scored(1, (), (), reason="coverage")])


def test_the_worst_cases_are_the_surest_false_alarms_and_the_largest_misses() -> None:
    worst = worst_cases(made_up_cases(), 0.5)
    assert [(one.kind, one.seed, one.diameter_mm) for one in worst] == [("false alarm", 3, 4.0), ("missed", 2, 2.0)]
    assert "loop, clip" in worst[0].caption and "P 0.70" in worst[0].caption and "no mark" in worst[1].caption
    bare = [Case(one.seed, one.lesions, (), one.probabilities, None) for one in made_up_cases()]
    assert [(one.kind, one.centre_lps_mm) for one in worst_cases(bare, 0.5)] == [
        ("false alarm", None),
        ("missed", (0.0, 50.0, 0.0)),
    ]


@pytest.mark.parametrize("z_mm", [0.0, -31.0, 60.0])
def test_a_picture_shows_the_place_even_at_the_edge_of_the_region(z_mm: float) -> None:
    hu = np.zeros((64, 64, 64), np.int16)
    hu[int(np.clip(z_mm + 32, 0, 63))] = 550
    region = Region(hu, affine((1, 1, 1), (-32, -32, -32)), (0.0, 0.0, 0.0))
    miss = worst_cases([Case(1, (TrueLesion(Location.ACOM, (0.0, 0.0, z_mm), 5.0),), (), (0.1,) * 14, ())], 0.5)[0]
    image = np.asarray(Image.open(BytesIO(picture(region, miss))).convert("RGB"))
    assert image.shape == (280, 840, 3)
    middle = image[140, 140]
    assert (middle > 200).all() if z_mm < 32 else (middle == 0).all()


@pytest.mark.parametrize(("negatives", "threshold"), [(19, 0.99), (20, 0.96), (0, 0.5)])
def test_the_threshold_lets_one_negative_scan_in_twenty_through(negatives: int, threshold: float) -> None:
    scored = [
        Scored(number, (), (replace(CANDIDATE, score=float(np.log(p / (1.0 - p)))),))
        for number, p in enumerate(0.98 - 0.025 * np.arange(negatives))
    ]
    assert specific_threshold([*scored, *answers(4)[::2]], Calibration()) == threshold
