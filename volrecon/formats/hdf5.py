"""HDF5, read only: projections in Data Exchange, NXtomo or any dataset that a hint names, and volumes.

A layout is known by the file's contents, never by its suffix. Links to other files, virtual datasets and external
storage are refused. HDF5 is not written here: a writer that is killed leaves a file that nobody can read.
"""

import contextlib
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats import data_exchange, nexus
from volrecon.formats.agreement import agreed_axes, agreed_quantity, agreed_voxel
from volrecon.formats.base import AxisOrder, Format, Hints, ProjectionData, VolumeData
from volrecon.formats.files import reading, required
from volrecon.formats.hdf5_access import check_numbers, linked, opened, tree
from volrecon.formats.hdf5_stacks import Stack, by_rows, by_slices, shape_v_angle_u, title
from volrecon.geometry import VolumeGeometry

MOST_LISTED = 20


class Found(NamedTuple):
    """A group of a known layout, the place of its projections in it, and what reads it."""

    group: Any
    data: str
    read: Callable[[Any, AxisOrder | None], Stack]


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """Projections; angles, counts, flats, darks and pixel sizes come from a known layout.

    `hints.key` names the group or the dataset to read where there are several; a dataset of no known layout needs
    `hints.axes`. Rows are read as the file's chunks allow: where a chunk is higher than fits 256 MiB of rows, the whole
    array is unpacked again for every such block, and a note says how often.
    """
    with reading(path), ExitStack() as stack:
        file = stack.enter_context(opened(path))
        found = _stack(file, hints)
        projections, cost = by_rows(path, found)
        weakref.finalize(projections, stack.pop_all().close)
        return ProjectionData(projections, found.angles, (*found.notes, *cost), found.counts, found.pixels)


def read_volume(path: Path, hints: Hints) -> VolumeData:
    """A volume (z, y, x) from the dataset `hints.key`, or the only one; needs `voxel_zyx_mm` and `quantity`."""
    with reading(path), ExitStack() as stack:
        voxel = agreed_voxel(None, hints.voxel_zyx_mm)
        quantity = agreed_quantity(None, hints.quantity)
        file = stack.enter_context(opened(path))
        data = _only_dataset(file, 3) if hints.key is None else _named(file, hints.key)
        _check_dataset(data)
        if data.ndim != 3:
            raise DataError(f"{title(data)} is not a volume of three axes (z, y, x)")
        geometry = VolumeGeometry(data.shape, voxel)
        slices, cost = by_slices(path, data)
        weakref.finalize(slices, stack.pop_all().close)
        taken = f"{title(data)}, axes taken as (z, y, x)"
        notes = (taken, f"voxel size and quantity {quantity!r} from the hints", *cost)
        return VolumeData(slices, geometry, quantity, notes)


def _stack(file: Any, hints: Hints) -> Stack:
    known = [Found(group, data_exchange.DATA, data_exchange.read) for group in data_exchange.groups(file)]
    known += [Found(entry, nexus.DATA, nexus.read) for entry in nexus.groups(file)]
    if hints.key is not None:
        named = _named(file, hints.key)
        chosen = [found for found in known if _is_part(found, named)]
        return chosen[0].read(chosen[0].group, hints.axes) if chosen else _plain(named, hints)
    if len(known) > 1:
        names = ", ".join(repr(found.group.name) for found in known)
        raise ConfigError(f"holds {len(known)} scans: {names:.1000}; say which with the hint key")
    if known:
        return known[0].read(known[0].group, hints.axes)
    return _plain(_only_dataset(file, 2 if hints.axes == "angle,u" else 3), hints)


def _is_part(found: Found, named: Any) -> bool:
    with contextlib.suppress(DataError):
        return named in (found.group, linked(found.group, found.data))
    return False


def _plain(data: Any, hints: Hints) -> Stack:
    """A dataset of no known layout: the hint says its axes, and it says nothing else."""
    _check_dataset(data)
    axes = agreed_axes(None, hints.axes)
    count = shape_v_angle_u(data, axes)[1]
    notes = (f"dataset {title(data)}, axes taken as ({axes})", "no angles in the file")
    return Stack(data, axes, np.arange(count), None, notes)


def _named(file: Any, key: str) -> Any:
    named = linked(file, "/" + key.strip("/"))
    if named is None:
        raise ConfigError(f"holds nothing named {key!r}; {_listing(file, 3)}")
    return named


def _check_dataset(data: Any) -> None:
    if not isinstance(data, required("h5py").Dataset):
        raise ConfigError(f"{data.name!r:.200} is not a dataset; {_listing(data.file, 3)}")
    check_numbers(data)


def _only_dataset(file: Any, ndim: int) -> Any:
    found = _candidates(tree(file), ndim)
    if len(found) != 1:
        raise ConfigError(f"does not say which of its datasets to read; {_listing(file, ndim)}")
    return found[0]


def _candidates(objects: dict[str, Any], ndim: int) -> list[Any]:
    kind = required("h5py").Dataset
    return [item for item in objects.values() if isinstance(item, kind) and len(item.shape or ()) == ndim]


def _listing(file: Any, ndim: int) -> str:
    """What there is to choose from, and how."""
    objects = tree(file)
    found = _candidates(objects, ndim)
    listed = ", ".join(title(data) for data in found[:MOST_LISTED]) or "none"
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    links = sum(isinstance(item, required("h5py").ExternalLink) for item in objects.values())
    outside = f"; {links} links to other files are not followed" if links else ""
    return f"its datasets of {ndim} axes are {listed}{more}{outside}; say which with the hints key and axes"


FORMAT = Format("hdf5", (".h5", ".hdf5", ".nxs", ".hdf"), read_volume, read_projections=read_projections)
