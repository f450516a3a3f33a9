"""Running a job: the only place that knows scans, methods, memory and outputs together."""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np
import tomli_w
import torch
import zarr

from volrecon.errors import ConfigError, DataError, DivergedError, GeometryWarning, ResourceError
from volrecon.geometry import Coverage, VolumeGeometry, coverage, suggest_grid
from volrecon.jobs import Compute, Job, describe, resolve_method
from volrecon.solvers import Info, Measurement, Method, State
from volrecon.store import Scan, StoredVolume, ZarrSpace, open_scan, open_volume, write_volume
from volrecon.volume import RamSpace, Space, Volume

RISES = 5
"""Steps in a row in which the residual may rise above that of an empty volume before a run counts as diverged."""

JOB_FILE = "job.toml"
JOB_MARK = "# volrecon: the resolved job of this run\n"


@dataclass(frozen=True)
class Progress:
    """What a callback is told after every step."""

    step: int
    steps: int
    info: Info
    seconds: float


Callback = Callable[[Progress], None]


@dataclass(frozen=True)
class Checked:
    """A job whose every part was opened and fits together."""

    job: Job
    out: Path
    scan: Scan
    grid: VolumeGeometry
    method: Method
    unit_per_mm: float
    reference: StoredVolume | None
    coverage: Coverage

    @property
    def resolved(self) -> dict[str, Any]:
        """The job with every default written out, without paths: what a volume remembers."""
        return {
            "method": describe(self.method),
            "unit_per_mm": self.unit_per_mm,
            "grid": self.grid.to_dict(),
            "backend": self.job.compute.backend,
            "block_mib": self.job.compute.block_mib,
        }


def check(job: Job, base: Path = Path()) -> Checked:
    """Open and compare everything a job names, before any work.

    Raises:
        VolreconError: the first thing that is wrong.
    """
    job = job.anchored(base)
    scan = open_scan(job.scan)
    grid = job.grid.geometry() if job.grid else scan.grid or suggest_grid(scan.geometry)
    seen = coverage(grid, scan.geometry)
    reference = open_volume(job.reference) if job.reference else None
    if reference and not _same_grid(reference.geometry, grid):
        raise DataError(
            f"the reference has {reference.geometry.shape} voxels of {reference.geometry.voxel_zyx_mm} mm (z, y, x), "
            f"the job's grid {grid.shape} of {grid.voxel_zyx_mm} mm; give [grid] the reference's"
        )
    if reference and not _same_centre(reference.geometry, grid):
        warnings.warn(
            f"the reference is centred at {reference.geometry.centre_xyz_mm} mm (x, y, z), the job's grid at "
            f"{grid.centre_xyz_mm} mm; they are compared voxel by voxel all the same",
            GeometryWarning,
            stacklevel=2,
        )
    unit = job.unit_per_mm or 2 * scan.water_per_mm
    method = resolve_method(job.method, base)
    method.check(scan.geometry, grid, job.compute.backend)
    return Checked(job, Path(job.out), scan, grid, method, unit, reference, seen)


def warn_of_losses(seen: Coverage, scan: Scan) -> None:
    """Warn (`GeometryWarning`) of voxels no view sees, and of an object wider than the detector."""
    seen.warn()
    truncated = scan.truncation()
    if truncated > 0.01:
        warnings.warn(
            f"truncation: in {truncated:.1%} of the views the object reaches the detector's edge. Filtered methods "
            f"continue the rows; for iterative ones choose a grid that holds the whole object.",
            GeometryWarning,
            stacklevel=2,
        )


def run(checked: Checked, callback: Callback | None = None, overwrite: bool = False) -> Info:
    """Reconstruct, and leave `volume.zarr`, the resolved job and a log in the run directory; what the last step told.

    Raises:
        VolreconError: the run directory is not ours or complete, memory or disk is missing, the numbers diverge.
    """
    out, job = checked.out, checked.job
    _claim(out, overwrite)
    warn_of_losses(checked.coverage, checked.scan)
    if job.compute.threads:
        numba.set_num_threads(min(job.compute.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        torch.set_num_threads(job.compute.threads)
    (out / JOB_FILE).write_text(JOB_MARK + tomli_w.dumps(_as_toml(checked)), encoding="utf-8")
    with (out / "log.jsonl").open("w", encoding="utf-8") as log, space_of(job.compute, out) as space:
        _log(log, event="start", versions=_versions(), host=platform.machine(), threads=torch.get_num_threads())
        measurement = measure(checked, space)

        def logged(progress: Progress) -> None:
            _log(log, event="step", step=progress.step, seconds=round(progress.seconds, 3), **asdict(progress.info))
            if callback:
                callback(progress)

        x, info = solve(checked.method, measurement, logged)
        attributes = {
            "job": checked.resolved,
            "geometry_fingerprint": checked.scan.geometry.fingerprint,
            "scan_digest": checked.scan.digest,
            "versions": _versions(),
            "water_per_mm": checked.scan.water_per_mm,
        }
        write_volume(out / "volume.zarr", x, checked.grid, space, attributes, checked.unit_per_mm, overwrite)
        x.release()
        _log(log, event="done")
    return info


def measure(checked: Checked, space: Space) -> Measurement:
    """The measurement of a job, its volumes in `space`."""
    c = checked
    return Measurement(
        c.scan.projections, c.scan.geometry, c.grid, space, c.unit_per_mm, c.scan.noise, c.job.compute.backend
    )


def solve(method: Method, measurement: Measurement, callback: Callback | None = None) -> tuple[Volume, Info]:
    """All steps of a method; the reconstruction in the run's unit and what the last step told.

    Raises:
        DivergedError: a number is not finite, or the residual rose RISES times in a row.
    """
    started = time.monotonic()
    try:
        problem = method.prepare(measurement)
        state = method.init(problem)
        steps, rises, last, info = method.steps(problem), 0, None, Info()
        while state.step < steps:
            after, info = method.step(problem, state)
            _finite(method, after, info)
            # A regularised fit may rise again; past 1 it is worse than an empty volume.
            worse = last is not None and info.residual is not None and info.residual > max(last, 1.0)
            rises = rises + 1 if worse else 0
            if rises >= RISES:
                raise DivergedError(
                    f"step {after.step}: the residual rose {RISES} times in a row, to {info.residual:.4g} of the data; "
                    f"use a smaller step, or a matched projector."
                )
            _release(state, after)
            state, last = after, info.residual
            if callback:
                callback(Progress(state.step, steps, info, time.monotonic() - started))
            if method.finished(info):
                break
    except MemoryError as error:
        raise ResourceError(
            f"memory ran out on a volume of {measurement.volume.shape}; use compute.tier = 'zarr', or smaller blocks "
            f"(compute.block_mib)"
        ) from error
    return state["x"], info


def reconstruct(
    scan: Scan | str | Path,
    method: str | dict[str, Any] = "tv",
    grid: VolumeGeometry | None = None,
    backend: str = "auto",
    callback: Callback | None = None,
) -> np.ndarray:
    """A scan as a volume in memory: attenuation in 1/mm, float32 (z, y, x).

    Args:
        scan: an opened scan or its path.
        method: a recipe's name, or a table as in a job file.
        grid: the volume; default the scan's suggestion.
        backend: projector; see `volrecon.projectors.BACKENDS`.
    """
    opened = scan if isinstance(scan, Scan) else open_scan(scan)
    volume = grid or opened.grid or suggest_grid(opened.geometry)
    warn_of_losses(coverage(volume, opened.geometry), opened)
    unit = 2 * opened.water_per_mm
    measurement = Measurement(opened.projections, opened.geometry, volume, RamSpace(), unit, opened.noise, backend)
    x, _ = solve(resolve_method(method), measurement, callback)
    return x.read(0, volume.shape[0]).numpy() * np.float32(unit)


def space_of(compute: Compute, out: Path) -> AbstractContextManager[Space]:
    """The memory tier of a job, as a context that cleans up behind itself."""
    block_bytes = int(compute.block_mib * 2**20)
    if compute.tier == "ram":
        return nullcontext(RamSpace(block_bytes))
    return ZarrSpace(Path(compute.scratch) if compute.scratch else out, block_bytes)


def _same_grid(a: VolumeGeometry, b: VolumeGeometry) -> bool:
    return a.shape == b.shape and np.allclose(a.voxel_zyx_mm, b.voxel_zyx_mm, rtol=1e-4)


def _same_centre(a: VolumeGeometry, b: VolumeGeometry) -> bool:
    return np.allclose(a.centre_xyz_mm, b.centre_xyz_mm, rtol=0, atol=0.1 * min(a.voxel_zyx_mm))


def _claim(out: Path, overwrite: bool) -> None:
    """Make the run directory, or take one that an earlier run of ours left."""
    if "\0" in str(out):
        raise ConfigError("the run directory's name contains a NUL character")
    if out.exists():
        marked = (out / JOB_FILE).is_file() and (out / JOB_FILE).read_text(encoding="utf-8").startswith(JOB_MARK)
        if not out.is_dir() or (any(out.iterdir()) and not marked):
            raise ConfigError(f"{out} exists and is not a run directory of volrecon; choose another --out")
        if (out / "volume.zarr").exists() and not overwrite:
            raise ConfigError(f"{out} holds a finished volume; pass --overwrite to replace it, or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ResourceError(f"cannot write into the run directory {out}: {error}") from error


def _finite(method: Method, state: State, info: Info) -> None:
    numbers = {**state.scalars, "residual": info.residual or 0.0, "change": info.change or 0.0}
    wrong = [name for name, value in numbers.items() if not np.isfinite(value)]
    if wrong:
        raise DivergedError(f"step {state.step} of {type(method).__name__}: {', '.join(wrong)} is not finite; stopped")


def _release(before: State, after: State) -> None:
    kept = {id(volume) for volume in after.volumes.values()}
    for volume in before.volumes.values():
        if id(volume) not in kept:
            volume.release()


def _as_toml(checked: Checked) -> dict[str, Any]:
    """The resolved job, its paths as seen from the run directory: the same command on it runs it again."""
    job, grid = checked.job.seen_from(checked.out), checked.grid
    tables: dict[str, Any] = {
        "scan": job.scan,
        "out": job.out,
        "unit_per_mm": checked.unit_per_mm,
        "method": describe(checked.method),
        "grid": {
            "shape": list(grid.shape),
            "voxel_mm": list(grid.voxel_zyx_mm),
            "centre_mm": list(grid.centre_xyz_mm),
        },
        "compute": job.compute.model_dump(exclude_none=True),
    }
    if job.reference:
        tables["reference"] = job.reference
    return tables


def _versions() -> dict[str, str]:
    packages = {"numpy": np, "torch": torch, "numba": numba, "zarr": zarr}
    return {"volrecon": version("volrecon"), **{name: str(module.__version__) for name, module in packages.items()}}


def _log(log: Any, **entry: Any) -> None:
    log.write(json.dumps(entry) + "\n")
    log.flush()
