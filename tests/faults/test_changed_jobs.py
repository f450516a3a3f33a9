"""Fault matrix: another job on an unfinished run (K6), and what a result depends on and remembers (R2-R5)."""

import getpass
import json
import random
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from balls import FAR, GRID, MU, WIDE, ball_projections, small_scan
from faulty import METHODS, STEPS, TIERS, contents, job, kill_after, run

from volrecon import engine
from volrecon.errors import ConfigError, IntegrityError, StorageWarning
from volrecon.formats.scan_tables import Grid
from volrecon.geometry import cone
from volrecon.jobs import Compute, Job
from volrecon.solvers.cgls import CGLS
from volrecon.store import ScanHeader, open_scan, open_volume, write_scan

SCAN = small_scan("cone", 6)
TURNED = cone(**FAR, **WIDE, angles=0.01 + 2 * np.pi * np.arange(6) / 6)
ELSEWHERE = Grid(shape=(20, 16, 16), voxel_mm=2.0, centre_mm=(0.0, 1.0, 0.0))

JOBS = {
    "method": ({"method": "sirt"}, r"job\.method\.algorithm: was 'cgls', is 'sirt'"),
    "number": ({"method": {"recipe": "cgls", "iterations": 4}}, r"job\.method\.iterations: was 3, is 4"),
    "grid": ({"grid": ELSEWHERE}, r"job\.grid\.centre_xyz_mm: was \[0.0, 0.0, 0.0\], is \[0.0, 1.0, 0.0\]"),
    "unit": ({"unit_per_mm": 0.05}, r"job\.unit_per_mm: was 0.04, is 0.05"),
    "backend": ({"compute": Compute(tier="ram", backend="joseph")}, r"job\.backend: was 'auto', is 'joseph'"),
    "scratch": ({"compute": Compute(tier="ram", scratch="fast")}, r"scratch: was None, is '/.*/fast'"),
}
SCANS = {
    "projections": ({"factor": 1.01}, r"scan_digest: was '\w+', is '\w+'"),
    "geometry": ({"geometry": TURNED}, r"geometry_fingerprint: was '\w+', is '\w+'"),
    "water": ({"water": 0.03}, r"job\.unit_per_mm: was 0.04, is 0.06"),
}


def replace_scan(folder: Path, geometry=SCAN, factor: float = 1.0, water: float = MU) -> None:
    y = ball_projections(SCAN) * np.float32(factor)
    write_scan(folder / "scan.zarr", ScanHeader(geometry, grid=GRID, water_per_mm=water), [y], overwrite=True)


def check_refused(the_job: Job, folder: Path, difference: str) -> None:
    before = contents(folder / "run")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=rf"(?s)of another job:.*{difference}.*--restart"):
            run(the_job, folder, **options)
    assert contents(folder / "run") == before
    steps = run(the_job, folder, restart=True)
    assert steps[0] == 1
    assert not (folder / "run" / "state").exists()


@pytest.mark.parametrize("change", JOBS)
def test_K6_another_job(small, change):
    kill_after(1, job("cgls", "ram"), small)
    changes, difference = JOBS[change]
    check_refused(job("cgls", "ram").model_copy(update=changes), small, difference)


@pytest.mark.parametrize("change", SCANS)
def test_K6_another_scan(small, change):
    kill_after(1, job("cgls", "ram"), small)
    changes, difference = SCANS[change]
    replace_scan(small, **changes)
    check_refused(job("cgls", "ram"), small, difference)


def test_K6_other_weights(small, monkeypatch):
    """Of whatever a method says that it reads."""
    monkeypatch.setattr(CGLS, "inputs", lambda self: {"prior": "aaaa"})
    kill_after(1, job("cgls", "ram"), small)
    monkeypatch.setattr(CGLS, "inputs", lambda self: {"prior": "bbbb"})
    check_refused(job("cgls", "ram"), small, r"job\.inputs\.prior: was 'aaaa', is 'bbbb'")


def test_K6_all_differences_at_once(small):
    kill_after(1, job("cgls", "ram"), small)
    replace_scan(small, factor=1.5)
    with pytest.raises(ConfigError, match=r"(?s)job\.unit_per_mm.*scan_digest"):
        run(job("cgls", "ram").model_copy(update={"unit_per_mm": 0.05}), small)


def test_other_versions_are_told(small, undisturbed, monkeypatch):
    expected, _ = undisturbed(job("cgls", "ram"))
    kill_after(2, job("cgls", "ram"), small)
    monkeypatch.setattr("numba.__version__", "0.1")
    with pytest.warns(StorageWarning, match=r"numba .* -> 0\.1"):
        assert run(job("cgls", "ram"), small) == [3]
    assert set(contents(small / "run" / "volume.zarr")) == set(expected)


def test_where_one_stands_and_how_the_folder_is_called_do_not_matter(small, undisturbed, monkeypatch):
    """An unfinished run goes on from another working directory, and after its folder was moved."""
    the_job = job("cgls", "zarr")
    expected, _ = undisturbed(the_job)
    monkeypatch.chdir(small)
    kill_after(1, the_job, Path())
    monkeypatch.chdir("/")
    (small / "run").rename(small / "moved")
    assert run(the_job.model_copy(update={"out": "moved"}), small) == [2, 3]
    assert contents(small / "moved" / "volume.zarr") == expected
    assert not Path("/run/state").exists()


def test_two_copies_of_an_unfinished_run_share_nothing(small, undisturbed):
    """With the scratch elsewhere, the copy has no state, and says so instead of taking the other's."""
    the_job = job("cgls", "zarr", scratch=str(small / "fast"))
    with pytest.raises(KeyboardInterrupt):
        engine.run(engine.check(the_job, small), interrupt)
    shutil.copytree(small / "run", small / "copy")
    with pytest.raises(IntegrityError, match=r"the state of the unfinished run is not in .*fast/volrecon-copy-"):
        run(the_job.model_copy(update={"out": "copy"}), small)
    assert run(the_job, small) == [2, 3]


def interrupt(progress) -> None:
    if progress.step == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_R2_blocks_of_other_heights(small, method, monkeypatch):
    """One slab after the other, or all at once."""
    run(job(method, "ram"), small)
    monkeypatch.setattr("faulty.BLOCK_BYTES", 2**25)
    run(job(method, "ram").model_copy(update={"out": "whole"}), small)
    close(small, "run", "whole")


@pytest.mark.parametrize("method", METHODS)
def test_R4_one_thread_or_two(small, method):
    """Within 1e-5 of the largest value; how many there were is in the log."""
    for threads in (1, 2):
        run(job(method, "ram", threads=threads).model_copy(update={"out": f"with{threads}"}), small)
        first = json.loads((small / f"with{threads}" / "log.jsonl").read_text().splitlines()[0])
        assert first["threads"] == threads
    close(small, "with1", "with2")


def close(folder: Path, a: str, b: str) -> None:
    one, other = (open_volume(folder / name / "volume.zarr").data[:] for name in (a, b))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("tier", TIERS)
def test_R3_the_callers_random_numbers(small, undisturbed, tier):
    """They change nothing, and are not changed."""
    expected, _ = undisturbed(job("tv", tier))
    for seed in (3, 4):
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002
        run(job("tv", tier), small, overwrite=seed == 4)
        after = random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002
        assert after == before
        assert contents(small / "run" / "volume.zarr") == expected


@pytest.mark.parametrize("method", METHODS)
def test_R5_a_volume_says_how_to_make_it_again_and_nothing_of_the_machine(small, method):
    assert run(job(method, "zarr"), small)[-1] == STEPS[method]
    volume = open_volume(small / "run" / "volume.zarr")
    text = json.dumps(volume.attributes)
    for name in (str(small), str(Path.home()), socket.gethostname(), getpass.getuser()):
        assert not re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text), name
    made = volume.attributes["job"]
    assert volume.attributes["scan_digest"] == open_scan(small / "scan.zarr").digest
    grid = {"shape": volume.geometry.shape, "voxel_mm": volume.geometry.voxel_zyx_mm}
    again = Job(
        scan="scan.zarr",
        out="again",
        method=made["method"],
        unit_per_mm=made["unit_per_mm"],
        grid=grid,
        compute=Compute(tier="zarr", threads=1, backend=made["backend"]),
    )
    run(again, small)
    assert contents(small / "again" / "volume.zarr") == contents(small / "run" / "volume.zarr")
