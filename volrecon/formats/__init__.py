"""Other people's files: one file a format, listed here.

A new format is one module with a `FORMAT`, and one line below; the contract suite then runs on it.
"""

from pathlib import Path

from volrecon.errors import ConfigError
from volrecon.formats import dicom, geometry_toml, hdf5, mha, nifti, nikon, npy, npz, ome_zarr, rtk, tiff, vectors
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
from volrecon.formats.dicom_files import is_dicom
from volrecon.formats.files import reading
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
    "geometry_format_of",
    "read_geometry",
    "read_vectors",
    "write_vectors",
]

FORMATS: dict[str, Format] = {
    "npy": npy.FORMAT,
    "npz": npz.FORMAT,
    "hdf5": hdf5.FORMAT,
    "nifti": nifti.FORMAT,
    "nikon": nikon.FORMAT,
    "tiff": tiff.FORMAT,
    "mha": mha.FORMAT,
    "ome-zarr": ome_zarr.FORMAT,
    "dicom": dicom.FORMAT,
}

GEOMETRIES: dict[str, GeometryFormat] = {
    "geometry.toml": geometry_toml.FORMAT,
    "rtk": rtk.FORMAT,
    "vectors": vectors.FORMAT,
    "nikon": nikon.GEOMETRY,
}
"""Files that say where the rays are, and hold no projections."""


def read_geometry(path: Path, frame: Frame | None = None) -> StatedScan:
    """The scan that a geometry file states; `frame` is what the projections' own file says, if it is at hand.

    Raises:
        ConfigError: no geometry format goes by that suffix, or the format needs the projections.
        DataError: damaged, or it disagrees with the projections.
        GeometryError: distances or angles that no scanner has.
    """
    return geometry_format_of(path).read(path, frame)


def geometry_format_of(path: Path) -> GeometryFormat:
    """The geometry format of a file by its suffix.

    Raises:
        ConfigError: no geometry format goes by that suffix.
    """
    found = [g for g in GEOMETRIES.values() if path.name.lower().endswith(g.suffixes)]
    if not found:
        known = ", ".join(f"{g.name} ({' '.join(g.suffixes)})" for g in GEOMETRIES.values())
        raise ConfigError(f"{path}: no geometry format goes by the suffix {path.suffix!r}; known are {known}")
    return found[0]


def format_of(path: Path) -> Format:
    """The format of a file by its suffix, or of a folder by its markers or the suffixes of the files in it.

    Raises:
        ConfigError: no format, or more than one, goes by that suffix.
    """
    if path.is_dir():
        found = [f for f in FORMATS.values() if f.markers and _is_marked(path, f)] or _of_files(path)
    else:
        found = [f for f in FORMATS.values() if path.name.lower().endswith(f.suffixes)]
    # Many DICOM files have no suffix.
    found = found or [dicom.FORMAT] * is_dicom(path)
    if len(found) == 1:
        return found[0]
    known = ", ".join(
        f"{f.name} ({' '.join(f.suffixes)}{' or a folder of them' * f.folders})" for f in FORMATS.values()
    )
    what = "the folder's files belong" if path.is_dir() else f"the suffix {path.suffix!r} belongs"
    raise ConfigError(
        f"{path}: {what} to {len(found) or 'no'} known format(s); known are {known}. A geometry goes with its "
        f"projections (--geometry)."
    )


def _is_marked(folder: Path, known: Format) -> bool:
    return folder.name.lower().endswith(known.suffixes) or any((folder / name).exists() for name in known.markers)


def _of_files(folder: Path) -> list[Format]:
    with reading(folder):
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    return [f for f in FORMATS.values() if f.folders and any(n.lower().endswith(f.suffixes) for n in names)]
