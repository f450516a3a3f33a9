"""Outside files into scans and volumes of ours, and back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from volrecon.errors import ConfigError, DataError
from volrecon.formats import Hints, Quantity, Sliceable, format_of, read_geometry
from volrecon.geometry import VolumeGeometry
from volrecon.noise import Noise
from volrecon.simulate import attenuation
from volrecon.store import Scan, ScanHeader, StoredVolume, open_volume, write_scan, write_volume
from volrecon.store.scans import BadPixels
from volrecon.volume import RamSpace

ROWS_AT_ONCE = 16
LARGEST_LINE_INTEGRAL = 50.0
WATER_PER_MM = 0.02


def import_scan(
    source: Path,
    geometry: Path | None,
    out: Path,
    hints: Hints,
    water_per_mm: float = 0.02,
    noise: Noise | None = None,
    bad_pixels: BadPixels = "refuse",
    overwrite: bool = False,
) -> list[str]:
    """Projections in an outside file as `scan.zarr`; one line for everything assumed.

    Args:
        geometry: a geometry file; None where the projections' own file states the scan.

    Raises:
        DataError: wrong shapes, counts instead of line integrals, values that are not finite.
        ConfigError: the format has no projections, or the output exists.
    """
    reader = format_of(source).read_projections
    if reader is None:
        raise ConfigError(f"{source}: the format {format_of(source).name} holds no projections")
    data = reader(source, hints)
    stated = read_geometry(geometry, data.frame) if geometry else data.stated
    if stated is None:
        raise ConfigError(f"{source} does not say where the rays are; give a geometry file (--geometry)")
    shape = tuple(data.projections.shape)
    if shape != stated.scan.shape:
        said = f"{geometry or 'its geometry'} states {stated.scan.shape}"
        raise DataError(f"{source} has projections of shape {shape} (v, angle, u), but {said}")
    _check_line_integrals(source, data.projections)
    header = ScanHeader(
        stated.scan,
        stated.grid,
        noise or Noise(),
        water_per_mm,
        {"file": source.name, "geometry": (geometry or source).name},
    )
    masked = write_scan(out, header, _row_blocks(data.projections), overwrite, bad_pixels)
    notes = [*data.notes, *stated.notes]
    return [*notes, f"{masked} pixels masked"] if masked else notes


def import_volume(
    source: Path, out: Path, hints: Hints, water_per_mm: float = 0.02, overwrite: bool = False
) -> list[str]:
    """A volume in an outside file as `volume.zarr` in 1/mm; one line for everything assumed."""
    reader = format_of(source).read_volume
    if reader is None:
        raise ConfigError(f"{source}: the format {format_of(source).name} holds no volumes")
    data = reader(source, hints)
    to_per_mm: Callable[[np.ndarray], np.ndarray] = (
        (lambda hu: attenuation(hu, water_per_mm)) if data.quantity == "hu" else (lambda mu: mu.astype(np.float32))
    )
    readable = _Converted(data.slices, to_per_mm)
    attributes = {"provenance": {"file": source.name}, "water_per_mm": water_per_mm}
    write_volume(out, readable, data.geometry, RamSpace(), attributes, overwrite=overwrite)
    return list(data.notes)


def water_of(path: Path, given: float | None) -> float:
    """Water's attenuation in 1/mm: as given, else as a `volume.zarr` states it, else 0.02."""
    if given is None and (path / "zarr.json").exists():
        return float(open_volume(path).attributes.get("water_per_mm", WATER_PER_MM))
    return given or WATER_PER_MM


def read_any_volume(path: Path, hints: Hints, water_per_mm: float) -> tuple[np.ndarray, VolumeGeometry, list[str]]:
    """A whole volume in memory, attenuation in 1/mm, from a `volume.zarr` or any known format."""
    if (path / "zarr.json").exists():
        stored = open_volume(path)
        return stored.data[0 : stored.geometry.shape[0]], stored.geometry, []
    reader = format_of(path).read_volume
    if reader is None:
        raise ConfigError(f"{path}: the format {format_of(path).name} holds no volumes")
    data = reader(path, hints)
    values = np.asarray(data.slices[0 : data.geometry.shape[0]])
    values = attenuation(values, water_per_mm) if data.quantity == "hu" else values.astype(np.float32)
    return values, data.geometry, list(data.notes)


def export_volume(stored: StoredVolume, out: Path, quantity: Quantity, water_per_mm: float) -> None:
    """A volume of ours in an outside format, chosen by the suffix, float32."""
    known = format_of(out)
    if known.write_volume is None:
        raise ConfigError(f"{out}: the format {known.name} is read only; choose another suffix")
    known.write_volume(out, _slices(stored, quantity, water_per_mm), stored.geometry, quantity)


def select_views(scan: Scan, views: np.ndarray, out: Path, overwrite: bool = False) -> None:
    """The views of a scan with these indices, as a new scan."""
    if views.size == 0:
        raise ConfigError("the selection holds no views")
    wrong = views[(views < 0) | (views >= scan.geometry.views)]
    if wrong.size:
        raise ConfigError(f"views {wrong[:5].tolist()} are not in a scan of {scan.geometry.views} views")
    provenance = {**scan.provenance, "selected_views": len(views), "of": scan.geometry.views}
    header = ScanHeader(scan.geometry.select(views), scan.grid, scan.noise, scan.water_per_mm, provenance)
    blocks = (block[:, views] for block in _row_blocks(scan.projections))
    write_scan(out, header, blocks, overwrite, bad_pixels="mask")


class _Converted:
    """Slices of a file, converted as they are read."""

    def __init__(self, slices: Sliceable, convert: Callable[[np.ndarray], np.ndarray]) -> None:
        self.slices, self.convert = slices, convert

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.slices.shape)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.convert(np.asarray(self.slices[start:stop]))))


def _slices(stored: StoredVolume, quantity: Quantity, water_per_mm: float) -> Iterator[np.ndarray]:
    for start in range(0, stored.geometry.shape[0], stored.data.chunks[0]):
        for mu in stored.data[start : start + stored.data.chunks[0]]:
            yield (mu / np.float32(water_per_mm) - 1) * np.float32(1000) if quantity == "hu" else mu


def _row_blocks(projections: Sliceable) -> Iterator[np.ndarray]:
    for start in range(0, projections.shape[0], ROWS_AT_ONCE):
        yield np.asarray(projections[start : start + ROWS_AT_ONCE], dtype=np.float32)


def _check_line_integrals(source: Path, projections: Sliceable) -> None:
    """Refuse what is plainly not a line integral, from the middle row."""
    middle = projections.shape[0] // 2
    row = np.asarray(projections[middle : middle + 1], dtype=np.float64)
    row = row[np.isfinite(row)]
    if row.size == 0:
        return
    median, low = float(np.median(row)), float(np.percentile(row, 1))
    if median > LARGEST_LINE_INTEGRAL or low < -LARGEST_LINE_INTEGRAL:
        looks = "detector counts" if median > LARGEST_LINE_INTEGRAL else "Hounsfield units"
        raise DataError(
            f"{source}: the middle row has median {median:.4g} and lowest percentile {low:.4g}, which looks like "
            f"{looks}, not line integrals. Convert counts by -log((counts - dark) / (flat - dark)) first."
        )
