"""From a volume to findings, split into its parts; the forward pass beside the machine's own matrix products; memory.

`make bench-inference`.  A 400-slice 512² phantom; everything is measured several times, and before and after each forward
pass large float32 matrices are multiplied, so that whatever else the machine does slows both alike.  Floating-point
operations are those of the convolutions as the network defines them, for the voxels of the region: what overlapping tiles
compute twice, and what a pass saves by other means, does not count.  Where a pass is in bfloat16 (`ai.device`), so are the
matrices, and pass and analysis in float32 stand beside them.  The memory is that of a worker's process that analyses 800
slices and writes their report (VmHWM).

With `--device cuda` the forward pass runs on a GPU, beside matrix products in the precision that its convolutions use
there (TF32), and its time is compared with the roofline: for each convolution the longer of its operations at that rate
and its input and output, each moved once, at the rate of a copy on the device.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

import ai
from ai.bundle import Bundle, load_bundle
from ai.contrast import enhanced_tubes
from ai.coverage import head_extent
from ai.decode import candidates, findings
from ai.device import passes_in_bfloat16
from ai.inference import Maps, infer
from ai.manifest import DEFAULT_BUNDLE
from ai.preprocess import Region, region_of_interest
from ai.unet import UNet, UNetSettings
from ai.volume import Volume
from training.phantom import make_scan, write_series
from training.phantom.scan import PhantomScan

T = TypeVar("T")
SEED = 9_200_001
"""Neither training nor the demo draws from here."""
MATRIX = 2048
PARTS = ("coverage", "contrast check", "resample", "forward", "decode", "analysis")
IN_FLOAT32 = " in float32"


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--slices", type=int, default=400)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    arguments.add_argument("--tile", type=int, nargs=3, metavar=("D", "H", "W"), help="other tiles than the bundle's")
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--without-memory", action="store_true", help="leave the 800 slices out")
    arguments.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.worker:
        return _work(options.worker, options.bundle)
    print("painting the phantom", file=sys.stderr)
    scan = _with_slices(make_scan(SEED, positive=True, matrix=512, spacing_mm=0.8), options.slices)
    bundle = load_bundle(options.bundle, precision="auto")
    if options.tile:
        tiling = replace(bundle.manifest.tiling, size=tuple(options.tile))
        bundle = replace(bundle, manifest=replace(bundle.manifest, tiling=tiling))
    _print_speed(scan.volume, bundle, options.repeats, torch.device(options.device))
    if not options.without_memory:
        _print_memory(_with_slices(scan, 2 * options.slices), options.bundle)
    return None


def _with_slices(scan: PhantomScan, count: int) -> PhantomScan:
    """The same head in so many slices, the nearest of those painted: as many bytes, at a fraction of the painting."""
    painted = len(scan.volume.hu_DHW)
    affine = scan.volume.affine_lps.copy()
    affine[:, 0] *= painted / count
    nearest = np.minimum((np.arange(count) + 0.5) * painted / count, painted - 1).astype(int)
    return replace(scan, volume=Volume(scan.volume.hu_DHW[nearest], affine))


def _print_speed(volume: Volume, bundle: Bundle, repeats: int, device: torch.device) -> None:
    manifest = bundle.manifest
    for network in bundle.networks:
        network.to(device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        print(f"{torch.cuda.get_device_name(device)}; ", end="")
    teraflop = flops(manifest.network, manifest.preprocessing.size_DHW) * len(bundle.networks) / 1e12
    _one_run(volume, bundle, device)  # the first loads kernels and takes memory
    runs = [_one_run(volume, bundle, device) for _ in range(repeats)]
    print(
        f"{volume.hu_DHW.shape} voxels, {torch.get_num_threads()} threads, tiles of {manifest.tiling.size_DHW}, ",
        end="",
    )
    print(f"{repeats} repeats; seconds\n\n| part | median | least |\n|---|---|---|")
    for part in [*PARTS, *(each + IN_FLOAT32 for each in PARTS)]:
        values = [run[part] for run in runs if part in run]
        if values:
            print(f"| {part} | {statistics.median(values):.2f} | {min(values):.2f} |")
    shares = [teraflop / run["forward"] / run["rate"] for run in runs]
    rate = statistics.median(run["rate"] for run in runs)
    print(f"\nforward pass: {teraflop:.3f} TFLOP; matrix products run at {rate:.3f} TFLOP/s")
    print(f"share of the matrix-product rate: median {statistics.median(shares):.2g}, best {max(shares):.2g}")
    if device.type == "cuda":
        bandwidth = copy_rate(device)
        least = roofline_seconds(manifest.network, manifest.preprocessing.size_DHW, rate * 1e12, bandwidth * 1e12)
        passes = [run["network"] / len(bundle.networks) for run in runs]
        print(
            f"one pass of the network alone: {1e3 * statistics.median(passes):.1f} ms; a copy moves {bandwidth:.2f} TB/s; ",
            end="",
        )
        print(f"roofline {1e3 * least:.1f} ms, share {least / statistics.median(passes):.2f}")


def _one_run(volume: Volume, bundle: Bundle, device: torch.device) -> dict[str, float]:
    """Seconds by part, and the matrix-product rate in TFLOP/s around the forward pass."""
    seconds: dict[str, float] = {}
    manifest = bundle.manifest

    def timed(part: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        seconds[part] = time.perf_counter() - start
        return result

    extent = timed("coverage", lambda: head_extent(volume))
    centre = extent.circle_centre_lps_mm
    assert centre is not None
    timed("contrast check", lambda: enhanced_tubes(volume, centre))
    region = timed("resample", lambda: region_of_interest(volume, centre, manifest.preprocessing))
    bfloat16 = passes_in_bfloat16(bundle.precision, device)
    before = product_rate(device, bfloat16)
    maps = timed("forward", lambda: _maps(bundle, region, device))
    rate = (before + product_rate(device, bfloat16)) / 2.0
    timed("decode", lambda: findings(candidates(maps), manifest.calibration, manifest.threshold))
    timed("analysis", lambda: ai.analyse(volume, bundle, device.type))
    if bfloat16:
        exact = replace(bundle, precision="float32")
        timed("forward" + IN_FLOAT32, lambda: _maps(exact, region, device))
        timed("analysis" + IN_FLOAT32, lambda: ai.analyse(volume, exact, device.type))
    shown = torch.randn(1, manifest.network.in_channels, *manifest.preprocessing.size_DHW, device=device)
    shown = shown.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        alone = _seconds(lambda: [network.finding_maps(shown, bfloat16) for network in bundle.networks], device)
    return {**seconds, "rate": rate, "network": alone}


def _maps(bundle: Bundle, region: Region, device: torch.device) -> Maps:
    manifest = bundle.manifest
    return infer(bundle.networks, region, manifest.preprocessing, manifest.tiling, device, None, bundle.precision)


def product_rate(device: torch.device, bfloat16: bool) -> float:
    """TFLOP/s of large matrix products now, the median of several: float32 or bfloat16 on a CPU, TF32 on a GPU."""
    side = MATRIX if device.type == "cpu" else 4 * MATRIX
    kind = torch.bfloat16 if bfloat16 else torch.float32
    one, other = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    rates = [2.0 * side**3 / _seconds(lambda: torch.mm(one, other), device) / 1e12 for _ in range(7)]
    return statistics.median(rates[1:])


def copy_rate(device: torch.device) -> float:
    """TB/s of a large copy on the device, bytes read and bytes written, the median of several."""
    one = torch.randn(2**28, device=device)
    other = torch.empty_like(one)
    rates = [2.0 * 4.0 * one.numel() / _seconds(lambda: other.copy_(one), device) / 1e12 for _ in range(7)]
    return statistics.median(rates[1:])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long the work takes; on a GPU, until it is done there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def flops(settings: UNetSettings, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of the convolutions of one pass, vessel head left out; nothing is computed."""
    return sum(operations for operations, _ in _convolutions(settings, shape))


def roofline_seconds(settings: UNetSettings, shape: tuple[int, int, int], rate: float, bandwidth: float) -> float:
    """The least time of one pass at so many FLOP/s and bytes/s: of each convolution the longer of arithmetic and traffic."""
    return sum(max(operations / rate, moved / bandwidth) for operations, moved in _convolutions(settings, shape))


def _convolutions(settings: UNetSettings, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Of each convolution its floating-point operations, and the bytes of its float32 input and output."""
    counted: list[tuple[int, int]] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv3d)
        counted.append((2 * output.numel() * module.weight[0].numel(), 4 * (inputs[0].numel() + output.numel())))

    network = UNet(settings).to("meta")
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and module is not network.vessel:
            module.register_forward_hook(count)
    network(torch.zeros(1, settings.in_channels, *shape, device="meta"))
    return counted


def _print_memory(scan: PhantomScan, bundle: Path) -> None:
    """Prints the peak of a process of its own that claims, analyses and reports this series."""
    from pydicom import dcmread  # here, so that a machine with a GPU needs no node for the speed

    from storage.files.instances import Files
    from storage.stages import Event
    from storage.store import Store
    from tests.support.builders import FakeClock, keep

    with tempfile.TemporaryDirectory(prefix="willis-bench-") as name:
        folder = Path(name)
        print("writing the series", file=sys.stderr)
        paths = write_series(scan, folder / "series")
        store, clock = Store.open(f"sqlite:///{folder / 'willis.db'}"), FakeClock()
        series = keep(store, Files(folder / "files"), clock, [dcmread(path) for path in paths])
        assert store.settling.leave(series, Event.SETTLED, "count", clock())
        store.close()
        command = [sys.executable, "-m", "tests.benchmarks.bench_inference", "--worker", name, "--bundle", str(bundle)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    print(f"peak memory of a worker, {len(paths)} slices of {scan.volume.hu_DHW.shape[1]}²: {output.strip()}")


def _work(folder: Path, bundle_folder: Path) -> None:
    """The one series in the folder is analysed and reported; prints the outcome and the most memory ever held."""
    from datetime import UTC, datetime

    from node.analysis.analysis import AnalysisContext, analyse
    from node.analysis.bundle import algorithm_of
    from node.config.sections import Config
    from storage.files.instances import Files
    from storage.store import Store
    from tests.support.builders import LEASE, FakeClock

    store, bundle = Store.open(f"sqlite:///{folder / 'willis.db'}"), load_bundle(bundle_folder, precision="auto")
    clock = FakeClock()
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None
    context = AnalysisContext(
        Config(),
        Files(folder / "files"),
        bundle,
        algorithm_of(bundle.manifest),
        lambda: datetime.now(UTC),
        store=store,
    )
    analyse(context, claim)
    row = store.worklist.case("1")
    assert row is not None
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(f"{int(peak.split()[1]) / 2**20:.2f} GiB ({row['outcome']})")


if __name__ == "__main__":
    main()
