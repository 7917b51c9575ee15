"""Coverage-guided bytes for the same parsers as `fuzz`: `python -m tests.faults.fuzz_covered FOLDER -max_total_time=600`.

The folder keeps what was found worth trying.  Needs atheris (`pip install atheris`), whose options may follow.  An exception
that does not say "malformed", an input that takes longer than ten seconds, or more than 1 GiB of memory ends the run, and the
input is kept in a file.
"""

import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["node", "tests.faults.fuzz"]):
    from node.runtime import log
    from tests.faults.fuzz import command_and_streams, datasets, read_commands, read_dataset, read_messages

SYNTAXES = sorted({syntax for syntax, _ in datasets()})


def read(data: bytes) -> None:
    """The first byte chooses the parser and its transfer syntax, the second how the rest is cut; all of it was read."""
    if len(data) < 2:
        return
    random, kind, content = Random(data[1]), data[0] % (len(SYNTAXES) + 2), data[2:]
    if kind < len(SYNTAXES):
        read_dataset(random, SYNTAXES[kind], content)
    elif kind == len(SYNTAXES):
        read_messages(random, content)
    else:
        read_commands(content)


def write_seeds(folder: Path) -> None:
    """What is well-formed lies in the folder, for the fuzzer to begin with."""
    command, streams = command_and_streams()
    seeds = [(SYNTAXES.index(syntax), content) for syntax, content in datasets()]
    seeds += [*((len(SYNTAXES), stream) for stream in streams), (len(SYNTAXES) + 1, command)]
    for number, (kind, content) in enumerate(seeds):
        (folder / f"seed{number}").write_bytes(bytes((kind, number)) + content)


if __name__ == "__main__":
    log.configure("json", "critical")
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    write_seeds(corpus)
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=1024"], read)
    atheris.Fuzz()
