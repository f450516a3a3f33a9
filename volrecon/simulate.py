"""Scans of a known volume: projected on a finer grid than the reconstruction's, with photon noise."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from volrecon.errors import ConfigError, DataError
from volrecon.geometry import ScanGeometry, VolumeGeometry, cone, fan, helical, parallel
from volrecon.noise import Noise
from volrecon.phantoms import anatomy
from volrecon.projectors import projector
from volrecon.resample import resampled
from volrecon.store import ScanHeader, write_scan, write_volume
from volrecon.store.output import check_free
from volrecon.volume import RamVolume

Beam = Literal["cone", "fan", "parallel", "helical"]

OBJECT_LEVEL = 0.1  # fraction of water's attenuation above which a voxel belongs to the object
VIEWS_AT_ONCE = 8


@dataclass(frozen=True)
class Setup:
    """What a simulated scanner is asked for; `None` means chosen to cover the object.

    Attributes:
        beam: trajectory.
        views: projections over the whole arc.
        arc_deg: angle the gantry turns in all; views are spaced evenly and the end is left out. None is one turn; for
            a helix as many as carry the beam past the object.
        source_to_object_mm, source_to_detector_mm: cone, fan, helical.
        detector_shape: pixels (v, u).
        pixel_mm: at the detector, square.
        pitch_mm: rise a turn of a helix.
    """

    beam: Beam
    views: int
    arc_deg: float | None = None
    source_to_object_mm: float | None = None
    source_to_detector_mm: float | None = None
    detector_shape: tuple[int, int] | None = None
    pixel_mm: float | None = None
    pitch_mm: float | None = None


def attenuation(hu: np.ndarray, water_per_mm: float) -> np.ndarray:
    """Hounsfield units as attenuation in 1/mm, water (1 + HU/1000): negative below -1000 HU, as scanners' noise is."""
    return (hu.astype(np.float32) * np.float32(1e-3) + 1) * np.float32(water_per_mm)


def prepare(
    volume: np.ndarray, grid: VolumeGeometry, voxel_mm: float | None, oversample: int
) -> tuple[np.ndarray, np.ndarray, VolumeGeometry]:
    """The finer volume that is projected, the reference that a reconstruction is compared with, and its grid.

    Args:
        volume: attenuation (z, y, x) in 1/mm on `grid`; what is below 0 (noise, padding) is air.
        voxel_mm: cubic voxels of the reference; None keeps the volume's own.
        oversample: the projected grid has voxels this many times smaller; the reference is its block average.
    """
    if not np.isfinite(volume).all():
        raise DataError(f"{int((~np.isfinite(volume)).sum())} voxels of the volume are not finite")
    if oversample < 1:
        raise ConfigError(f"oversample is {oversample}; give 1 (same grid) or more")
    target = grid
    if voxel_mm is not None:
        counts = [max(1, int(s / voxel_mm + 1e-6)) for s in grid.size_xyz_mm[::-1]]
        target = VolumeGeometry((counts[0], counts[1], counts[2]), (voxel_mm,) * 3, grid.centre_xyz_mm)
    target = VolumeGeometry(target.shape, target.voxel_zyx_mm)  # the object turns about its own middle
    centred = VolumeGeometry(grid.shape, grid.voxel_zyx_mm)
    fine = resampled(np.maximum(volume, 0), centred, target.refined(oversample))
    return fine, _block_mean(fine, oversample), target


def phantom(grid: VolumeGeometry, oversample: int, seed: int, water_per_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """The anatomy phantom on the finer grid, and its block average on `grid`."""
    fine = anatomy(grid.refined(oversample), seed, water_per_mm)
    return fine, _block_mean(fine, oversample)


def design_scan(setup: Setup, reference: np.ndarray, grid: VolumeGeometry, water_per_mm: float) -> ScanGeometry:
    """The scan of a setup; its detector covers the object unless a shape is given."""
    radius, half_height = _extent(reference, grid, OBJECT_LEVEL * water_per_mm)
    sod = setup.source_to_object_mm or 4.0 * radius
    sdd = setup.source_to_detector_mm or 1.5 * sod
    magnification = 1.0 if setup.beam == "parallel" else sdd / sod
    voxel = grid.voxel_zyx_mm[2]
    pixel = setup.pixel_mm or voxel * magnification
    if setup.beam != "parallel" and sod <= radius:
        raise ConfigError(f"source_to_object_mm is {sod:g} mm, but the object reaches {radius:.4g} mm from the axis")
    if setup.views < 1:
        raise ConfigError(f"views is {setup.views}; give at least 1")
    half_width = radius if setup.beam == "parallel" else sdd * math.tan(math.asin(radius / sod))
    columns = 2 * math.ceil(half_width / pixel) + 2
    angles = np.deg2rad(setup.arc_deg or 360.0) * np.arange(setup.views) / setup.views
    if setup.beam in ("fan", "parallel"):
        rows, columns = setup.detector_shape or (grid.shape[0], columns)
        pitch = grid.voxel_zyx_mm[0]
        if setup.beam == "parallel":
            return parallel(detector_shape=(rows, columns), pixel_mm=(pitch, pixel), angles=angles)
        return fan(
            source_to_object_mm=sod,
            source_to_detector_mm=sdd,
            rows=rows,
            columns=columns,
            pixel_mm=pixel,
            row_pitch_mm=pitch,
            angles=angles,
        )
    if setup.beam == "cone":
        rows = 2 * math.ceil(half_height * sdd / (sod - radius) / pixel) + 2
        shape = setup.detector_shape or (rows, columns)
        return cone(
            source_to_object_mm=sod, source_to_detector_mm=sdd, detector_shape=shape, pixel_mm=pixel, angles=angles
        )
    shape = setup.detector_shape or (max(8, columns // 4), columns)
    pitch = setup.pitch_mm or 0.8 * shape[0] * pixel / magnification
    turns = 2 * half_height / abs(pitch) + 1
    angles = np.deg2rad(setup.arc_deg or 360.0 * turns) * np.arange(setup.views) / setup.views
    return helical(
        source_to_object_mm=sod,
        source_to_detector_mm=sdd,
        detector_shape=shape,
        pixel_mm=pixel,
        angles=angles,
        pitch_mm=pitch,
    )


def write_simulation(
    out: Path,
    truth: Path,
    volumes: tuple[np.ndarray, np.ndarray],
    header: ScanHeader,
    oversample: int,
    seed: int,
    overwrite: bool,
) -> None:
    """Project the finer of `volumes` (fine, reference) into `scan.zarr`, and keep the reference beside it.

    `header.grid` is the reference's grid.
    """
    check_free(truth, overwrite)
    fine, reference = volumes
    grid = header.grid
    if grid is None or grid.shape != reference.shape:
        raise ConfigError(f"the scan's grid {grid} is not that of the reference {reference.shape}")
    blocks = project(fine, grid, header.geometry, oversample, header.noise, seed)
    write_scan(out, header, blocks, overwrite)
    attributes = {"provenance": header.provenance, "water_per_mm": header.water_per_mm}
    stored = RamVolume(torch.from_numpy(np.ascontiguousarray(reference)))
    write_volume(truth, stored, grid, attributes, overwrite=overwrite)


def project(
    fine: np.ndarray, grid: VolumeGeometry, scan: ScanGeometry, oversample: int, noise: Noise, seed: int
) -> Iterator[np.ndarray]:
    """Projections (rows, angle, u) row block by row block: of the finer volume, on a finer detector, then noise.

    A detector pixel is the mean line integral over its oversample x oversample parts.
    """
    fine_scan = scan.refined(oversample)
    A = projector(grid.refined(oversample), fine_scan)
    out = np.empty(scan.shape, np.float32)
    parts_v = fine_scan.detector_shape[0] // scan.detector_shape[0]
    for start in range(0, scan.views, VIEWS_AT_ONCE):
        views = slice(start, min(start + VIEWS_AT_ONCE, scan.views))
        y = A.restrict(views=views)(fine)
        rows, count, columns = y.shape
        parts = y.reshape(rows // parts_v, parts_v, count, columns // oversample, oversample)
        out[:, views] = parts.mean(axis=(1, 4), dtype=np.float32)
    for row in range(scan.detector_shape[0]):
        yield noise.sampled(out[row], row, seed)[None]


def _block_mean(fine: np.ndarray, factor: int) -> np.ndarray:
    nz, ny, nx = (n // factor for n in fine.shape)
    mean: np.ndarray = fine.reshape(nz, factor, ny, factor, nx, factor).mean(axis=(1, 3, 5), dtype=np.float32)
    return mean


def _extent(reference: np.ndarray, grid: VolumeGeometry, level: float) -> tuple[float, float]:
    """Largest distance of the object from the axis, and from the plane z = 0, in mm, voxel corners included."""
    inside = reference > level
    if not inside.any():
        raise DataError(f"the volume is empty: no voxel above {level:g} /mm. Is it in HU? Say so (--quantity hu).")
    dz, dy, dx = grid.voxel_zyx_mm
    x0, y0, z0 = grid.origin_xyz_mm
    y, x = np.nonzero(inside.any(axis=0))
    radius = np.hypot(np.abs(x0 + x * dx) + dx / 2, np.abs(y0 + y * dy) + dy / 2).max()
    z = np.flatnonzero(inside.any(axis=(1, 2)))
    return float(radius), float((np.abs(z0 + z * dz) + dz / 2).max())
