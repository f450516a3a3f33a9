"""Cutting slices into patches and blending them back: the kernels beside what torch offers.

    python bench/patches.py [--out bench/results/patches.json] [--device cuda] [--slices 16] [--size 512]

Patches of 56 pixels as in PaDIS (side by side, shifted) and overlapping by 8 (averaged). Rivals: torch's unfold and
fold, and torch's index arithmetic, both given a padded canvas, a precomputed index and precomputed weights and brought
to the same layout (patches, slices, 56, 56); and `volrecon.patches` in plain torch. Kernels run on the device, or on
the CPU through the shim of the tests where there is g++. GB/s counts each input and output once; the share is that of a
copy of as many bytes, measured in the same run. Extra memory is what is taken at most besides input and output. All
methods are checked against each other. Medians of five calls after one that is not counted; on the CPU one thread's
processor time, which other work on the machine does not count towards.
"""

import argparse
import ctypes
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from record import write_record
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the shim lies beside the tests

from tests.kernels.host import GXX, Host, build_library  # noqa: E402
from volrecon import cuda, patches  # noqa: E402
from volrecon.tiling import PatchGrid, patch_layout  # noqa: E402

PATCH = 56
M_MMAP_THRESHOLD = -3


class Canvas:
    """A layout on one regular grid, as unfold and fold want it: zeros around the slice up to the patches' ends."""

    def __init__(self, layout, slices, device):
        self.slices, axes = slices, (layout.down, layout.across)
        first = [int(axis.starts[0]) for axis in axes]
        self.stride, self.size = (
            int(np.diff(layout.down.starts)[0]),
            [int(a.starts[-1]) + PATCH - a.starts[0] for a in axes],
        )
        (top, left), (height, width), (rows, columns) = (-n for n in first), self.size, layout.shape
        self.border = (left, width - columns - left, top, height - rows - top)
        self.inside = (slice(None), slice(top, top + rows), slice(left, left + columns))
        down, across = (
            torch.from_numpy(axis.starts - start)[:, None] + torch.arange(PATCH)
            for axis, start in zip(axes, first, strict=True)
        )
        self.rows, self.columns = down[:, None, :, None].to(device), across[None, :, None, :].to(device)
        self.weights = patches.spread(torch.ones((1, *layout.shape), device=device), layout, layout.all)

    def unfold(self, x):
        cut = functional.unfold(functional.pad(x, self.border)[:, None], PATCH, stride=self.stride)
        return cut.view(self.slices, PATCH, PATCH, -1).movedim(3, 0).contiguous()

    def fold(self, made):
        cut = (made * self.weights).movedim(0, 3).reshape(self.slices, PATCH * PATCH, -1)
        return functional.fold(cut, self.size, PATCH, stride=self.stride)[:, 0][self.inside].contiguous()

    def index(self, x):
        cut = functional.pad(x, self.border)[:, self.rows, self.columns]
        return cut.flatten(1, 2).movedim(1, 0).contiguous()

    def index_add(self, made):
        canvas = made.new_zeros(self.slices, self.size[0] * self.size[1])
        at = (self.rows * self.size[1] + self.columns).flatten()
        canvas.index_add_(1, at, (made * self.weights).movedim(1, 0).reshape(self.slices, -1))
        return canvas.view(self.slices, *self.size)[self.inside].contiguous()


def methods(layout, canvas, kernels):
    """(extract, blend) by name."""
    found = {
        "torch": (lambda x: patches.extract(x, layout, layout.all), lambda made: patches.blend(made, layout)),
        "unfold, fold": (canvas.unfold, canvas.fold),
        "index, index_add": (canvas.index, canvas.index_add),
    }
    if kernels is not None:
        found["kernel"] = (
            lambda x: cuda.patch_extract(x, layout, layout.all, on=kernels),
            lambda made: cuda.patch_blend(made, layout, on=kernels),
        )
    return found


def timed(call, device, repeats=5):
    """Median seconds of a call."""
    clock, seconds = time.perf_counter if device == "cuda" else time.process_time, []
    for _ in range(1 + repeats):
        start = clock()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return float(np.median(seconds[1:]))


def most_taken(call, device):
    """Bytes that a call takes at most, its result included."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
    before = kibibytes("VmRSS")
    call()
    return 1024 * (kibibytes("VmHWM") - before)


def kibibytes(name):
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def cells(options, kernels):
    device, shape = options.device, (options.slices, options.size, options.size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    for mode in ("padis", "average"):
        layout = patch_layout(PatchGrid(shape[1:], PATCH), mode, shift=(5, 17))
        made = patches.extract(x, layout, layout.all)
        copy = 2 * made.nbytes / timed(made.clone, device)
        for name, pair in methods(layout, Canvas(layout, len(x), device), kernels).items():
            for operation, call, given, wanted in zip(("extract", "blend"), pair, (x, made), (made, x), strict=True):
                torch.testing.assert_close(call(given), wanted, rtol=1e-5, atol=1e-5)
                seconds = timed(lambda call=call, given=given: call(given), device)
                extra = most_taken(lambda call=call, given=given: call(given), device) - wanted.nbytes
                rate = (given.nbytes + wanted.nbytes) / seconds
                yield {
                    **{"mode": mode, "operation": operation, "method": name, "milliseconds": 1e3 * seconds},
                    **{"gb_per_s": rate / 1e9, "share_of_copy": rate / copy, "copy_gb_per_s": copy / 1e9},
                    "extra_mib": max(0, extra) / 2**20,
                }


def launcher(device, folder):
    """What runs the kernels, if anything can."""
    if device == "cuda":
        return cuda.GPU if cuda.installed() else None
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)  # what is freed goes back, and so the high-water mark is true
    if GXX is None:
        return None
    host = Host(build_library(folder))
    host.library.omp_set_num_threads(1)
    return host


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    patches._by_kernel = lambda x: False  # kernels are called by name here
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    done = []
    print("| mode | operation | method | ms | GB/s | of a copy | extra MiB |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for cell in cells(options, launcher(options.device, Path(folder))):
            done.append(cell)
            names = " | ".join(cell[key] for key in ("mode", "operation", "method"))
            speed = f"{cell['milliseconds']:.3g} | {cell['gb_per_s']:.3g} | {100 * cell['share_of_copy']:.0f} %"
            print(f"| {names} | {speed} | {cell['extra_mib']:.0f} |", flush=True)
    if options.out:
        command = f"python bench/patches.py --device {options.device} --slices {options.slices} --size {options.size}"
        write_record(options.out, command, device=device, cells=done)


if __name__ == "__main__":
    main()
