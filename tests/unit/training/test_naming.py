"""What names locations learns where candidates on aneurysms lie."""

from dataclasses import replace

import numpy as np
import pytest

from ai.bundle import Bundle
from ai.decode import Candidate
from ai.locations import LOCATIONS, Location
from ai.parts import SecondStage
from ai.shape import NAMES
from ai.surroundings import NAMES as PLACES
from ai.unet import UNet
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.training.test_combine import SECOND
from training.candidates import Marked
from training.cases import Scored
from training.config import ConfigError
from training.naming import fitted_names, named_right, naming
from training.phantom.scan import TrueLesion
from training.scoring import renamed, seen_by

CIRCLE = (1.0, 2.0, 3.0)
SIDES = {1: Location.LEFT_ACA, -1: Location.RIGHT_ACA}


def marked(seed: int) -> Marked:
    """An aneurysm of either anterior cerebral artery, near the midline; the first stage always says right."""
    rng = np.random.default_rng(seed)
    side = 1 if seed % 2 else -1
    centre = (CIRCLE[0] + side * float(rng.uniform(1.0, 6.0)), CIRCLE[1] - 10.0, CIRCLE[2] + 10.0)
    shares = np.full(13, 0.1 / 12)
    shares[LOCATIONS.index(Location.RIGHT_ACA)] = 0.9
    found = (Candidate(1.0, centre, 4.0, shares), Candidate(0.0, (40.0, 0.0, 0.0), 4.0, shares))
    scored = Scored(seed, (TrueLesion(SIDES[side], centre, 4.0),), found)
    measures = np.zeros((2, len(NAMES)), np.float32)
    places = np.zeros((2, len(PLACES)), np.float32)
    return Marked(scored, measures, places, np.repeat(measures[:, None], 4, axis=1), circle_lps_mm=CIRCLE)


SCANS = [marked(seed) for seed in range(40)]


def test_what_the_first_stage_never_says_is_learned_from_where_it_lies() -> None:
    names = fitted_names(SCANS)
    others = [marked(seed) for seed in range(100, 120)]
    assert named_right(others) == 0.5
    assert named_right([renamed(scan, (names,)) for scan in others]) >= 0.9
    again = renamed(others[0], (names,))
    assert [one.score for one in again.scored.candidates] == [one.score for one in others[0].scored.candidates]


def test_scans_are_seen_with_the_names_that_their_bundle_gives() -> None:
    stage = SecondStage(SECOND.settings, 0.5, 0.25, {"unsaved.safetensors": ""})
    bundle = naming(Bundle(manifest(second_stage=stage), (UNet(TINY),), (SECOND,)), fitted_names(SCANS))
    scans, _ = seen_by(bundle, SCANS[:10])
    assert named_right(scans) > named_right(SCANS[:10]) + 0.3


def test_folders_of_before_and_scans_without_aneurysms_teach_no_names() -> None:
    with pytest.raises(ConfigError, match="scan 3 was marked without the place of the circle: mark the scans anew"):
        fitted_names([SCANS[0], replace(SCANS[3], circle_lps_mm=None)])
    with pytest.raises(ConfigError, match="no candidate of the scans to learn from lies on an aneurysm"):
        fitted_names([replace(SCANS[0], scored=replace(SCANS[0].scored, lesions=()))])
