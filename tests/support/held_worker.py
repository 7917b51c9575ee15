"""`willis` with the corpus's stand-in for the network, which waits as long as a file of the tests is there.

`python -m tests.support.held_worker worker …`, with the file's path in WILLIS_TEST_HOLD.  What it then works on, it says
beside: the process id in FILE.pid.  With WILLIS_TEST_HOST it runs on a host of that name, as far as it can tell.
WILLIS_TEST_NETWORK names another stand-in, as MODULE:FUNCTION.
"""

import os
import socket
import sys
import time
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from node.cli.main import app
from node.runtime import processes

MODULE = "tests.support.held_worker"


def held_network(*args: Any, **options: Any) -> Any:
    """As the stand-in, once it is let."""
    network = resolve_name(os.environ.get("WILLIS_TEST_NETWORK", "tests.corpus.network:network"))
    hold = Path(os.environ["WILLIS_TEST_HOLD"])
    if hold.exists():
        hold.with_suffix(".pid").write_text(str(os.getpid()))
    while hold.exists():
        time.sleep(0.02)
    return network(*args, **options)


def _stand_in() -> None:
    """In a process that analyses; all others start as soon as the shipped ones."""
    import ai
    import ai.predict
    from tests.corpus.network import fullest

    vars(ai).update(analyse=held_network, fullest=fullest)
    vars(ai.predict).update(warm=lambda *_args: None)  # nothing will use the network


def main() -> None:
    """The command ran; the processes that it starts have the stand-in too."""
    if sys.argv[1] == "work" or ("--as-child" in sys.argv and sys.argv[1] == "worker"):
        _stand_in()
    if name := os.environ.get("WILLIS_TEST_HOST"):
        vars(socket)["gethostname"] = lambda: name
    processes.PROGRAM = (sys.executable, "-m", MODULE)
    app()


if __name__ == "__main__":
    main()
