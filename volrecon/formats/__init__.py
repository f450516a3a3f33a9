"""Other people's files: one file a format, listed here.

A new format is one module with a `FORMAT`, and one line below; the contract suite then runs on it.
"""

from pathlib import Path

from volrecon.errors import ConfigError
from volrecon.formats import geometry_toml, nifti, npy, npz, tiff
from volrecon.formats.base import (
    AxisOrder,
    Counts,
    Format,
    Frame,
    GeometryFormat,
    Hints,
    PixelGrid,
    ProjectionData,
    Quantity,
    Sliceable,
    StatedScan,
    VolumeData,
)
from volrecon.formats.number_files import read_vectors, write_vectors

__all__ = [
    "FORMATS",
    "GEOMETRIES",
    "AxisOrder",
    "Counts",
    "Format",
    "Frame",
    "GeometryFormat",
    "Hints",
    "PixelGrid",
    "ProjectionData",
    "Quantity",
    "Sliceable",
    "StatedScan",
    "VolumeData",
    "format_of",
    "read_geometry",
    "read_vectors",
    "write_vectors",
]

FORMATS: dict[str, Format] = {
    "npy": npy.FORMAT,
    "npz": npz.FORMAT,
    "nifti": nifti.FORMAT,
    "tiff": tiff.FORMAT,
}

GEOMETRIES: dict[str, GeometryFormat] = {
    "toml": geometry_toml.FORMAT,
}
"""Files that say where the rays are, and hold no projections."""


def read_geometry(path: Path, frame: Frame | None = None) -> StatedScan:
    """The scan that a geometry file states; `frame` is what the projections' own file says, if it is at hand.

    Raises:
        ConfigError: no geometry format goes by that suffix, or the format needs the projections.
        DataError: damaged, or it disagrees with the projections.
        GeometryError: distances or angles that no scanner has.
    """
    found = [g for g in GEOMETRIES.values() if path.name.lower().endswith(g.suffixes)]
    if not found:
        known = ", ".join(f"{g.name} ({' '.join(g.suffixes)})" for g in GEOMETRIES.values())
        raise ConfigError(f"{path}: no geometry format goes by the suffix {path.suffix!r}; known are {known}")
    return found[0].read(path, frame)


def format_of(path: Path) -> Format:
    """The format of a file by its suffix, or of a folder by the suffixes of the files in it.

    Raises:
        ConfigError: no format, or more than one, goes by that suffix.
    """
    if path.is_dir():
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        found = [f for f in FORMATS.values() if f.folders and any(n.lower().endswith(f.suffixes) for n in names)]
    else:
        found = [f for f in FORMATS.values() if path.name.lower().endswith(f.suffixes)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(
        f"{f.name} ({' '.join(f.suffixes)}{' or a folder of them' * f.folders})" for f in FORMATS.values()
    )
    what = "the folder's files" if path.is_dir() else f"the suffix {path.suffix!r}"
    raise ConfigError(f"{path}: {what} belong to {len(found) or 'no'} known format(s); known are {known}")
