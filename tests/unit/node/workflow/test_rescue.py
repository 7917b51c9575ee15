"""What dead workers held is ready again, and a clock that is set back holds nothing up."""

import os
import subprocess
from datetime import timedelta

import pytest

from node.runtime import clock
from node.runtime.processes import worker_name
from node.workflow.recovery import rescue
from storage.stages import Stage
from tests.support.builders import (
    claimed,
    series_now,
)
from tests.support.site import WorkflowFactory


def test_what_a_dead_worker_held_is_ready_again_and_the_worker_is_woken(workflow: WorkflowFactory) -> None:
    context = workflow()
    claimed(context.store, context.clock)
    assert rescue(context.context) == 0
    assert context.woken == 0
    context.clock.advance(60.1)
    assert rescue(context.context) == 1
    assert (series_now(context.store).stage, context.woken) == (Stage.READY, 1)


def test_what_a_worker_of_this_host_held_when_it_died_is_ready_again_at_once(workflow: WorkflowFactory) -> None:
    context = workflow()
    with subprocess.Popen(["true"]) as dead:
        pass
    claimed(context.store, context.clock, worker=worker_name(dead.pid))
    assert rescue(context.context) == 1
    assert series_now(context.store).stage is Stage.READY
    assert series_now(context.store).attempts == 1


@pytest.mark.parametrize(
    "worker",
    [worker_name(os.getpid()), worker_name(1), "elsewhere:4194304", "elsewhere", ""],
    ids=("ours", "init", "of another host", "no number", "nameless"),
)
def test_a_worker_that_may_be_alive_keeps_its_claim(workflow: WorkflowFactory, worker: str) -> None:
    context = workflow()
    claimed(context.store, context.clock, worker=worker)
    assert rescue(context.context) == 0
    assert series_now(context.store).stage is Stage.ANALYSING


@pytest.mark.parametrize("back_seconds", [0, 86_400])
def test_a_clock_that_is_set_back_holds_up_no_storage_commitment(workflow: WorkflowFactory, back_seconds: int) -> None:
    context = workflow()
    context.report()
    lease = timedelta(seconds=92)
    delivery = context.store.outbox.due.claim(context.clock(), lease)
    assert delivery is not None
    context.store.outbox.accepted(delivery, context.clock(), "2.25.5")
    asked = context.store.commitments.due.claim(context.clock(), lease)
    assert asked is not None
    timeout = timedelta(seconds=context.context.config.delivery.commitment_timeout_seconds)
    context.store.commitments.asked(asked, context.clock(), context.clock() + timeout)
    instances = (("1.2.840.10008.5.1.4.1.1.2", "2.25.1.1"),)
    assert context.store.commitment_requests.add("2.25.6", "CT1", instances, context.clock(), context.clock() + lease)
    context.clock.advance(-back_seconds)
    rescue(context.context)
    is_due = bool(back_seconds)
    assert (context.store.commitments.due.claim(context.clock(), lease) is not None) is is_due
    assert (context.store.commitment_requests.due.claim(context.clock(), lease) is not None) is is_due


def test_the_clock_of_a_running_node_tells_utc() -> None:
    assert clock.utc_now().utcoffset() == timedelta(0)
