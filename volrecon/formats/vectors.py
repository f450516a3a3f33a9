"""Twelve numbers a view, in text or .npy, as a geometry of its own: ASTRA's `cone_vec`, which CWI's walnuts came in."""

from pathlib import Path

from volrecon.errors import ConfigError, DataError
from volrecon.formats.base import Frame, GeometryFormat, StatedScan
from volrecon.formats.files import reading
from volrecon.formats.number_files import read_vectors, write_vectors
from volrecon.geometry import ScanGeometry, from_vectors


def read(path: Path, frame: Frame | None) -> StatedScan:
    """The cone-beam scan of a file of vectors, on the detector of the projections.

    Raises:
        ConfigError: `frame` is missing.
        DataError: damaged, or another number of views than the projections.
    """
    with reading(path):
        vectors = read_vectors(path)
        if frame is None:
            raise ConfigError(
                f"has vectors of {len(vectors)} views, which do not state the detector's rows and columns; give the "
                f"projections too"
            )
        if len(vectors) != frame.views:
            raise DataError(f"has {len(vectors)} views, the projections' file has {frame.views}")
        scan = from_vectors("cone", frame.detector_shape, vectors)
        note = (
            f"{scan.views} views of 12 numbers: source, detector centre, u step, v step, each (x, y, z) in mm; taken "
            f"as a cone beam (a geometry.toml with [vectors] names another), row 0 and column 0 first"
        )
        return StatedScan(scan, None, (note,))


def write(path: Path, scan: ScanGeometry) -> None:
    """The vectors of a cone beam.

    Raises:
        ConfigError: another beam, which the file could not state.
    """
    if scan.beam != "cone":
        raise ConfigError(f"{path}: a file of vectors is read as a cone beam, this is a {scan.beam} one; write a .toml")
    write_vectors(path, scan.vectors)


FORMAT = GeometryFormat("vectors", (".npy", ".txt", ".geom", ".csv"), read, write)
