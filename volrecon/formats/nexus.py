"""NXtomo, the NeXus definition of raw tomography data: one stack of frames, sorted by an image_key.

Keys are 0 projection, 1 flat, 2 dark, 3 invalid. ESRF's `image_key_control` also knows -1, a projection that was taken
only to check the alignment; those are left out.
"""

from typing import Any

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.base import AxisOrder, PixelGrid
from volrecon.formats.files import required
from volrecon.formats.hdf5_access import dataset, numbers, tree
from volrecon.formats.hdf5_stacks import Stack, read_angles, read_counts, read_frames, shape_v_angle_u, title
from volrecon.formats.hdf5_texts import attribute, text

DETECTOR = "instrument/detector"
DATA = f"{DETECTOR}/data"

PROJECTION, FLAT, DARK, INVALID, ALIGNMENT = 0, 1, 2, 3, -1

MM = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "nm": 1e-6} | {
    prefix + metre + plural: size
    for prefix, size in (("", 1e3), ("centi", 10.0), ("milli", 1.0), ("micro", 1e-3), ("nano", 1e-6))
    for metre in ("meter", "metre")
    for plural in ("", "s")
}


def groups(file: Any) -> list[Any]:
    """The entries and subentries of a file that say they are NXtomo."""
    kind = required("h5py").Group
    entries = [item for item in tree(file, deepest=2).values() if isinstance(item, kind)]
    return [entry for entry in entries if text(entry, "definition") == "NXtomo"]


def read(entry: Any, hint: AxisOrder | None) -> Stack:
    """The projections of one entry; `hint` overrides the order (frame, row, column) of the definition."""
    data = dataset(entry, DATA)
    if data is None:
        raise DataError(f"{entry.name!r:.200} says it is NXtomo, but holds no {DATA}")
    axes = hint or "angle,v,u"
    count = shape_v_angle_u(data, axes)[1]
    keys = _keys(entry, count)
    frames = np.flatnonzero(keys == PROJECTION)
    if frames.size == 0:
        raise DataError(f"none of the {count} frames of {title(data)} is a projection (image_key 0)")
    angles, sense = _angles(entry, frames, count)
    flats, darks = (_images(data, axes, keys == key) for key in (FLAT, DARK))
    counts, meaning = read_counts(data, flats, darks)
    pixels, size = _pixels(entry)
    left = np.count_nonzero(keys == INVALID)
    taken = f"NXtomo: {title(data)}, axes taken as ({axes}), {frames.size} projections, {left} frames left out"
    return Stack(data, axes, frames, angles, (taken, sense, meaning, size), counts, pixels)


def _keys(entry: Any, count: int) -> np.ndarray:
    """What each frame is (frames,), alignment projections as invalid ones."""
    stored = [dataset(entry, f"{DETECTOR}/{name}") for name in ("image_key", "image_key_control")]
    if stored[0] is None:
        raise DataError(f"{entry.name!r:.200} holds no {DETECTOR}/image_key: which frames are projections is not said")
    keys, *control = (numbers(data) for data in stored if data is not None)
    if any(values.size != count for values in (keys, *control)):
        raise DataError(f"{count} frames, but {keys.size} image keys; they must agree")
    if not np.isin(keys, (PROJECTION, FLAT, DARK, INVALID)).all():
        raise DataError(f"image_key holds {np.unique(keys)[:10].tolist()}; known are 0, 1, 2 and 3")
    return np.where(control[0] == ALIGNMENT, INVALID, keys) if control else keys


def _images(data: Any, axes: AxisOrder, chosen: np.ndarray) -> np.ndarray | None:
    return read_frames(data, axes, np.flatnonzero(chosen)) if chosen.any() else None


def _angles(entry: Any, frames: np.ndarray, count: int) -> tuple[np.ndarray | None, str]:
    """Angles of the projections in radians, from those of all frames or of the projections alone."""
    stored = dataset(entry, "sample/rotation_angle")
    if stored is None:
        return None, "no sample/rotation_angle in the file"
    angles, line = read_angles(stored)
    if angles is not None and angles.size == count:
        return angles[frames], line
    return angles, line


def _pixels(entry: Any) -> tuple[PixelGrid | None, str]:
    """The detector's pixel grid where sizes and units are stated, and a line that says so."""
    sizes = {name: dataset(entry, f"{DETECTOR}/{name}") for name in ("y_pixel_size", "x_pixel_size")}
    stated = [(numbers(data), attribute(data, "units")) for data in sizes.values() if data is not None]
    known = [float(values[0]) * MM[unit] for values, unit in stated if values.size == 1 and unit in MM]
    if len(known) == 2 and min(known) > 0 and np.isfinite(known).all():
        v, u = known
        return PixelGrid((v, u)), f"pixels of {v:.6g} x {u:.6g} mm (v, u) from y_pixel_size and x_pixel_size"
    found = ", ".join(f"{values.tolist()[:2]} {unit}" for values, unit in stated)
    return None, f"no pixel size taken from the file: (v, u) is {found or 'not there'}"
