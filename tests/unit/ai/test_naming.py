"""A candidate's location is named by what the first stage says of it and by where it lies."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ai import predict
from ai.bundle import Bundle, load_bundle, save_bundle
from ai.decode import Candidate
from ai.errors import BundleError
from ai.locations import LOCATIONS, Location
from ai.manifest import MANIFEST
from ai.naming import READ, NamingNet, NamingSettings, named, naming_input
from ai.parts import Naming
from ai.unet import UNet
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.ai.test_second_stage import REGION, STAGE, second

CIRCLE = (10.0, 20.0, 30.0)
LEFT, RIGHT = Location.LEFT_ACA, Location.RIGHT_ACA


def candidate(left_mm: float, shares: dict[Location, float] | None = None) -> Candidate:
    """One so far to the left of the circle's middle; every location alike where nothing is said."""
    given = [1 / 13 if shares is None else shares.get(each, 0.0) for each in LOCATIONS]
    return Candidate(1.0, (CIRCLE[0] + left_mm, *CIRCLE[1:]), 5.0, np.array(given))


def network(**weights: float) -> NamingNet:
    """One that repeats the first stage's shares, and adds to a location what `LOCATION__NUMBER` weighs."""
    made = NamingNet(NamingSettings())
    with torch.no_grad():
        made.locations.weight.zero_()
        made.locations.bias.zero_()
        made.locations.weight[:, :13] = torch.eye(13)
        for name, weight in weights.items():
            location, read = name.split("__")
            made.locations.weight[LOCATIONS.index(Location[location]), READ.index(read)] += weight
    return made.requires_grad_(False).eval()


def share(one: Candidate, location: Location) -> float:
    return float(one.location_shares[LOCATIONS.index(location)])


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    stage = replace(STAGE, naming=Naming(NamingSettings(), {"unsaved.safetensors": ""}))
    return Bundle(
        manifest(second_stage=stage), (UNet(TINY).eval(),), (second(),), naming=(network(LEFT_ACA__left=9.0),)
    )


def test_shares_and_the_place_beside_the_circle_are_read() -> None:
    where = (CIRCLE[0] + 20.0, CIRCLE[1] - 5.0, CIRCLE[2] + 100.0)
    [read] = naming_input([replace(candidate(0.0, {LEFT: 1.0}), centre_lps_mm=where)], CIRCLE)
    told = dict(zip(READ, read.tolist(), strict=True))
    assert told["log_share_left_aca"] == 0.0 and told["log_share_acom"] == pytest.approx(np.log(1e-3))
    assert (told["left"], told["back"], told["up"]) == pytest.approx(
        (2.0, -0.5, 4.5)
    )  # no further than was learned from
    assert (told["left_squared"], told["left_back"], told["back_up"]) == pytest.approx((4.0, -1.0, -2.25))
    assert told["aside"] == pytest.approx(2.0) and told["side"] == pytest.approx(1.0)
    assert naming_input([], CIRCLE).shape == (0, len(READ))


def test_what_the_first_stage_says_is_weighed_against_the_place() -> None:
    unsure = {LEFT: 0.4, RIGHT: 0.6}
    left, right = named((candidate(3.0, unsure), candidate(-3.0, unsure)), CIRCLE, (network(LEFT_ACA__side=2.0),))
    assert share(left, LEFT) > 0.8 and share(right, RIGHT) > 0.8
    assert [one.location_shares.sum() for one in (left, right)] == pytest.approx([1.0, 1.0])
    [same] = named((candidate(3.0, unsure),), CIRCLE, (network(),))
    assert share(same, RIGHT) == pytest.approx(0.6, abs=0.02)


def test_what_lies_clearly_to_one_side_is_never_named_after_the_other() -> None:
    [one] = named((candidate(9.0),), CIRCLE, (network(RIGHT_ACA__left=9.0),))
    assert share(one, RIGHT) == 0.0 and share(one, LEFT) > 0.9


def test_the_mean_of_several_networks_counts_and_without_any_nothing_changes() -> None:
    found = (candidate(0.0),)
    sure, unsure = network(ACOM__log_share_acom=-9.0), network()
    shares = [share(named(found, CIRCLE, which)[0], Location.ACOM) for which in ((sure,), (unsure,), (sure, unsure))]
    assert shares[0] > 0.99 and shares[2] == pytest.approx((shares[0] + shares[1]) / 2)
    assert named(found, CIRCLE, ()) is found and named((), CIRCLE, (sure,)) == ()


def test_an_answer_that_is_no_number_is_none() -> None:
    with pytest.raises(FloatingPointError, match="names locations is no number"):
        named((candidate(1.0),), CIRCLE, (network(ACOM__left=float("nan")),))


def test_an_analysis_names_candidates_by_where_they_lie_from_the_circle(bundle: Bundle) -> None:
    found = (Candidate(2.0, (6.0, 0.0, 0.0), 5.0, np.full(13, 1 / 13)),)
    [one] = predict.looked_at_again(found, REGION, head(), bundle)
    assert share(one, LEFT) > 0.9  # 6 mm to the left of the circle, by which the network is told
    [moved] = predict.looked_at_again(found, replace(REGION, circle_centre_lps_mm=(12.0, 0.0, 0.0)), head(), bundle)
    assert share(moved, LEFT) < 0.1
    assert (one.score, one.centre_lps_mm) == (moved.score, moved.centre_lps_mm)


def test_a_bundle_keeps_what_names_locations(tmp_path: Path, bundle: Bundle) -> None:
    saved = save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second, naming=bundle.naming)
    read = load_bundle(tmp_path)
    assert read.manifest == saved
    ours, theirs = (named((candidate(2.0),), CIRCLE, one.naming)[0] for one in (bundle, read))
    assert ours.location_shares.tolist() == theirs.location_shares.tolist()
    document = json.loads((tmp_path / MANIFEST).read_text())
    document["second_stage"]["naming"]["network"]["reads"] = ["left", "right"]
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="not named as this version of Willis does"):
        load_bundle(tmp_path)
    with pytest.raises(ValueError, match="need a manifest that describes them"):
        replace(bundle, naming=())
