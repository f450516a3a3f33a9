"""The header of a MetaImage: `key = value` lines before raw or deflated numbers."""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.base import LARGEST_IN_MEMORY

T = TypeVar("T")

LONGEST_HEADER = 2**16
DEFLATE_RATIO = 1032
"""Deflate cannot shrink anything by more than this: a larger claim is false."""

DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
MM_PER_UNIT = {"?": 1.0, "um": 1e-3, "mm": 1.0, "cm": 10.0}

PLAIN = {
    "ElementNumberOfChannels": 1,
    "ElementToIntensityFunctionSlope": 1,
    "ElementToIntensityFunctionOffset": 0,
}
SYNONYMS = {
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}


@dataclass(frozen=True)
class Header:
    """What a MetaImage header states; lengths in mm, in ITK's world.

    Attributes:
        shape: (k, j, i): the last index varies fastest in the file.
        spacing: along (i, j, k), or None where the file has none.
        offset: position of the first element, or None.
        direction: column a is the direction of axis a of (i, j, k).
        comment: free text.
        start: where the data begin in `file`.
        packed: bytes of compressed data from `start`; None where they are not compressed.
        note: one line about element type, data file and unit of length.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    spacing: np.ndarray | None
    offset: np.ndarray | None
    direction: np.ndarray
    comment: str
    file: Path
    start: int
    packed: int | None
    note: str

    def array(self) -> np.ndarray:
        """The array (k, j, i) as it lies in the file: a memory map, or unpacked."""
        if self.packed is None:
            return np.memmap(self.file, self.dtype, mode="r", offset=self.start, shape=self.shape)
        nbytes = math.prod(self.shape) * self.dtype.itemsize
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            unpacker = zlib.decompressobj(wbits=47)  # zlib's or gzip's header
            data = unpacker.decompress(stream.read(self.packed), nbytes + 1)
        if len(data) != nbytes or not unpacker.eof:
            raise DataError(f"its compressed data do not unpack to the {nbytes} bytes that its header claims")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


def read_header(path: Path) -> Header:
    """The header of a MetaImage, after checking that its data are there.

    Raises:
        DataError: not a MetaImage, one that is not read, or its file of data is missing or too short.
    """
    with path.open("rb") as stream:
        fields = _fields(stream)
        after = stream.tell()
    _refuse_what_is_not_read(fields)
    shape = _counts(fields)
    dtype = np.dtype(_known(fields, "ElementType", DTYPES))
    scale, unit = _known(fields, "DistanceUnits", MM_PER_UNIT), fields["DistanceUnits"]
    spacing = _numbers(fields, "ElementSpacing", 3)
    spacing = _numbers(fields, "ElementSize", 3) if spacing is None else spacing
    offset, direction = _numbers(fields, "Offset", 3), _numbers(fields, "TransformMatrix", 9)
    file = _data_file(path, fields["ElementDataFile"])
    local = file == path
    start, packed = _place(fields, file, after if local else 0, math.prod(shape) * dtype.itemsize)
    return Header(
        (shape[2], shape[1], shape[0]),
        dtype.newbyteorder(">" if _yes(fields, "BinaryDataByteOrderMSB") else "<"),
        None if spacing is None else spacing * scale,
        None if offset is None else offset * scale,
        # The file lists the directions axis by axis.
        np.eye(3) if direction is None else direction.reshape(3, 3).T,
        fields.get("Comment", ""),
        file,
        start,
        packed,
        f"{fields['ElementType']}{'' if local else f' in {file.name}'}, unit of length {unit}",
    )


def _fields(stream: IO[bytes]) -> dict[str, str]:
    """The header's `key = value` lines; the data's file is the last of them."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = stream.readline(LONGEST_HEADER)
        if not line.endswith(b"\n") or stream.tell() > LONGEST_HEADER:
            raise DataError(f"has no ElementDataFile line in its first {LONGEST_HEADER} bytes: not a MetaImage")
        key, equals, value = line.decode("latin1").partition("=")
        key = SYNONYMS.get(key.strip(), key.strip())
        if not equals or key in fields:
            raise DataError(f"has the header line {line[:60]!r}; expected a new 'key = value'")
        fields[key] = value.strip()
    return {"DistanceUnits": "mm", **fields}


def _refuse_what_is_not_read(fields: dict[str, str]) -> None:
    if fields.get("ObjectType") != "Image" or fields.get("NDims") != "3" or not _yes(fields, "BinaryData"):
        found = ", ".join(f"{key} {fields.get(key)!r:.40}" for key in ("ObjectType", "NDims", "BinaryData"))
        raise DataError(f"has {found}; only binary images of three axes are read")
    for key, plain in PLAIN.items():
        if float(fields.get(key, plain)) != plain:
            raise DataError(
                f"has {key} {fields[key]!r:.40}; only {plain} is read: apply it, and save one number a voxel"
            )


def _counts(fields: dict[str, str]) -> tuple[int, int, int]:
    words = fields.get("DimSize", "").split()
    if len(words) != 3 or not all(re.fullmatch(r"[0-9]{1,9}", word) and int(word) > 0 for word in words):
        raise DataError(f"has DimSize {fields.get('DimSize')!r:.60}; expected three counts of at least 1")
    return int(words[0]), int(words[1]), int(words[2])


def _known(fields: dict[str, str], key: str, known: Mapping[str, T]) -> T:
    value = known.get(fields.get(key, ""))
    if value is None:
        raise DataError(f"has {key} {fields.get(key)!r:.60}; known are {', '.join(known)}")
    return value


def _numbers(fields: dict[str, str], key: str, count: int) -> np.ndarray | None:
    if key not in fields:
        return None
    values = np.array([float(word) for word in fields[key].split()])
    if values.shape != (count,) or not np.isfinite(values).all():
        raise DataError(f"has {key} {fields[key]!r:.60}; expected {count} finite numbers")
    return values


def _yes(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "False")[:1] in ("T", "t", "1")


def _data_file(path: Path, name: str) -> Path:
    """The file that holds the data: this one, or one beside it."""
    if name in ("LOCAL", "Local", "local"):
        return path
    if name.startswith("LIST") or "%" in name:
        raise DataError(f"its data are spread over several files ({name!r:.60}); save them in one")
    if name in ("", ".", "..", path.name) or any(character in name for character in "/\\:\0"):
        raise DataError(f"names the data file {name!r:.60}; only a plain name in the same folder is followed")
    if not (path.parent / name).is_file():
        raise DataError(f"names the data file {name!r:.60}, which is not beside it")
    return path.parent / name


def _place(fields: dict[str, str], file: Path, start: int, nbytes: int) -> tuple[int, int | None]:
    """Where the data begin and how many compressed bytes they are, after checking that the file holds them."""
    held = file.stat().st_size
    skip = int(fields.get("HeaderSize", "0"))
    if _yes(fields, "CompressedData"):
        packed = int(fields.get("CompressedDataSize", held - start))
        if skip or not 0 < packed <= held - start or nbytes > min(packed * DEFLATE_RATIO, LARGEST_IN_MEMORY):
            raise DataError(
                f"claims {nbytes} bytes in {packed} compressed ones, of which {held - start} are there (at most "
                f"{LARGEST_IN_MEMORY} bytes are unpacked, and no HeaderSize is read); save it uncompressed"
            )
        return start, packed
    start = held - nbytes if skip == -1 else start + skip
    if skip < -1 or start < 0 or held - start < nbytes:
        raise DataError(f"ends early: its header claims {nbytes} bytes from {start}, but {file.name} holds {held}")
    return start, None
