"""A tiny run, pictures of its disk at every call that changes it, and real processes that are killed."""

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from balls import GRID, MU, ball_projections, small_scan

from volrecon import engine
from volrecon.jobs import Compute, Job
from volrecon.plan import Phase, Plan
from volrecon.store import ScanHeader, write_scan

METHODS = {
    "fdk": {"recipe": "fdk"},
    "cgls": {"recipe": "cgls", "iterations": 3},
    "tv": {"recipe": "tv", "iterations": 2, "cg_iterations": 1},
}
STEPS = {"fdk": 3, "cgls": 3, "tv": 2}
TIERS = ("ram", "zarr")
cases = pytest.mark.parametrize(("method", "tier"), [(method, tier) for method in METHODS for tier in TIERS])

CHUNK = 8  # slices: GRID's 20 are two chunks and a half
BLOCK_BYTES = CHUNK * 16 * 16 * 4
LEFT = [".lock", "job.toml", "log.jsonl", "volume.zarr"]
"""What a finished run leaves."""


class Killed(BaseException):
    """Stands for SIGKILL where the process must live on; nobody catches it."""


def small_blocks(patch: Callable[[str, object], None]) -> None:
    """Low chunks, FDK in three steps, and a plan that costs no rehearsal."""
    patch("volrecon.volume.CHUNK_SLICES", CHUNK)
    patch("volrecon.solvers.filtered.SLAB_BYTES", 1)
    patch("volrecon.engine.running.planned", fixed_plan)
    patch("volrecon.engine.running.beside", lambda checked, plan: None)


def fixed_plan(checked: engine.Checked) -> Plan:
    return Plan(checked.job.compute.tier, BLOCK_BYTES, 2**40, 0, 0, 0, (Phase("step", 0, 0.0),), 1)


def write_small_scan(folder: Path) -> None:
    scan = small_scan("cone", 6)
    write_scan(folder / "scan.zarr", ScanHeader(scan, grid=GRID, water_per_mm=MU), [ball_projections(scan)])


def job(method: str, tier: str, **compute) -> Job:
    """In a folder with scan.zarr; the run directory is `run`."""
    compute = {"tier": tier, "threads": 1, "commit_seconds": 0.0, **compute}
    return Job(scan="scan.zarr", out="run", method=METHODS[method], compute=Compute(**compute))


def run(the_job: Job, folder: Path, **options) -> list[int]:
    """The steps that were done."""
    steps = []
    engine.run(engine.check(the_job, folder), lambda progress: steps.append(progress.step), **options)
    return steps


def kill_after(step: int, the_job: Job, folder: Path, **options) -> Path:
    """Run until a step is committed, and no further; the run directory."""

    def kill(progress) -> None:
        if progress.step > step:
            raise Killed

    with contextlib.suppress(Killed):
        engine.run(engine.check(the_job, folder), kill, **options)
    assert committed(folder / "run") == step
    return folder / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fingerprint(out: Path) -> str:
    """Of a run directory as the next process finds it.

    The log, which nobody reads, counts for nothing, and arrays that no manifest names only as to whether there are any.
    """
    manifests = "".join(p.read_text() for p in (out / "state").glob("generation-*.json"))
    unnamed = {p.name for p in (out / "state").glob("*.zarr") if p.name not in manifests}
    kept = {p: b"" if p.is_dir() else p.read_bytes() for p in out.rglob("*") if p.name != "log.jsonl"}
    counted = {p: data for p, data in kept.items() if not unnamed.intersection(p.parts)}
    return hashlib.sha256(repr((bool(unnamed), sorted(counted.items()))).encode()).hexdigest()


def committed(out: Path) -> int:
    """The step of the newest manifest; 0 where there is none."""
    return max((int(p.stem.partition("-")[2]) for p in (out / "state").glob("generation-*.json")), default=0)


BOUNDARIES = ("fsync", "writev", "replace", "unlink", "mkdir", "rmdir")
"""Calls of `os` before which a kill is tried: all that changes the disk, or makes a change last."""
UNWOUND = BOUNDARIES[:4]


@contextmanager
def at_boundaries(act: Callable[[str], None], names: tuple[str, ...] = BOUNDARIES) -> Iterator[None]:
    """Have `act` called before every such call, one thread at a time; chunks are written in two halves."""
    lock, busy = threading.RLock(), []

    def once(name: str) -> None:
        if not busy:  # else `act` itself came here
            busy.append(name)
            try:
                act(name)
            finally:
                busy.clear()

    def before(name: str, call: Callable) -> Callable:
        def wrapped(first, *rest, **where):
            with lock:
                if names is BOUNDARIES or "dir_fd" not in where:  # else a folder of volumes is being deleted
                    once(name)
                if name == "writev" and os.lseek(first, 0, os.SEEK_CUR) == 0:
                    return os.write(first, rest[0][0][: len(rest[0][0]) // 2])
                return call(first, *rest, **where)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, before(name, getattr(os, name)))
        yield


def pictures(the_job: Job, folder: Path, **options) -> list[Path]:
    """Run to the end; the run directory as a kill before each boundary would have left it, every state once."""
    out, seen = folder / "run", {}

    def take(name: str) -> None:
        if out.exists() and (state := fingerprint(out)) not in seen:
            seen[state] = shutil.copytree(out, folder / "album" / str(len(seen)))

    with at_boundaries(take):
        run(the_job, folder, **options)
    return list(seen.values())


def kill_at(count: int, the_job: Job, folder: Path, **options) -> bool:
    """Run, and raise `Killed` at the so-manieth boundary and at all that follow; whether it came to that.

    Unlike after a kill, what was begun is unwound: volumes are deleted, locks given back.
    """
    left = [count]

    def count_down(name: str) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise Killed(name)

    with contextlib.suppress(Killed), at_boundaries(count_down, UNWOUND):
        run(the_job, folder, **options)
        return False
    return True
