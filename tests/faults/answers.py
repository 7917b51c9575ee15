"""`python -m tests.faults.answers --requests 20000`: C-ECHO and C-FIND on a busy machine, and how many answers are lost.

pynetdicom 3.0.4 lost some: its second thread took an answer that the sender waited for, which then aborted.  With
`--library` the requests are pynetdicom's own.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_ECHO, C_FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from node.errors import Unavailable
from node.scu import dimse
from node.scu.dimse import Entity, Timeouts
from tests.support.raw_scp import RawScp

FIND = StudyRootQueryRetrieveInformationModelFind
SYNTAX = "1.2.840.10008.1.2"
TIMEOUT_SECONDS = 5.0


def lost_answers(requests: int, busy_threads: int, is_library: bool = False) -> list[int]:
    """The numbers of the requests whose answer did not come, while so many threads compute."""

    def script(scp: RawScp) -> None:
        while True:
            try:
                asked, _ = scp.message()
            except AssertionError:  # no P-DATA-TF: the release, or the abort
                scp.send(b"\x06\0\0\0\0\x04\0\0\0\0")
                return
            scp.answer(asked, 0x0000)

    lost, number = list[int](), 0
    with _busy(busy_threads):
        while number < requests:
            with RawScp(script, Verification, FIND) as scp, _asking(scp, is_library) as ask:
                while number < requests:
                    number += 1
                    if not ask(number):
                        lost.append(number)
                        break
    return lost


@contextmanager
def _asking(scp: RawScp, is_library: bool) -> Iterator[Callable[[int], bool]]:
    """Within, a request of a number is made; whether its answer came."""
    if is_library:
        ae = AE("WILLIS")
        ae.dimse_timeout = TIMEOUT_SECONDS
        for sop_class in (Verification, FIND):
            ae.add_requested_context(sop_class, SYNTAX)
        library = ae.associate(scp.peer.host, scp.peer.port)
        try:
            yield lambda _number: "Status" in library.send_c_echo()
        finally:
            library.release()
        return
    us = Entity("WILLIS", Timeouts(5, TIMEOUT_SECONDS, 5))
    with dimse.associate(us, scp.peer, [(Verification, SYNTAX), (FIND, SYNTAX)]) as assoc:
        echo, find = (assoc.contexts_of(sop_class)[0] for sop_class in (Verification, FIND))

        def ask(number: int) -> bool:
            request = C_ECHO() if number % 2 else C_FIND()
            request.AffectedSOPClassUID = Verification if number % 2 else FIND
            if isinstance(request, C_FIND):
                request.Priority = 2
            query = Dataset()
            query.QueryRetrieveLevel = "STUDY"
            try:
                [(answer, _)] = assoc.ask(request, echo if number % 2 else find, None if number % 2 else query)
            except Unavailable:
                return False
            return bool(answer.Status == 0x0000)

        yield ask


@contextmanager
def _busy(threads: int) -> Iterator[None]:
    """So many threads of this process compute, which take turns with those that talk every 50 µs."""
    stop, before = threading.Event(), sys.getswitchinterval()

    def compute() -> None:
        while not stop.is_set():
            sum(range(200))

    running = [threading.Thread(target=compute, daemon=True) for _ in range(threads)]
    sys.setswitchinterval(0.00005)
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        sys.setswitchinterval(before)
        for thread in running:
            thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--busy", type=int, default=1, help="threads that compute meanwhile")
    parser.add_argument("--library", action="store_true", help="pynetdicom's own requestor")
    options = parser.parse_args()
    start = time.monotonic()
    gone = lost_answers(options.requests, options.busy, options.library)
    seconds = time.monotonic() - start
    print(f"{options.requests} requests, {len(gone)} answers lost, {seconds:.1f} s")
    raise SystemExit(bool(gone))
