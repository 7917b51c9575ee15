"""Properties of an association under any bytes at all: it ends, in bounded time, and no other one notices.

Through real sockets into one receiver.  What comes is arbitrary, or valid PDUs that are cut, doubled, left out and reordered.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.senders import small_series
from tests.faults.small_node import SmallNode, configuration
from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series
from tests.support.raw_scu import (
    ABORT,
    COMMAND,
    ECHO_CONTEXT,
    RELEASE_RQ,
    RawScu,
    associate_rq,
    echo_command,
    fragments,
    p_data,
    store_pdus,
)
from tests.support.running import free_port

LONGEST_SECONDS = 10.0
"""An association that was closed by its sender is over by then, on however busy a machine."""
LIMITS = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
(_SLICE,) = ct_series(1, rows=4, columns=4)
PDUS = (
    associate_rq(), *store_pdus(_SLICE.SOPClassUID, _SLICE.SOPInstanceUID, encoded(_SLICE), 300),
    p_data(*fragments(ECHO_CONTEXT, COMMAND, echo_command(), 100)),
    RELEASE_RQ, ABORT,
)  # fmt: skip


class Bystander:
    """Another sender, on an association that stays open the whole time."""

    def __init__(self, node: SmallNode) -> None:
        self.node, self.port = node, node.config.node.port
        self.slices = itertools.cycle(small_series(7))
        self.scu = RawScu(self.port, 10).associate(associate_rq())

    def is_served(self) -> bool:
        return self.scu.store(*next(self.slices)) == 0


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bystander]:
    """A sender to a receiver that waits a minute for what does not come."""
    folder: Path = tmp_path_factory.mktemp("properties")
    config = configuration(folder / "node", free_port(), free_port())
    config = config.model_copy(update={"node": config.node.model_copy(update={"network_timeout_seconds": 60.0})})
    with SmallNode(config) as node:
        made = Bystander(node)
        yield made
        made.scu.release()


def check(bystander: Bystander, data: bytes) -> None:
    """A sender of these bytes that then says no more is answered and let go, and the bystander is served."""
    began = time.monotonic()
    with suppress(OSError), RawScu(bystander.port, LONGEST_SECONDS) as scu:
        scu.socket.sendall(data)
        scu.socket.shutdown(1)
        scu.ended()
    assert time.monotonic() - began < LONGEST_SECONDS
    assert bystander.is_served()


@LIMITS
@given(st.binary(max_size=400))
def test_arbitrary_bytes_before_an_association_harm_nobody(bystander: Bystander, data: bytes) -> None:
    check(bystander, data)


@LIMITS
@given(st.binary(max_size=400))
def test_arbitrary_bytes_on_an_association_harm_nobody(bystander: Bystander, data: bytes) -> None:
    check(bystander, PDUS[0] + data)


@LIMITS
@given(st.integers(1, 7), st.one_of(st.none(), st.integers(0, 2**32 - 1)), st.binary(max_size=200))
def test_any_pdu_with_any_length_harms_nobody(bystander: Bystander, kind: int, length: int | None, data: bytes) -> None:
    said = len(data) if length is None else length
    check(bystander, PDUS[0] + bytes((kind, 0)) + said.to_bytes(4, "big") + data)


CUT_PDUS = st.lists(st.tuples(st.sampled_from(PDUS), st.sampled_from((0, 0, 0, 1, 7, 40))), max_size=8)


@LIMITS
@given(CUT_PDUS, st.booleans())
def test_valid_pdus_cut_doubled_left_out_and_reordered_harm_nobody(
    bystander: Bystander, pdus: list[tuple[bytes, int]], associated: bool
) -> None:
    check(bystander, (PDUS[0] if associated else b"") + b"".join(pdu[: max(0, len(pdu) - cut)] for pdu, cut in pdus))


def test_nothing_of_all_those_associations_is_left(bystander: Bystander) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while (left := sum(thread.name == "AcceptorThread" for thread in threading.enumerate())) > 1:
        assert time.monotonic() < deadline, f"{left} associations are open, one is the bystander's"
        time.sleep(0.05)
    names = {path.name for path in bystander.node.files.root.iterdir()}
    assert names <= {"instances", "reports", "incoming", "willis.db", "willis.db-wal", "willis.db-shm"}
    assert list((bystander.node.files.root / "incoming").iterdir()) == []
