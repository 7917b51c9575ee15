"""What a worker of the engine makes of a task, without an engine."""

import errno
import pickle
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import ai
from ai.bundle import load_bundle
from node.analysis import engine_worker
from node.analysis.analysis import Means, order_of, record
from node.analysis.bundle import model_name
from node.analysis.cluster import ANSWERED, FAILED, REFUSED, look_at_scheduler
from node.analysis.drafts import Settings
from node.analysis.engine_worker import Served
from node.analysis.task import answer
from node.config.sections import Eligibility
from storage.files.instances import Files
from tests.unit.ai.test_bundle import manifest
from tests.unit.node.analysis.conftest import NEGATIVE, POSITIVE, Workshop

MODEL = "Willis 1 with model 2"


@pytest.fixture(autouse=True)
def nothing_served() -> Iterator[None]:
    yield
    engine_worker._served.clear()


def served(shop: Workshop, files: Files | None = None) -> None:
    context = shop.context
    bundle: Any = SimpleNamespace(manifest=manifest())
    means = Means(context.config, files or context.files, bundle, context.algorithm, context.clock)
    engine_worker._served[:] = [Served(MODEL, means)]


def task(shop: Workshop) -> tuple[Any, bytes]:
    """A claim, and what is packed of it."""
    claim = shop.claim()
    return claim, pickle.dumps((order_of(shop.context, claim), Settings.of(shop.context.config, "0.1 (second)")))


def test_an_order_is_worked_out_and_recorded_by_whoever_holds_the_claim(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(POSITIVE, report={"results": ["sr", "sc"]})
    claim, packed = task(shop)
    served(shop)
    assert claim.token.encode() not in packed, "nobody else can end the claim"
    how, packed_answer = answer(MODEL, packed)
    assert (how, shop.row()["stage"]) == (ANSWERED, "analysing")
    assert isinstance(packed_answer, bytes)
    assert record(shop.context, claim, pickle.loads(packed_answer))
    assert (shop.row()["outcome"], shop.report().SOPInstanceUID) == ("positive", shop.row()["report_uid"])
    assert shop.row()["model"] == "0.1 (second)", "as the claimant's database calls it"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_claimants_settings_count_and_not_the_workers(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(eligibility={"require_contrast": False})
    _, packed = task(shop)
    served(shop)
    means = engine_worker._served[0].means
    means.config = means.config.model_copy(update={"eligibility": Eligibility(require_contrast=True)})
    assert answer(MODEL, packed)[0] == ANSWERED
    assert [require_contrast for _, _, require_contrast in shop.seen] == [False]


def test_a_report_is_dated_in_the_claimants_time_zone(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    claim, packed = task(shop)
    monkeypatch.undo()
    time.tzset()
    served(shop)
    monkeypatch.setattr(ai, "analyse", lambda *_args, **_options: NEGATIVE, raising=False)
    _, found = answer(MODEL, packed)
    assert isinstance(found, bytes) and record(shop.context, claim, pickle.loads(found))
    assert shop.report().ContentTime[:2] == f"{shop.clock().astimezone(ZoneInfo('Asia/Tokyo')):%H}"


def test_a_worker_that_nobody_prepared_refuses() -> None:
    assert answer(MODEL, b"no pickle") == (
        REFUSED,
        f"{socket.gethostname()} runs a worker that `willis worker` did not start",
    )


def test_a_worker_with_another_model_names_both(workshop: Callable[..., Workshop]) -> None:
    served(workshop())
    how, why = answer("Willis 9 with model 9", b"no pickle")
    assert (how, why) == (
        REFUSED,
        f"{socket.gethostname()} has {MODEL}, and was asked for Willis 9 with model 9: install the same on both",
    )


def test_a_model_that_is_read_otherwise_has_another_name() -> None:
    read = [load_bundle(flip=flip, precision=precision) for flip in (False, True) for precision in ("auto", "float32")]
    assert [model_name(each).partition(each.sha256[:12])[2] for each in read] == [
        ")",
        ", in float32)",
        ", flipped too)",
        ", flipped too, in float32)",
    ]


def test_a_worker_without_the_files_refuses_and_says_what_to_do(
    workshop: Callable[..., Workshop], tmp_path: Path
) -> None:
    shop = workshop()
    _, packed = task(shop)
    served(shop, Files(tmp_path / "elsewhere"))
    how, why = answer(MODEL, packed)
    assert how == REFUSED
    assert str(why).endswith("lacks images; let it be the node's folder, or set objects")


def test_a_worker_whose_files_cannot_be_read_refuses(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop()
    _, packed = task(shop)
    served(shop)
    path = next(shop.context.files.root.rglob("*.dcm"))
    path.write_bytes(path.read_bytes()[:100])
    how, why = answer(MODEL, packed)
    assert how == REFUSED and str(why).endswith("cannot be read")

    def stale(_path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "exists", stale)
    assert answer(MODEL, packed)[0] == REFUSED


def test_a_failed_analysis_says_its_kind_and_nothing_of_what_it_read(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(ValueError("Doe^Jane"))
    _, packed = task(shop)
    served(shop)
    assert answer(MODEL, packed) == (FAILED, "ValueError")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_only_our_tasks_for_the_model_that_are_not_done_are_counted() -> None:
    class Thing:
        def __init__(self, **values: Any) -> None:
            vars(self).update(values)

    scheduler = Thing(
        workers={"a": Thing(resources={MODEL: 1.0}), "b": Thing(resources={})},
        tasks={
            "willis-1": Thing(state="processing", resource_restrictions={MODEL: 1.0}),
            "willis-2": Thing(state="memory", resource_restrictions={MODEL: 1.0}),
            "willis-3": Thing(state="no-worker", resource_restrictions={"Willis 1 with model 1": 1.0}),
            "other-1": Thing(state="processing", resource_restrictions=None),
        },
    )
    assert look_at_scheduler(MODEL, scheduler) == ([[MODEL], []], 1)
