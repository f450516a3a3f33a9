"""A job opened: its parts exist and fit together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import DataError, GeometryWarning
from volrecon.geometry import Coverage, VolumeGeometry, coverage, suggest_grid
from volrecon.jobs import Job, describe, resolve_method
from volrecon.solvers import Method
from volrecon.store import Scan, StoredVolume, open_scan, open_volume


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
    def name(self) -> str:
        """What people call the method: its recipe's name, else its algorithm's."""
        method = self.job.method
        recipe = method if isinstance(method, str) else method.get("recipe", describe(self.method)["algorithm"])
        return Path(str(recipe)).name.removesuffix(".toml")

    @property
    def resolved(self) -> dict[str, Any]:
        """The job with every default written out, without paths: what a volume remembers."""
        return {
            "method": describe(self.method, paths=False),
            "inputs": self.method.inputs(),
            "unit_per_mm": self.unit_per_mm,
            "grid": self.grid.to_dict(),
            "backend": self.job.compute.backend,
        }

    @property
    def toml(self) -> dict[str, Any]:
        """The resolved job, its paths as seen from the run directory: the same command on it runs it again."""
        job, grid = self.job.seen_from(self.out), self.grid
        tables: dict[str, Any] = {
            "scan": job.scan,
            "out": job.out,
            "unit_per_mm": self.unit_per_mm,
            "method": describe(self.method),
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


def _same_grid(a: VolumeGeometry, b: VolumeGeometry) -> bool:
    return a.shape == b.shape and np.allclose(a.voxel_zyx_mm, b.voxel_zyx_mm, rtol=1e-4)


def _same_centre(a: VolumeGeometry, b: VolumeGeometry) -> bool:
    return np.allclose(a.centre_xyz_mm, b.centre_xyz_mm, rtol=0, atol=0.1 * min(a.voxel_zyx_mm))
