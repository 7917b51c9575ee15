"""`willis` with the corpus's stand-in for the network: `python -m tests.corpus.stub_node serve --config FILE`.

All else in all its processes is as it is shipped, the worker and its bundle too.
"""

import sys

import ai
from node.cli.main import app
from node.runtime import processes
from tests.corpus.network import fullest, network

MODULE = "tests.corpus.stub_node"


def main(module: str = MODULE) -> None:
    """The command ran; the processes that it starts are of `module` and have the stand-in too."""
    vars(ai).update(analyse=network, fullest=fullest)
    processes.PROGRAM = (sys.executable, "-m", module)
    app()


if __name__ == "__main__":
    main()
