"""`scan.zarr`: projections (v, angle, u) with everything needed to reconstruct them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from volrecon.errors import ConfigError, DataError, IntegrityError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.noise import Noise
from volrecon.store.arrays import FORMAT_VERSION, StoredArray, create_array, our_attributes
from volrecon.store.durable import sync_tree
from volrecon.store.output import replacing
from volrecon.volume import CHUNK_BYTES, CHUNK_SLICES, slice_bytes

AXES = ("v", "angle", "u")
MOST_MASKED = 0.05
TOUCHING = 0.05

BadPixels = Literal["refuse", "mask"]


@dataclass(frozen=True)
class Scan:
    """An opened scan.

    Attributes:
        projections: line integrals (v, angle, u), read from disk in row blocks.
        geometry: where every ray is.
        grid: the suggested volume, or None.
        noise: what is known of the noise.
        water_per_mm: attenuation of water, which fixes the run's unit and HU.
        digest: sha256 of the projections.
        provenance: where the numbers come from; free text by key.
    """

    projections: StoredArray
    geometry: ScanGeometry
    grid: VolumeGeometry | None
    noise: Noise
    water_per_mm: float
    digest: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def truncation(self) -> float:
        """Fraction of the views whose middle row is above 5% of its maximum at an edge of the detector."""
        middle = self.geometry.shape[0] // 2
        row = np.nan_to_num(self.projections[middle : middle + 1][0])
        return float((np.abs(row[:, [0, -1]]).max(axis=1) > TOUCHING * max(row.max(), 1e-12)).mean())


@dataclass(frozen=True)
class ScanHeader:
    """What a scan says of itself besides its numbers; see `Scan`."""

    geometry: ScanGeometry
    grid: VolumeGeometry | None = None
    noise: Noise = field(default_factory=Noise)
    water_per_mm: float = 0.02
    provenance: dict[str, Any] = field(default_factory=dict)


def write_scan(
    path: Path,
    header: ScanHeader,
    blocks: Iterable[np.ndarray],
    overwrite: bool = False,
    bad_pixels: BadPixels = "refuse",
) -> int:
    """Write projections given as consecutive row blocks (rows, angle, u); rows are collected into whole chunks.

    Args:
        bad_pixels: what a value that is not finite does: "refuse" the data, or be "mask"ed: stored as NaN, with no
            weight in iterative methods and interpolated over in filtered ones.

    Returns:
        How many pixels are masked.

    Raises:
        DataError: the blocks do not add up to the geometry's shape; a value is not finite; more than 5% are masked.
        ConfigError: the output exists.
    """
    shape = header.geometry.shape
    rows = min(CHUNK_SLICES, max(1, CHUNK_BYTES // slice_bytes(shape)), shape[0])
    with replacing(Path(path), overwrite) as folder:
        group = zarr.create_group(folder)
        array = create_array(group, "projections", shape, (rows, *shape[1:]), AXES)
        digest = hashlib.sha256()
        row = masked = 0
        for block in _rechunked(blocks, rows, shape):
            masked += _mask(block, row, bad_pixels)
            array[row : row + len(block)] = block
            digest.update(block.tobytes())
            row += len(block)
        if row != shape[0]:
            raise DataError(f"the projections have {row} rows; the geometry has {shape[0]}")
        if masked > MOST_MASKED * np.prod(shape, dtype=object):
            raise DataError(
                f"{masked} of {np.prod(shape, dtype=object)} pixels are masked; at most {MOST_MASKED:.0%} may be"
            )
        sync_tree(folder)  # the values before the word that they are complete
        group.attrs["volrecon"] = {
            "kind": "scan",
            "format_version": FORMAT_VERSION,
            "axes": list(AXES),
            "quantity": "line integrals, dimensionless",
            "geometry": header.geometry.to_dict(),
            "length_unit": "millimeter",
            "grid": header.grid.to_dict() if header.grid else None,
            "noise": header.noise.to_dict(),
            "water_per_mm": header.water_per_mm,
            "masked_pixels": masked,
            "provenance": header.provenance,
            "digest": digest.hexdigest(),
            "complete": True,
        }
    return masked


def open_scan(path: str | Path) -> Scan:
    """Open a `scan.zarr`.

    Raises:
        DataError: not a scan of ours, or the array disagrees with the geometry.
        IntegrityError: it was never completed.
    """
    folder = Path(path)
    attributes = our_attributes(folder, "scan")
    if attributes.get("complete") is not True:
        raise IntegrityError(f"{folder} was not written to its end; import or simulate it again")
    try:
        geometry = ScanGeometry.from_dict(attributes["geometry"])
        grid = VolumeGeometry.from_dict(attributes["grid"]) if attributes["grid"] else None
        noise = Noise.from_dict(attributes["noise"])
        water = float(attributes["water_per_mm"])
        digest = str(attributes["digest"])
    except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
        raise DataError(f"{folder}: the attributes lack or spoil {error}") from error
    if not 0 < water < np.inf:
        raise DataError(f"{folder}: water_per_mm is {water}; it must be a positive attenuation in 1/mm")
    projections = StoredArray(folder / "projections", AXES, "projections")
    if projections.shape != geometry.shape:
        raise DataError(
            f"{folder}: the projections have shape {projections.shape}, the geometry {geometry.shape} (v, angle, u)"
        )
    return Scan(projections, geometry, grid, noise, water, digest, attributes.get("provenance", {}))


def _mask(block: np.ndarray, first_row: int, bad_pixels: BadPixels) -> int:
    """Set what is not finite to NaN and count it, or refuse it."""
    bad = ~np.isfinite(block)
    count = int(bad.sum())
    if count and bad_pixels == "refuse":
        v, angle, u = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{count} projection values in rows {first_row} to {first_row + len(block) - 1} are not finite, first at "
            f"(v, angle, u) = ({first_row + v}, {angle}, {u}); repair them, or mask them (--bad-pixels mask)"
        )
    block[bad] = np.nan
    return count


def _rechunked(blocks: Iterable[np.ndarray], rows: int, shape: tuple[int, ...]) -> Iterable[np.ndarray]:
    """The same rows in blocks of `rows`, float32 and checked."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        if block.shape[1:] != shape[1:]:
            raise DataError(f"the projections have (angle, u) = {block.shape[1:]}; the geometry has {shape[1:]}")
        held.append(np.ascontiguousarray(block, dtype=np.float32))
        count += len(block)
        while count >= rows:
            whole = np.concatenate(held) if len(held) > 1 else held[0]
            yield whole[:rows].copy()
            held, count = [whole[rows:]], count - rows
    if count:
        yield np.concatenate(held)
