#!/usr/bin/env bash
# distributed 2026.8.0: a Client whose constructor raises leaves a thread, its event loop and their descriptors behind.
#
# Software: dask and distributed 2026.8.0 (PyPI), tornado 6.6.1, Linux, Python 3.11 or newer.
# Input: Client(address, timeout=0.2) where nobody listens at the address yet, again and again, as a service does that waits
# for its scheduler; each raises OSError, is caught, and what was raised is let go of.
# Expected: what could not be made leaves nothing behind, as a socket that could not connect.
# Seen: each try leaves one more running thread and at least two open descriptors, also after a collection of garbage: the client
# has closed itself, so that nothing stops the loop that it had started.  The caller has no object to close.
# A tornado loop that the caller runs and gives as `loop=` is not doubled: then nothing is left.
#
# This prints what is seen, and fails where that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" \
    dask==2026.8.0 distributed==2026.8.0 tornado==6.6.1
cd "$folder"
PYTHONPATH=$folder python3 - <<'PROGRAM'
import asyncio
import gc
import logging
import os
import socket
import threading
from typing import Any

from distributed import Client
from tornado.ioloop import IOLoop

TRIES = 5
for name in ("distributed", "distributed.client", "tornado.application"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
with socket.create_server(("127.0.0.1", 0)) as nobody:
    address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"  # free again from here


def left_by(**arguments: Any) -> tuple[int, int]:
    """Threads and descriptors that so many tries have left."""
    gc.collect()
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(TRIES):
        try:
            Client(address, timeout=0.2, **arguments)
        except OSError:
            continue
        raise AssertionError("somebody listened")
    gc.collect()
    return threading.active_count() - before[0], len(os.listdir("/proc/self/fd")) - before[1]


def own_loop() -> IOLoop:
    """A loop of ours, in a thread of ours."""
    made: list[IOLoop] = []
    runs = threading.Event()

    async def run() -> None:
        made.append(IOLoop.current())
        runs.set()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()
    runs.wait()
    return made[0]


left_by()  # what the library starts once is there
threads, descriptors = left_by()
print(f"{TRIES} clients that could not be made: {threads} threads and {descriptors} descriptors more")
assert threads >= TRIES and descriptors >= 2 * TRIES
loop = own_loop()
left_by(loop=loop)
threads, descriptors = left_by(loop=loop)
print(f"the same with a loop that is given: {threads} threads and {descriptors} descriptors more")
assert threads == 0 and descriptors <= 1
PROGRAM
