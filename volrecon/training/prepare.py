"""Volumes of all origins on the voxel sizes of a prior, in its unit, as one Zarr store to draw from."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from volrecon.errors import ConfigError, DataError
from volrecon.exchange import read_any_volume, water_of
from volrecon.formats import Hints
from volrecon.geometry import VolumeGeometry
from volrecon.phantoms import anatomy
from volrecon.resample import resampled
from volrecon.store import StoredArray, create_array, our_attributes, replacing
from volrecon.training.config import Data, Phantoms, Source

AXES = ("z", "y", "x")
FINEST_UPSAMPLING = 1.15
FINEST_SLICES = 2.0
BODY = 0.25
"""Linear unit: -500 HU, between air or lung and tissue."""

TISSUE_EDGES = np.linspace(0.47, 0.6, 66)
"""Bins between fat and bone: -60 to 200 HU in steps of 4."""

LEAST_VARIANCE = 1e-8


@dataclass(frozen=True)
class Level:
    """One volume at one voxel size, in the linear unit.

    Attributes:
        array: (z, y, x).
        spacing: distance of slices in units of the pixel size.
        voxel_mm: pixel size.
        boxes: (slices, 4), first row, row after the last, first column, column after the last of the body; zeros where
            a slice shows none.
        share: weight with which it is drawn.
    """

    array: StoredArray
    spacing: float
    voxel_mm: float
    boxes: np.ndarray
    share: float


@dataclass(frozen=True)
class Prepared:
    """All levels, and what the bodies in those that are trained on are like, in the linear unit.

    Attributes:
        training, held_out: the levels.
        mean, deviation: of the values within the boxes of the bodies, levels weighted by their shares.
        soft_tissue: the commonest value between fat and bone.
    """

    training: tuple[Level, ...]
    held_out: tuple[Level, ...]
    mean: float
    deviation: float
    soft_tissue: float


@dataclass(frozen=True)
class _Volume:
    """One volume before it is brought to levels; `load` gives it in the linear unit."""

    name: str
    share: float
    held_out: bool
    load: Callable[[], tuple[np.ndarray, VolumeGeometry]]


def prepare(path: Path, data: Data, root: Path, say: Callable[[str], None]) -> Prepared:
    """The store at `path`, made when it is not there.

    Raises:
        DataError: a source is missing or damaged.
        ConfigError: the store at `path` was made from other files or settings.
    """
    fingerprint = _fingerprint(data, root)
    if not path.exists():
        _write(path, data, root, fingerprint, say)
    attributes = our_attributes(path, "training data")
    if attributes.get("fingerprint") != fingerprint:
        raise ConfigError(f"{path} was prepared from other files or settings; remove it, or name another --prepared")
    return _opened(path, attributes)


def _write(path: Path, data: Data, root: Path, fingerprint: str, say: Callable[[str], None]) -> None:
    with replacing(path, overwrite=False) as folder:
        group = zarr.create_group(folder)
        levels: list[dict[str, Any]] = []
        for volume in _volumes(data, root):
            values, grid = volume.load()
            _check_finite(volume.name, values)
            values = np.clip(values, 0, data.clip)
            targets = _targets(grid, data.voxel_mm)
            for target in targets:
                level = np.ascontiguousarray(resampled(values, grid, target))
                name = f"{len(levels):04d}"
                array = create_array(group, name, level.shape, (1, *level.shape[1:]), AXES)
                array[:] = level
                boxes = np.array([_body(plane) for plane in level])
                levels.append(_described(name, volume, target, level, boxes, volume.share / len(targets)))
            say(f"{volume.name}: {len(targets)} voxel sizes{', held out' if volume.held_out else ''}")
        group.attrs["volrecon"] = {
            "kind": "training data",
            "format_version": 1,
            "fingerprint": fingerprint,
            "levels": levels,
            "complete": True,
        }


def _described(
    name: str, volume: _Volume, grid: VolumeGeometry, level: np.ndarray, boxes: np.ndarray, share: float
) -> dict[str, Any]:
    parts = [plane[a:b, c:d].ravel() for plane, (a, b, c, d) in zip(level, boxes, strict=True)]
    inside = np.concatenate(parts).astype(np.float64)
    if inside.size == 0:
        raise DataError(f"{volume.name} shows no body: no value above {BODY} of the attenuation of +1000 HU")
    counts, _ = np.histogram(inside, TISSUE_EDGES)
    return {
        "name": name,
        "volume": volume.name,
        "held_out": volume.held_out,
        "share": share,
        "voxel_mm": grid.voxel_zyx_mm[2],
        "spacing": grid.voxel_zyx_mm[0] / grid.voxel_zyx_mm[2],
        "mean": float(inside.mean()),
        "square": float(np.square(inside).mean()),
        "tissue": (counts / inside.size).tolist(),
        "boxes": boxes.tolist(),
    }


def _opened(path: Path, attributes: dict[str, Any]) -> Prepared:
    def level(entry: dict[str, Any]) -> Level:
        array = StoredArray(path / entry["name"], AXES, entry["name"])
        return Level(array, entry["spacing"], entry["voxel_mm"], np.array(entry["boxes"]), entry["share"])

    entries = attributes["levels"]
    trained = [entry for entry in entries if not entry["held_out"]]
    if not trained:
        raise ConfigError(f"{path} holds no volume to train on; every key is held out")
    shares = np.array([entry["share"] for entry in trained])
    mean, square = (float(np.average([entry[key] for entry in trained], weights=shares)) for key in ("mean", "square"))
    if square - mean**2 < LEAST_VARIANCE:
        raise DataError(f"{path}: the bodies are one constant value, {mean:.4g}; there is nothing to learn from them")
    tissue = np.average([entry["tissue"] for entry in trained], weights=shares, axis=0)
    soft = float(TISSUE_EDGES[tissue.argmax()] + TISSUE_EDGES[tissue.argmax() + 1]) / 2
    held_out = tuple(level(entry) for entry in entries if entry["held_out"])
    return Prepared(tuple(map(level, trained)), held_out, mean, math.sqrt(square - mean**2), soft)


def _volumes(data: Data, root: Path) -> Iterator[_Volume]:
    for source in data.sources:
        keys: list[tuple[str | None, bool]] = [(key, False) for key in source.expanded(source.keys)]
        keys += [(key, True) for key in source.expanded(source.held_out)]
        trained = max(1, sum(not held for _, held in keys))
        for key, held in keys or [(None, False)]:
            name = f"{source.file}{f':{key}' if key else ''}"
            yield _Volume(name, source.weight / trained, held, _reader(source, key, root))
    if data.phantoms is not None:
        for k in range(data.phantoms.count):
            share = data.phantoms.weight / data.phantoms.count
            yield _Volume(f"phantom {k}", share, False, _painter(data.phantoms, k))


def _reader(source: Source, key: str | None, root: Path) -> Callable[[], tuple[np.ndarray, VolumeGeometry]]:
    def load() -> tuple[np.ndarray, VolumeGeometry]:
        water = water_of(root / source.file, source.water_per_mm)
        values, grid, _ = read_any_volume(root / source.file, Hints(key=key), water)
        return values / np.float32(2 * water), grid

    return load


def _painter(phantoms: Phantoms, index: int) -> Callable[[], tuple[np.ndarray, VolumeGeometry]]:
    def load() -> tuple[np.ndarray, VolumeGeometry]:
        grid = VolumeGeometry(phantoms.shape, phantoms.voxel_mm)
        return anatomy(grid, phantoms.first_seed + index, water_per_mm=0.5), grid

    return load


def _targets(grid: VolumeGeometry, voxel_mm: tuple[float, ...]) -> list[VolumeGeometry]:
    """The grids a volume is brought to: its own pixel size where all others would be made up.

    Slices come as close as the pixels, but never at less than half of their own distance.
    """
    dz, dy, dx = grid.voxel_zyx_mm
    own = max(dy, dx)
    sizes = [size for size in voxel_mm if own <= FINEST_UPSAMPLING * size] or [own]
    targets = []
    for size in sizes:
        voxel = (max(size, dz / FINEST_SLICES), size, size)
        extent = [n * s for n, s in zip(grid.shape, grid.voxel_zyx_mm, strict=True)]
        shape = tuple(max(1, int(e / s + 0.5)) for e, s in zip(extent, voxel, strict=True))
        targets.append(VolumeGeometry((shape[0], shape[1], shape[2]), voxel, grid.centre_xyz_mm))
    return targets


def _check_finite(name: str, values: np.ndarray) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise DataError(f"{name}: {bad} of {values.size} voxels are not finite; they would end the training")


def _body(plane: np.ndarray) -> tuple[int, int, int, int]:
    inside = plane > BODY
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _fingerprint(data: Data, root: Path) -> str:
    """Of the settings and of the sizes of the files; other contents of the same size are not noticed."""
    stated = data.model_dump(mode="json")
    for source in data.sources:
        path = root / source.file
        if not path.exists():
            raise DataError(f"{path} is missing; name the folder of the training data with --data or VOLRECON_DATA")
        files = path.rglob("*") if path.is_dir() else [path]
        stated[source.file] = sum(file.stat().st_size for file in files)
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
