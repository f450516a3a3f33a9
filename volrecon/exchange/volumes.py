"""Volumes in outside files as ours, and ours in outside files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from volrecon.errors import ConfigError
from volrecon.formats import Hints, Quantity, Sliceable, format_of
from volrecon.geometry import VolumeGeometry
from volrecon.simulate import attenuation
from volrecon.store import StoredVolume, open_volume, write_volume
from volrecon.store.output import check_outside, is_ours
from volrecon.volume import Readable

WATER_PER_MM = 0.02


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
    write_volume(out, readable, data.geometry, attributes, overwrite=overwrite)
    return list(data.notes)


def water_of(path: Path, given: float | None) -> float:
    """Water's attenuation in 1/mm: as given, else as a `volume.zarr` states it, else 0.02."""
    if given is None and is_ours(path):
        return float(open_volume(path).attributes.get("water_per_mm", WATER_PER_MM))
    return WATER_PER_MM if given is None else given


def read_any_volume(path: Path, hints: Hints, water_per_mm: float) -> tuple[np.ndarray, VolumeGeometry, list[str]]:
    """A whole volume in memory, attenuation in 1/mm, from a `volume.zarr` or any known format."""
    if is_ours(path):
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
    check_outside(out)
    known.write_volume(out, _slices(stored, quantity, water_per_mm), stored.geometry, quantity)


class _Converted(Readable):
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
