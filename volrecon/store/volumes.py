"""`volume.zarr`: a finished volume as OME-Zarr 0.5, with a pyramid, built slab by slab."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from volrecon.errors import DataError, DivergedError, GeometryError, IntegrityError
from volrecon.geometry import VolumeGeometry
from volrecon.store.arrays import FORMAT_VERSION, StoredArray, create_array, our_attributes, read_metadata
from volrecon.store.durable import sync_tree
from volrecon.store.output import replacing
from volrecon.volume import Readable, chunk_height

AXES = ("z", "y", "x")
SMALLEST_LEVEL = 64  # the pyramid ends when no side is longer


@dataclass(frozen=True)
class StoredVolume:
    """An opened volume: attenuation in 1/mm, (z, y, x).

    Attributes:
        data: read from disk in slabs.
        attributes: the resolved job, versions, fingerprints it was written with.
        digest: sha256 of the values, None while incomplete.
    """

    data: StoredArray
    geometry: VolumeGeometry
    attributes: dict[str, Any]
    digest: str | None


def write_volume(
    path: Path,
    source: Readable,
    geometry: VolumeGeometry,
    attributes: dict[str, Any],
    unit_per_mm: float = 1.0,
    overwrite: bool = False,
) -> str:
    """Write `source` times `unit_per_mm` as attenuation in 1/mm; returns the sha256 of the values.

    `complete` and the digest are written last. Times and host names do not belong in `attributes`.

    Raises:
        DivergedError: a value is not finite.
    """
    with replacing(Path(path), overwrite) as folder:
        group = zarr.create_group(folder)
        level = _create_level(group, "0", geometry.shape)
        digest = hashlib.sha256()
        height = chunk_height(geometry.shape)
        for start in range(0, geometry.shape[0], height):
            stop = min(start + height, geometry.shape[0])
            block = source.read(start, stop).numpy() * np.float32(unit_per_mm)
            if not np.isfinite(block).all():
                bad = np.argwhere(~np.isfinite(block))
                raise DivergedError(
                    f"{len(bad)} voxels are not finite, first (z, y, x) {tuple(bad[0] + [start, 0, 0])}"
                )
            level[start:stop] = block
            digest.update(block.data)
        shapes = _build_pyramid(group, level)
        sync_tree(folder)  # the values before the word that they are complete
        group.attrs["ome"] = _multiscales(geometry, shapes)
        group.attrs["volrecon"] = {
            **attributes,
            "kind": "volume",
            "format_version": FORMAT_VERSION,
            "quantity": "linear attenuation, 1/mm",
            "geometry": geometry.to_dict(),
            "digest": digest.hexdigest(),
            "complete": True,
        }
    return digest.hexdigest()


def open_volume(path: str | Path, partial: bool = False) -> StoredVolume:
    """Open a `volume.zarr` of ours.

    Args:
        partial: also open one that is incomplete; what is missing reads as NaN.

    Raises:
        IntegrityError: it is incomplete and `partial` is False.
        DataError: it is not a volume of ours, or the array disagrees with the geometry.
    """
    folder = Path(path)
    attributes = our_attributes(folder, "volume")
    complete = attributes.get("complete") is True
    if not complete and not partial:
        raise IntegrityError(f"{folder} is not complete; finish its run, or pass --partial to read what is there")
    try:
        geometry = VolumeGeometry.from_dict(attributes["geometry"])
    except (KeyError, OverflowError, GeometryError) as error:
        raise DataError(f"{folder}: the attributes lack or spoil the geometry: {error}") from error
    data = StoredArray(folder / "0", AXES, "0", partial=partial)
    if data.shape != geometry.shape:
        raise DataError(f"{folder}: the array has shape {data.shape}, the geometry says {geometry.shape} (z, y, x)")
    return StoredVolume(data, geometry, attributes, attributes.get("digest") if complete else None)


def _create_level(group: zarr.Group, name: str, shape: tuple[int, ...]) -> zarr.Array:
    return create_array(group, name, shape, (chunk_height(shape), *shape[1:]), AXES)


def _build_pyramid(group: zarr.Group, level: zarr.Array) -> list[tuple[int, ...]]:
    """Halve every axis by averaging until the volume is small; the shapes of all levels."""
    shapes = [tuple(level.shape)]
    while max(shapes[-1]) > SMALLEST_LEVEL and min(shapes[-1]) >= 2:
        shape = tuple(n // 2 for n in shapes[-1])
        coarse = _create_level(group, str(len(shapes)), shape)
        height, step = chunk_height(shape), max(1, level.chunks[0] // 2)
        for start in range(0, shape[0], height):
            block = np.empty((min(height, shape[0] - start), *shape[1:]), np.float32)
            for low in range(0, len(block), step):  # a chunk of the finer level after the other
                high = min(low + step, len(block))
                fine = np.asarray(level[2 * (start + low) : 2 * (start + high)])[:, : 2 * shape[1], : 2 * shape[2]]
                block[low:high] = fine.reshape(high - low, 2, shape[1], 2, shape[2], 2).mean(axis=(1, 3, 5))
            coarse[start : start + len(block)] = block
        shapes.append(shape)
        level = coarse
    return shapes


def _multiscales(geometry: VolumeGeometry, shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    datasets = []
    for k in range(len(shapes)):
        scale = [s * 2**k for s in geometry.voxel_zyx_mm]
        first = [
            o + (2**k - 1) / 2 * s for o, s in zip(geometry.origin_xyz_mm[::-1], geometry.voxel_zyx_mm, strict=True)
        ]
        transformations = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": [float(f) for f in first]},
        ]
        datasets.append({"path": str(k), "coordinateTransformations": transformations})
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in AXES]
    return {"version": "0.5", "multiscales": [{"name": "attenuation", "axes": axes, "datasets": datasets}]}


def verify(path: str | Path) -> Iterator[str]:
    """Read every chunk of a scan or volume; yields one line for every fault found, none if all is well."""
    folder = Path(path)
    kind = "scan" if (folder / "projections").exists() else "volume"
    attributes = our_attributes(folder, kind)
    if attributes.get("complete") is not True:
        yield f"{folder}: not marked complete"
    names, axes = (["projections"], ("v", "angle", "u")) if kind == "scan" else (_levels(folder), AXES)
    for name in names:
        try:
            array = StoredArray(folder / name, axes, name, partial=True)
        except DataError as error:
            yield str(error)
            continue
        damaged = array.damaged()
        yield from (f"{folder}/{name}: chunk {key} is missing or damaged" for key in damaged)
        if name == names[0] and not damaged:
            yield from _digest_fault(array, attributes.get("digest"))


def _levels(folder: Path) -> list[str]:
    """The pyramid's arrays, as many as the metadata promise."""
    try:
        datasets = read_metadata(folder, "group")["attributes"]["ome"]["multiscales"][0]["datasets"]
        return [str(k) for k in range(len(datasets))] or ["0"]
    except (KeyError, IndexError, TypeError):  # written last: an incomplete volume has none
        return ["0"]


def _digest_fault(array: StoredArray, written: Any) -> Iterator[str]:
    digest = hashlib.sha256()
    for start in range(0, array.shape[0], array.chunks[0]):
        digest.update(array[start : start + array.chunks[0]].tobytes())
    if digest.hexdigest() != written:
        yield f"{array.folder}: sha256 is {digest.hexdigest()[:16]}, written was {str(written)[:16]}"
