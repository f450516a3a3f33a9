"""OME-Zarr images of other writers: OME-NGFF 0.4 (Zarr format 2) and 0.5 (Zarr format 3), read only.

Volumes of volrecon's own are OME-Zarr 0.5 too, but carry more: `store.open_volume` opens them. A remote store, a
collection (plate, bioformats2raw) or a version with other transformations is refused; give the folder of one image.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from volrecon.errors import ConfigError, DataError
from volrecon.formats.agreement import agreed_quantity, agreed_voxel
from volrecon.formats.base import LARGEST_IN_MEMORY, Format, Hints, SlicedArray, VolumeData
from volrecon.formats.files import reading
from volrecon.formats.foreign_zarr import ForeignArray, inside, open_array
from volrecon.formats.zarr_metadata import Foreign, Node, checked, read_node
from volrecon.geometry import VolumeGeometry

MOST_CHUNKS = 2**20
"""Chunks from which one slice may be put together."""

MM_PER_UNIT = {
    "angstrom": 1e-7, "nanometer": 1e-6, "nm": 1e-6, "micrometer": 1e-3, "um": 1e-3, "µm": 1e-3, "μm": 1e-3,
    "millimeter": 1.0, "mm": 1.0, "centimeter": 10.0, "cm": 10.0, "meter": 1e3, "m": 1e3, "inch": 25.4,
}  # fmt: skip
"""Names of the specification, and the symbols that some write instead."""

Triple = tuple[float, float, float]


class Axis(Foreign):
    name: str
    unit: str | None = None


class Transformation(Foreign):
    type: Literal["identity", "scale", "translation"]
    scale: list[float] | None = None
    translation: list[float] | None = None


class Dataset(Foreign):
    path: str
    transformations: list[Transformation] = Field(alias="coordinateTransformations", default_factory=list)


class Multiscale(Foreign):
    axes: Annotated[list[Axis], Field(min_length=2, max_length=5)]
    datasets: Annotated[list[Dataset], Field(min_length=1, max_length=100)]
    transformations: list[Transformation] = Field(alias="coordinateTransformations", default_factory=list)


@dataclass(frozen=True)
class Level:
    """One resolution of an image: axes as stored, and where index 0 lies and how far one index is, in their units."""

    dataset: Dataset
    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    step: np.ndarray | None
    first: np.ndarray | None

    @property
    def order(self) -> list[int]:
        """Positions of z, y and x among the stored axes."""
        return [self.axes.index(name) for name in "zyx"]


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """An image of z, y and x in any order; t and c of size 1 are dropped. Needs the hint `quantity`.

    `hints.key` names another resolution than the highest, as in the file ("1"). Where the axes state no unit, the
    hint `voxel_zyx_mm` is needed. Slabs are cheapest in the height of the file's chunks.
    """
    with reading(path):
        node = read_node(path)
        multiscale, version, paths = _image(node)
        level = _level(multiscale, hints.key)
        found = read_node(inside(path, level.dataset.path))
        if not found.is_array:
            raise DataError(f"its dataset {level.dataset.path!r:.80} is a group, not an array")
        stored = open_array(found, path)
        _check_axes(level, stored)
        voxel = agreed_voxel(_voxel(level), hints.voxel_zyx_mm)
        quantity = agreed_quantity(None, hints.quantity)
        shape = tuple(stored.layout.shape[k] for k in level.order)
        geometry = VolumeGeometry((shape[0], shape[1], shape[2]), voxel, _centre(level, shape, voxel))
        which = f"dataset {level.dataset.path!r} of {', '.join(map(repr, paths))}"[:200]
        notes = (
            f"OME-NGFF {version}, {which}, axes ({', '.join(level.axes)}) {stored.layout.shape}",
            _place_note(level, geometry),
            f"{stored.note}; quantity {quantity!r} from the hint",
        )
        return VolumeData(_slices(path, stored, level), geometry, quantity, notes)


def _image(node: Node) -> tuple[Multiscale, str, list[str]]:
    """The first image of a group, the version of its metadata, and its datasets' paths."""
    attributes = node.attributes
    if "volrecon" in attributes:
        raise DataError("is a store of volrecon's own: every command takes it as it is, nothing needs importing")
    if node.is_array:
        raise DataError("is a single Zarr array without OME metadata; give the folder of the image that it belongs to")
    ome = attributes.get("ome") if node.zarr_format == 3 else attributes
    images = ome.get("multiscales") if isinstance(ome, dict) else None
    if not isinstance(ome, dict) or not isinstance(images, list) or not images or not isinstance(images[0], dict):
        known = ", ".join(sorted(ome if isinstance(ome, dict) else attributes))[:200] or "none"
        raise DataError(
            f"is a Zarr group without an OME image ('multiscales'; its attributes: {known}); in a collection give "
            f"the folder of one image, such as {node.folder}/0"
        )
    expected = {2: "0.4", 3: "0.5"}[node.zarr_format]
    # In 0.4 the version is only recommended.
    stated = ome.get("version") if node.zarr_format == 3 else images[0].get("version", expected)
    if stated != expected:
        raise DataError(f"states OME-NGFF version {stated!r:.20} in Zarr format {node.zarr_format}; read is {expected}")
    image = checked(Multiscale, images[0], "multiscales[0]")
    return image, expected, [dataset.path for dataset in image.datasets]


def _level(image: Multiscale, key: str | None) -> Level:
    """The dataset of a path, by default the first and finest, with its transformations composed."""
    chosen = [dataset for dataset in image.datasets if key in (None, dataset.path)]
    if not chosen:
        paths = ", ".join(dataset.path for dataset in image.datasets)
        raise ConfigError(f"has no dataset {key!r}; the hint key may be one of {paths[:200]}")
    names = tuple(axis.name for axis in image.axes)
    if len(set(names)) != len(names) or not set("zyx") <= set(names) <= set("tczyx"):
        raise DataError(f"has the axes {names}; expected z, y and x, and t or c of size 1")
    step, first = _composed([*chosen[0].transformations, *image.transformations], len(names))
    return Level(chosen[0], names, tuple(axis.unit for axis in image.axes), step, first)


def _composed(transformations: list[Transformation], axes: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Scale and translation of index to place, None where none is stated; dataset's first, then the image's."""
    step: np.ndarray | None = None
    first: np.ndarray | None = None
    for one in transformations:
        values = {"scale": one.scale, "translation": one.translation, "identity": [1.0] * axes}[one.type]
        if values is None or len(values) != axes:
            raise DataError(f"states the {one.type} {values} for {axes} axes")
        if one.type == "scale":
            if min(values) <= 0:
                raise DataError(f"states the scale {values}; only positive ones are read. Flip the array instead.")
            step = np.array(values) * (1.0 if step is None else step)
            first = None if first is None else first * values
        elif one.type == "translation":
            first = np.array(values) + (0.0 if first is None else first)
    return step, first


def _check_axes(level: Level, stored: ForeignArray) -> None:
    layout = stored.layout
    if len(layout.shape) != len(level.axes) or (layout.names is not None and layout.names != level.axes):
        raise DataError(f"has the axes {level.axes}, its array {layout.names or ''} of shape {layout.shape}")
    more = {name: n for name, n in zip(level.axes, layout.shape, strict=True) if name in "tc" and n > 1}
    if more:
        sizes = ", ".join(f"{name} of size {n}" for name, n in more.items())
        raise DataError(f"holds more than one volume: {sizes}. Extract one of them first.")
    z = level.order[0]
    across = [(n, size) for k, (n, size) in enumerate(zip(layout.shape, layout.chunks, strict=True)) if k != z]
    plane = math.prod(n for n, _ in across) * layout.dtype.itemsize
    chunks = math.prod(-(-n // size) for n, size in across)
    if plane > LARGEST_IN_MEMORY or chunks > MOST_CHUNKS:
        raise DataError(
            f"a slice has {plane} bytes in {chunks} chunks; at most {LARGEST_IN_MEMORY} in {MOST_CHUNKS} are read. "
            f"Choose a coarser dataset with the hint key."
        )


def _voxel(level: Level) -> Triple | None:
    """The voxel size (z, y, x) in mm; None where the file states none, or no unit for it."""
    units = [level.units[k] for k in level.order]
    unknown = [unit for unit in units if unit is not None and unit not in MM_PER_UNIT]
    if unknown:
        raise DataError(f"states lengths in {unknown[0]!r:.40}; known are {', '.join(MM_PER_UNIT)}")
    if level.step is None or None in units:
        return None
    z, y, x = (float(level.step[k]) * MM_PER_UNIT[unit or ""] for k, unit in zip(level.order, units, strict=True))
    return z, y, x


def _centre(level: Level, shape: tuple[int, ...], voxel: Triple) -> Triple:
    """The grid's centre (x, y, z) in mm: index 0, the middle of the first voxel, lies at the translation."""
    if level.first is None or level.step is None:
        return 0.0, 0.0, 0.0
    z, y, x = (
        float(level.first[k] / level.step[k] + (n - 1) / 2) * size
        for k, n, size in zip(level.order, shape, voxel, strict=True)
    )
    return x, y, z


def _place_note(level: Level, geometry: VolumeGeometry) -> str:
    units = [level.units[k] for k in level.order]
    stated = _voxel(level) is not None
    source = f"from scale in {' and '.join(dict.fromkeys(map(str, units)))}" if stated else "from the hint"
    centre = "no translation, centred at 0" if level.first is None else f"centre {geometry.centre_xyz_mm} mm (x, y, z)"
    return f"voxel {geometry.voxel_zyx_mm} mm (z, y, x) {source}; {centre}"


def _slices(path: Path, stored: ForeignArray, level: Level) -> SlicedArray:
    """The array as (z, y, x)."""
    order = level.order
    kept = sorted(order)
    turn = [kept.index(k) for k in order]

    def read(start: int, stop: int) -> np.ndarray:
        index: list[Any] = [slice(None) if k in kept else 0 for k in range(len(level.axes))]
        index[order[0]] = slice(start, stop)
        return np.asarray(stored.array[tuple(index)]).transpose(turn)

    shape = tuple(stored.layout.shape[k] for k in order)
    return SlicedArray(path, shape, stored.layout.dtype, read)


FORMAT = Format("ome-zarr", (".ome.zarr", ".zarr"), read_volume, markers=("zarr.json", ".zgroup", ".zarray"))
