"""How much memory a receiver takes at most: `make bench-memory`.

One real receiver process takes, one after the other: 100 associations at once, a series of 2,000 slices, and an Enhanced CT
instance of 1 GiB.  Printed is the largest resident set (VmHWM) during each; everything must have been acknowledged and be
there.
"""

import argparse
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

from tests.benchmarks.bench_receive import Receiver, running
from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.raw_scu import LAST, STORE_CONTEXT, RawScu, associate_rq, p_data, pdv, store_pdus

GOAL_MIB = 200
PDU_BYTES = 131_072
FRAMES, FRAME_BYTES = 2048, 512 * 512 * 2


def series(port: int, number: int, slices: int, together: threading.Barrier | None = None) -> None:
    """So many slices of 0.5 MB were acknowledged, on one association that was open `together` with others."""
    uid = f"2.25.66{number:05d}"
    (ds,) = ct_series(1, rows=512, columns=512, SeriesInstanceUID=uid, StudyInstanceUID=f"{uid}.1")
    with RawScu(port, 300).associate(associate_rq(PDU_BYTES)) as scu:
        if together is not None:
            together.wait()
        for index in range(slices):
            ds.SOPInstanceUID, ds.ImagePositionPatient = f"{uid}.2.{index}", [0, 0, index]
            assert scu.store(ds, encoded(ds), PDU_BYTES - 1000) == 0
        if together is not None:
            together.wait()
        scu.release()


def at_once(port: int, associations: int, slices: int) -> None:
    """All of them were open at the same time."""
    together, failed = threading.Barrier(associations), list[Exception]()

    def one(number: int) -> None:
        try:
            series(port, number, slices, together)
        except Exception as error:  # noqa: BLE001  told by the thread that waits for this one
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(associations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def enhanced(port: int, frames: int) -> None:
    """An Enhanced CT instance of so many frames of 512² was acknowledged; its pixels are made as they are sent."""
    ds: Dataset = enhanced_ct(ct_series(frames, rows=2, columns=2))
    ds.Rows = ds.Columns = 512
    del ds.PixelData
    head = encoded(ds) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, frames * FRAME_BYTES)
    with RawScu(port, 300).associate(associate_rq(PDU_BYTES, EnhancedCTImageStorage)) as scu:
        scu.send(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, b"")[0])
        for at in range(0, len(head), 100_000):
            scu.send(p_data(pdv(STORE_CONTEXT, 0, head[at : at + 100_000])))
        part = b"".join(p_data(pdv(STORE_CONTEXT, 0, bytes(FRAME_BYTES // 8))) for _ in range(8))
        for _ in range(frames):
            scu.send(part)
        scu.send(p_data(pdv(STORE_CONTEXT, LAST, b"")))
        assert scu.status() == 0
        scu.release()


def peak_mib(receiver: Receiver, task: Callable[[], None], instances: int) -> float:
    """The largest resident set while the task ran, MiB; the receiver has so many more instances than before."""
    before = receiver.kept()
    Path(f"/proc/{receiver.process.pid}/clear_refs").write_text("5")  # VmHWM begins anew (proc(5))
    task()
    assert receiver.kept() - before == instances
    return receiver.peak_mib()


def main() -> None:
    """Prints the table; exit status 1 when the goal was missed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--associations", type=int, default=100)
    arguments.add_argument("--slices", type=int, default=2000)
    arguments.add_argument("--frames", type=int, default=FRAMES, help="of 0.5 MB; 2048 are 1 GiB")
    options = arguments.parse_args()
    count, slices, frames = options.associations, options.slices, options.frames
    root, peaks = Path(tempfile.mkdtemp(prefix="willis-bench-")), list[float]()
    try:
        with running("willis", root) as receiver:
            tasks: list[tuple[str, int, Callable[[], None]]] = [
                (
                    f"{count} associations at once, 10 × 0.5 MB each",
                    10 * count,
                    lambda: at_once(receiver.port, count, 10),
                ),
                (f"one series, {slices} × 0.5 MB", slices, lambda: series(receiver.port, 99_999, slices)),
                (
                    f"one Enhanced CT, {frames * FRAME_BYTES / 2**30:.2f} GiB",
                    1,
                    lambda: enhanced(receiver.port, frames),
                ),
            ]
            print(f"| task | peak RSS, goal {GOAL_MIB} MiB |\n|---|---|\n| at rest | {receiver.peak_mib():.0f} MiB |")
            for name, instances, task in tasks:
                peaks.append(peak_mib(receiver, task, instances))
                print(f"| {name} | {peaks[-1]:.0f} MiB |", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    raise SystemExit(max(peaks) > GOAL_MIB)


if __name__ == "__main__":
    main()
