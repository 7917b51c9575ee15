"""`willis` with the corpus's stand-in for the network, which waits as long as a file of the tests is there.

`python -m tests.support.held_worker worker …`, with the file's path in WILLIS_TEST_HOLD.  What it then works on, it says
beside: the process id in FILE.pid.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import ai
from ai.findings import Findings
from node.cli.main import app
from node.runtime import processes
from tests.corpus.network import fullest, network

MODULE = "tests.support.held_worker"


def held_network(*args: Any, **options: Any) -> Findings:
    """As `network`, once it is let."""
    hold = Path(os.environ["WILLIS_TEST_HOLD"])
    if hold.exists():
        hold.with_suffix(".pid").write_text(str(os.getpid()))
    while hold.exists():
        time.sleep(0.02)
    return network(*args, **options)


def main() -> None:
    """The command ran; the processes that it starts have the stand-in too."""
    vars(ai).update(analyse=held_network, fullest=fullest)
    processes.PROGRAM = (sys.executable, "-m", MODULE)
    app()


if __name__ == "__main__":
    main()
