"""The kernels under AddressSanitizer and UBSan: a program of its own replays recorded launches."""

import os
import subprocess

import numpy as np
import pytest
import torch

from tests.kernels.host import GXX, Recorder, build_replay
from volrecon import cuda
from volrecon.sampling import NoiseKey
from volrecon.tiling import MODES, PatchGrid, patch_layout

pytestmark = pytest.mark.skipif(GXX is None, reason="no g++ to compile the kernels with")


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    program = build_replay(tmp_path_factory.mktemp("replay"))

    def run(file):
        quiet = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        return subprocess.run([program, file], capture_output=True, text=True, check=False, env=quiet)

    return run


def launches(on, rng):
    """Every kernel on random shapes, among them single pixels and patches larger than their slice."""
    for mode in MODES:
        for _ in range(8):
            rows, columns, side = (int(n) for n in rng.integers(1, [40, 70, 50]))
            grid = PatchGrid((rows, columns), side)
            layout = patch_layout(
                grid, mode, tuple(rng.integers(0, np.array(grid.padding) + 1)), int(rng.integers(0, side))
            )
            x, part = (
                torch.ones(int(rng.integers(1, 4)), rows, columns),
                layout.all[int(rng.integers(len(layout.all))) :],
            )
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                cuda.patch_extract(x, layout, part, positions=bool(rng.integers(2)), dtype=dtype, on=on)
            cuda.patch_blend(cuda.patch_extract(x, layout, layout.all, on=on), layout, on=on)
    for _ in range(20):
        slices, rows, columns = (int(n) for n in rng.integers(1, [6, 30, 60]))
        above, below = (int(n) for n in rng.integers(0, 2, 2))
        u, x = torch.ones(slices, rows, columns), torch.ones(slices + above, rows, columns)
        cuda.tv_z_split(x, u, 0.1, on=on)
        d = torch.ones(below + slices, rows, columns)
        cuda.tv_z_transpose(d, d, below=below, ends=not above, on=on)
        cuda.renoise(u, u, 0.5, 0.5, NoiseKey(1), 0, on=on)


def test_M7_recorded_launches_run_clean(replay, tmp_path):
    with (tmp_path / "launches").open("wb") as file:
        launches(Recorder(file), np.random.default_rng(0))
    done = replay(tmp_path / "launches")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == "260 launches\n"


@pytest.mark.parametrize("kernel", ["reads", "writes"])
def test_a_launch_that_goes_too_far_is_found(replay, tmp_path, kernel):
    """The same launch with an array that is one number short."""

    def shortened(function, grid, block, arguments):
        which = 0 if kernel == "writes" else 1
        short = [a.flatten()[:-1].clone() if n == which else a for n, a in enumerate(arguments)]
        recorder(function, grid, block, short)

    shortened.kind = "cpu"
    with (tmp_path / "launches").open("wb") as file:
        recorder = Recorder(file)
        layout = patch_layout(PatchGrid((9, 8), 4), "whole")
        cuda.patch_extract(torch.ones(1, 9, 8), layout, layout.all, on=shortened)
    done = replay(tmp_path / "launches")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "patch_extract.cu" in done.stderr
