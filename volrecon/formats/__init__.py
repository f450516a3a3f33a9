"""Other people's files: one file a format, listed here.

A new format is one module with a `FORMAT`, and one line below; the contract suite then runs on it.
"""

from pathlib import Path

from volrecon.errors import ConfigError
from volrecon.formats import nifti, npy, npz, tiff
from volrecon.formats.base import AxisOrder, Format, Hints, ProjectionData, Quantity, Sliceable, VolumeData
from volrecon.formats.geometry_toml import StatedScan, read_geometry
from volrecon.formats.number_files import read_vectors, write_vectors

__all__ = [
    "FORMATS",
    "AxisOrder",
    "Format",
    "Hints",
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
