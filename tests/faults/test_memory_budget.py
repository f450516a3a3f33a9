"""Fault matrix, memory: volumes many times larger than what a run may take (M5), and the same in memory.

Every run is a process of its own, whose largest resident set the kernel tells.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from processes import exit_code, run_measured, start

from volrecon.geometry import VolumeGeometry, parallel
from volrecon.jobs import Compute, Job
from volrecon.store import ScanHeader, open_volume, write_scan

SIDE = 128
MIB = 2**20


def write_cylinder(folder: Path, slices: int) -> int:
    """A scan of a long cylinder in two views; bytes of its volume."""
    grid = VolumeGeometry((slices, SIDE, SIDE), (1.0, 1.0, 1.0))
    scan = parallel(detector_shape=(slices, SIDE), pixel_mm=1.0, angles=np.array([0.1, 1.6]))
    row = 0.04 * np.sqrt(np.maximum(0, 40.0**2 - (np.arange(SIDE) - SIDE / 2) ** 2)).astype(np.float32)
    wave = 1 + 0.5 * np.sin(np.arange(slices) / 40.0).astype(np.float32)
    rows = wave[:, None, None] * np.broadcast_to(row, (1, 2, SIDE))
    write_scan(folder / "scan.zarr", ScanHeader(scan, grid=grid), [rows.astype(np.float32)])
    return 4 * slices * SIDE**2


def measured(folder: Path, name: str, method, **compute) -> tuple[dict, str]:
    """What a run took, and the digest of its volume."""
    compute = {"block_mib": 1.0, "threads": 2, **compute}
    job = Job(scan="scan.zarr", out=name, method=method, compute=Compute(**compute))
    assert exit_code(start(run_measured, folder, job, f"{name}.json")) == 0
    figures = json.loads((folder / f"{name}.json").read_text())
    print(name, {key: figures[key] // MIB for key in ("peak", "baseline_memory", "planned_memory")})
    return figures, open_volume(folder / name / "volume.zarr").digest


def above_baseline(figures: dict) -> int:
    return figures["peak"] - figures["baseline_memory"]


def check_an_eighth(folder: Path, slices: int, method) -> None:
    """On disk in an eighth of the volume's bytes, with the bytes of a run in memory, both within their plans."""
    volume = write_cylinder(folder, slices)
    disk, digest = measured(folder, "disk", method, tier="zarr")
    memory, expected = measured(folder, "memory", method, tier="ram")
    assert digest == expected
    assert above_baseline(disk) < volume / 8 < volume < above_baseline(memory)
    for figures in (disk, memory):
        assert figures["peak"] <= figures["planned_memory"]


def test_M5_an_eighth_of_the_volume(tmp_path):
    check_an_eighth(tmp_path, 1536, "fbp")


@pytest.mark.slow
def test_M5_an_eighth_of_the_volume_with_cgls(tmp_path):
    check_an_eighth(tmp_path, 2048, {"recipe": "cgls", "iterations": 1})


@pytest.mark.slow
def test_other_blocks_give_the_same_up_to_rounding(tmp_path):
    write_cylinder(tmp_path, 512)
    method = {"recipe": "cgls", "iterations": 3}
    measured(tmp_path, "low", method, tier="zarr", block_mib=0.1)
    measured(tmp_path, "high", method, tier="ram", block_mib=32.0)
    low, high = (open_volume(tmp_path / name / "volume.zarr").data[:] for name in ("low", "high"))
    np.testing.assert_allclose(low, high, rtol=0, atol=1e-5 * np.abs(high).max())


@pytest.mark.slow
def test_M5_twenty_times_what_the_budget_leaves(tmp_path, cli):
    """With what the refusal of too small a budget says is needed above the program itself."""
    (tmp_path / "small").mkdir()
    write_cylinder(tmp_path / "small", 16)
    program = measured(tmp_path / "small", "run", "fbp", tier="zarr")[0]["baseline_memory"] + 4 * MIB
    volume = write_cylinder(tmp_path, 22_000)
    command = ["plan", "--scan", "scan.zarr", "--method", "fbp", "--out", "run", "--set", "compute.tier=zarr"]
    refused = cli(*command, "--memory", "64MiB", code=5)
    needed, base = (float(re.search(text, refused)[1]) for text in (r"([\d.]+) MiB are", r"([\d.]+) MiB of them"))
    budget = program + int((needed - base) * MIB)
    figures, _ = measured(tmp_path, "run", "fbp", tier="zarr", block_mib=None, memory=f"{budget}B")
    assert figures["peak"] <= figures["planned_memory"] <= budget
    assert 20 * (budget - figures["baseline_memory"]) < volume
