"""Mutated bytes for everything that reads what a peer sends: `python -m tests.faults.fuzz --inputs 1000000`.

Real PDU streams and datasets are cut, spliced, overwritten and their lengths falsified.  At the level of the parsers (`pdv`,
`elements`, `headers`) the only exceptions are those that say "malformed", no input takes long, and memory does not grow.
Through a socket (`--sockets 3000`), a receiver goes on serving others and writes nothing outside of its folder.
"""

import argparse
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.dicom import header
from node.dicom.dataset_walker import Malformed
from node.dicom.header import UnreadableDataset
from node.net.dimse_messages import Answer, Messages, ProtocolViolation, StoreRequest, read_command
from node.runtime import log
from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.raw_scu import RawScu, all_of, associate_rq, echo_command, fragments, store_command, store_pdus

SLOWEST_SECONDS = 2.0
INTERESTING = (0, 1, 2, 6, 0x7F, 0x80, 0xFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
SPLICES = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0", b"\x08\x00\x05\x00CS",
    b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"\xe0\x7f\x10\x00OW\0\0", b"\0" * 8, b"\xff" * 8,
)  # fmt: skip


def mutated(random: Random, content: bytes, others: list[bytes]) -> bytes:
    """`content` with one to four damages."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(8)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + random.randint(1, 40)]
        elif kind == 2:
            data[at:at] = random.randbytes(random.randint(1, 20))
        elif kind == 3:
            data[at : at + 4] = struct.pack(random.choice("<>") + "L", random.choice(INTERESTING))
        elif kind == 4:
            data[at : at + 2] = struct.pack(random.choice("<>") + "H", random.choice(INTERESTING) & 0xFFFF)
        elif kind == 5:
            data[at:at] = random.choice(SPLICES)
        elif kind == 6:
            other = random.choice(others)
            begin = random.randrange(len(other) + 1)
            data[at : at + random.randint(0, 60)] = other[begin : begin + random.randint(0, 200)]
        elif data:
            data[at % len(data)] ^= 1 << random.randrange(8)
    return bytes(data)


def datasets() -> list[tuple[str, bytes]]:
    """(transfer syntax, dataset) to begin with."""
    single = ct_series(1, rows=4, columns=4)[0]
    single.add_new(0x00091010, "UN", b"private")
    several = enhanced_ct(ct_series(3, rows=4, columns=4))
    found = [
        (str(syntax), encoded(ds, syntax))
        for ds in (single, several)
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
    ]
    deflated = str(DeflatedExplicitVRLittleEndian)
    return [*found, (deflated, encoded(several, deflated))]


def command_and_streams() -> tuple[bytes, list[bytes]]:
    """A C-STORE's command set, and the values of P-DATA-TFs that carry messages."""
    command, dataset = store_command("1.2.840.10008.5.1.4.1.1.2", "2.25.20000"), datasets()[0][1]
    return command, [
        b"".join(fragments(1, 1, command, 64) + fragments(1, 0, dataset, 200)),
        b"".join(fragments(3, 1, echo_command(), 30)),
    ]


def read_dataset(random: Random, syntax: str, content: bytes) -> str:
    """How the walker and the header end, fed in pieces as from the wire."""
    walker = header.walk(syntax)
    try:
        at = 0
        while at < len(content):
            size = random.choice((1, 7, 64, 4096))
            walker.feed(memoryview(content)[at : at + size])
            at += size
        walker.finish()
        header.header_of(walker, syntax, "1.2.840.10008.5.1.4.1.1.2", "2.25.20000")
    except (Malformed, UnreadableDataset) as error:
        assert len(str(error)) <= 64
        return type(error).__name__
    return "read"


class _Sink:
    def write(self, data: memoryview) -> None:
        """Gone."""

    def finish(self) -> Answer:
        """Success."""
        return Answer(0)

    def abandon(self) -> None:
        """Nothing was kept."""


def read_messages(random: Random, content: bytes) -> str:
    """How an association's messages end, its fragments cut as `transport` cuts them."""

    def begin(_request: StoreRequest) -> _Sink:
        return _Sink()

    messages, at = Messages(begin), 0
    try:
        while len(content) - at >= 6:
            size, context_id, flags = struct.unpack_from(">LBB", content, at)
            if size < 2:
                return "no value"
            messages.begin_fragment(context_id, flags)
            value = memoryview(content)[at + 6 : at + 4 + size]
            cut = random.randrange(len(value) + 1)
            for piece in (value[:cut], value[cut:]):
                messages.data(piece)
            messages.end_fragment()
            at += 4 + size
    except ProtocolViolation:
        return "ProtocolViolation"
    finally:
        messages.abandon()
    return "read"


def read_commands(content: bytes) -> str:
    """How a command set ends."""
    try:
        read_command(content)
    except ProtocolViolation:
        return "ProtocolViolation"
    return "read"


def parsers(random: Random, count: int, said: Counter[str]) -> float:
    """So many mutated inputs were read; returns the seconds of the slowest."""
    starts = datasets()
    contents = [content for _, content in starts]
    command, streams = command_and_streams()
    slowest = 0.0
    for number in range(count):
        kind = number % 4
        if kind < 2:
            syntax, content = random.choice(starts)
            input_, read = mutated(random, content, contents), _read_of(random, syntax)
        elif kind == 2:
            input_, read = mutated(random, random.choice(streams), [*contents, *streams]), _stream_of(random)
        else:
            input_, read = mutated(random, command, [*contents, command]), read_commands
        began = time.perf_counter()
        try:
            said[read(input_)] += 1
        except Exception:
            print(f"input {number}: {input_.hex()}", file=sys.stderr)
            raise
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < SLOWEST_SECONDS, f"one input took {slowest:.1f} s"
    return slowest


def _read_of(random: Random, syntax: str) -> Callable[[bytes], str]:
    return lambda content: read_dataset(random, syntax, content)


def _stream_of(random: Random) -> Callable[[bytes], str]:
    return lambda content: read_messages(random, content)


def sockets(random: Random, count: int, said: Counter[str]) -> None:
    """So many mutated streams went through a receiver's socket; after every hundredth another peer was served."""
    from tests.faults.senders import send, small_series
    from tests.faults.small_node import SmallNode, configuration
    from tests.support.running import free_port

    (ds, *_) = ct_series(1, rows=4, columns=4)
    stream = all_of(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, encoded(ds), 300))
    request = associate_rq()
    with tempfile.TemporaryDirectory(prefix="willis-fuzz-") as folder:
        config = configuration(Path(folder) / "node", free_port(), free_port())
        with SmallNode(config) as node:
            for number in range(count):
                with suppress(OSError), RawScu(config.node.port, 5) as scu:
                    if number % 3:
                        scu.send(request)
                        scu.pdu()
                        scu.send(mutated(random, stream, [stream, request]) or b"\0")
                    else:
                        scu.send(mutated(random, request, [stream, request]) or b"\0")
                    scu.socket.shutdown(1)
                    said[f"socket: PDU {scu.ended()}"] += 1
                if number % 100 == 0:
                    assert send(config.node.port, small_series(number + 1), {}), "another peer was not served"
            outside = [path for path in Path(folder).iterdir() if path.name != "node"]
            assert outside == []
            assert {path.name for path in node.files.root.iterdir()} <= {
                "instances", "reports", "incoming", "willis.db", "willis.db-wal", "willis.db-shm",
            }  # fmt: skip


def main() -> None:
    """Prints what became of the inputs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--inputs", type=int, default=1_000_000)
    arguments.add_argument("--sockets", type=int, default=3000)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    log.configure("json", "critical")
    random, said = Random(options.seed), Counter[str]()
    parsers(random, min(2000, options.inputs), Counter())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = parsers(random, options.inputs, said)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{options.inputs} inputs, slowest {1000 * slowest:.0f} ms, memory grew by {grown:.0f} MiB: {dict(said)}",
        flush=True,
    )
    assert grown < 64
    if options.sockets:
        through = Counter[str]()
        sockets(random, options.sockets, through)
        print(f"{options.sockets} streams through a socket: {dict(through)}")


if __name__ == "__main__":
    main()
