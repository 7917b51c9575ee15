"""What the processes of a node say to each other."""

import os
import signal

from node.runtime.processes import asked_to_stop


def test_whoever_was_asked_to_stop_knows_it() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        is_to_stop = asked_to_stop(signal.SIGUSR1)
        assert not is_to_stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert is_to_stop() and is_to_stop()
    finally:
        signal.signal(signal.SIGUSR1, before)
