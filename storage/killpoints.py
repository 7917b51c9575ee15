"""Named points on the way of an instance and of a report at which a test makes the process die.

`WILLIS_KILL_AT=after_answer:3` kills this process, as `kill -9` does, when it comes to `after_answer` for the third time.
Without the variable nothing happens here.  tests/faults dies at every one of them and proves that nothing is lost.
"""

import itertools
import os
import signal

_NAME, _, _TIME = os.environ.get("WILLIS_KILL_AT", "").partition(":")
_passages = itertools.count(1)


def kill_point(name: str) -> None:
    """The process has come to this point, and goes on unless a test wants it to die here."""
    if name == _NAME and next(_passages) == int(_TIME or 1):
        os.kill(os.getpid(), signal.SIGKILL)
