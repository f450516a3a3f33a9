"""Data Exchange, the layout of APS files: /exchange/data with data_white, data_dark and theta.

By its specification (tomography extension) the axes are theta:y:x unless an attribute says otherwise, values without a
unit are counts, and angles are degrees. Angles that are missing are not made up here.
"""

import re
from typing import Any

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.base import AxisOrder
from volrecon.formats.files import required
from volrecon.formats.hdf5_access import dataset, linked
from volrecon.formats.hdf5_stacks import Stack, read_angles, read_counts, read_frames, shape_v_angle_u, title
from volrecon.formats.hdf5_texts import attribute

DATA = "data"

NO_ANGLES = "no theta in the file: state the angles (the specification would assume equal steps over 180 degrees)"

KNOWN_AXES: dict[str, AxisOrder] = {"theta:y:x": "angle,v,u", "y:theta:x": "v,angle,u"}


def groups(file: Any) -> list[Any]:
    """The groups of this layout: /exchange, and /exchange_1 and so on of a series."""
    found = [linked(file, name) for name in file if re.fullmatch(r"exchange(_\d{1,9})?", name)]
    return [group for group in found if isinstance(group, required("h5py").Group)]


def read(group: Any, hint: AxisOrder | None) -> Stack:
    """The projections of one exchange group; `hint` overrides its axes attribute."""
    data = dataset(group, DATA)
    if data is None:
        raise DataError(f"{group.name!r:.200} holds no data")
    axes = hint or _axes(data)
    shape = shape_v_angle_u(data, axes)
    theta = dataset(group, "theta")
    angles, sense = (None, NO_ANGLES) if theta is None else read_angles(theta)
    flats, darks = (_images(group, name, shape) for name in ("data_white", "data_dark"))
    counts, meaning = read_counts(data, flats, darks)
    taken = f"Data Exchange: {title(data)}, axes taken as ({axes})"
    return Stack(data, axes, np.arange(shape[1]), angles, (taken, sense, meaning), counts)


def _axes(data: Any) -> AxisOrder:
    stated = attribute(data, "axes")
    # Flats and darks name their angles theta_white and theta_dark.
    plain = re.sub(r"_(white|dark)\b", "", (stated or "theta:y:x").lower())
    if plain not in KNOWN_AXES:
        raise DataError(
            f"{data.name!r:.200} has the axes {stated!r:.80}; known are {', '.join(KNOWN_AXES)}. "
            f"Give the hint axes if it is mistaken."
        )
    return KNOWN_AXES[plain]


def _images(group: Any, name: str, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Flats or darks (frames, v, u) of projections `shape` (v, angle, u); None where there are none."""
    data = dataset(group, name)
    if data is None or 0 in data.shape:
        return None
    axes = _axes(data)
    rows, frames, columns = shape_v_angle_u(data, axes)
    if (rows, columns) != (shape[0], shape[2]):
        raise DataError(f"{title(data)} has images of {(rows, columns)}, the projections {(shape[0], shape[2])} (v, u)")
    return read_frames(data, axes, np.arange(frames))
