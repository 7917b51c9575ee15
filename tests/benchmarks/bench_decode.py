"""How long it takes to make a volume of a series, by transfer syntax: `make bench-decode`.

The slices are those of a phantom; dcmtk encodes, and imagecodecs what dcmtk cannot.  CPU seconds on one thread are what is
comparable on a shared machine.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from ai.volume import volume_from_datasets
from tests.support.compressed import CODECS, DCMTK, by_codec, by_dcmtk
from tests.support.running import cached_phantom


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--slices", type=int, default=100)
    options = arguments.parse_args()
    paths = cached_phantom("decode", seed=9_100_001, positive=False, matrix=512, spacing_mm=1.0)[: options.slices]
    native = [dcmread(path) for path in paths]
    print(f"{len(native)} slices of {native[0].Rows}², one thread, scaled to 400\n")
    print("| transfer syntax | CPU seconds | largest difference, HU |\n|---|---|---|")
    truth = _row("explicit little endian", native, None)
    with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
        for name, (_, command) in DCMTK.items():
            _row(name, by_dcmtk(native, command, Path(folder)), truth)
    for name, syntax in CODECS.items():
        _row(name, by_codec(native, syntax), truth)


def _row(name: str, datasets: Sequence[Dataset], truth: NDArray[np.int16] | None) -> NDArray[np.int16]:
    began = time.process_time()
    volume = volume_from_datasets(datasets, 1)
    seconds = (time.process_time() - began) * 400 / len(datasets)
    different = 0 if truth is None else int(np.abs(volume.hu_DHW.astype(int) - truth).max())
    print(f"| {name} | {seconds:.1f} | {different} |")
    sys.stdout.flush()
    return volume.hu_DHW


if __name__ == "__main__":
    main()
