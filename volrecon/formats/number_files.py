"""Tables of numbers that people keep beside a scan: angles, one a line, and vectors, twelve a view."""

from pathlib import Path

import numpy as np

from volrecon.errors import DataError
from volrecon.formats import npy
from volrecon.formats.files import reading, replacing

LARGEST_TEXT = 256 * 2**20


def read_vectors(path: Path) -> np.ndarray:
    """Scan vectors (views, 12), float64, mm: source (or ray), detector centre, u step, v step, each (x, y, z).

    The file is text, twelve numbers a line between blanks or commas with `#` comments, or .npy.

    Raises:
        DataError: other than twelve columns, or numbers that are not finite.
    """
    with reading(path):
        vectors = _array(path) if path.suffix.lower() == ".npy" else _text(path)
        if vectors.ndim == 2 and vectors.shape[1] == 13:
            raise DataError(
                "has 13 numbers a view: the last is the radius of a curved detector. volrecon's detectors are flat; "
                "resample the projections to a flat detector and give 12 numbers."
            )
        if vectors.ndim != 2 or vectors.shape[1] != 12:
            raise DataError(f"has shape {vectors.shape}; expected 12 numbers a view, (views, 12)")
        return _finite(vectors)


def write_vectors(path: Path, vectors: np.ndarray) -> None:
    """Scan vectors (views, 12) as `read_vectors` reads them back, bit for bit; .npy or text by the suffix."""
    table = np.asarray(vectors, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 12:
        raise DataError(f"{path}: scan vectors have shape {table.shape}; expected (views, 12)")
    with replacing(path) as partial, partial.open("wb") as stream:
        if path.suffix.lower() == ".npy":
            np.lib.format.write_array(stream, table, allow_pickle=False)
            return
        stream.write(b"# source or ray (x y z), detector centre (x y z), u step (x y z), v step (x y z), mm\n")
        for row in table.tolist():
            stream.write((" ".join(map(repr, row)) + "\n").encode())


def read_angles(path: Path) -> np.ndarray:
    """Angles (views,), float64, in the file's own unit: one a line, with `#` comments."""
    with reading(path):
        table = _text(path)
        if table.shape[1] != 1:
            raise DataError(f"has {table.shape[1]} numbers a line; expected one angle a line")
        return _finite(table[:, 0])


def _array(path: Path) -> np.ndarray:
    return np.array(npy.mapped(path), dtype=np.float64)


def _text(path: Path) -> np.ndarray:
    """A table of equally long lines."""
    if (size := path.stat().st_size) > LARGEST_TEXT:
        raise DataError(f"has {size} bytes; a text file of numbers may have {LARGEST_TEXT}")
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise DataError(f"line {number}: {error}") from error
        if rows and len(row) != len(rows[0]):
            raise DataError(f"line {number} has {len(row)} numbers, the lines before it {len(rows[0])}")
        rows.append(row)
    if not rows:
        raise DataError("holds no numbers")
    return np.array(rows, dtype=np.float64)


def _finite(values: np.ndarray) -> np.ndarray:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise DataError(f"{len(bad)} numbers are not finite, the first at {bad[0].tolist()}")
    return values
