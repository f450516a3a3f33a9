"""DICOM files: which files of a folder are one series, their headers, and their stored pixels, through pydicom.

Headers are read without the pixels; pixels are read when they are asked for. Uncompressed pixels lie at a known place
in the file. Compressed ones are decoded by pydicom, if it can with what is installed.
"""

import contextlib
import itertools
import logging
import math
import mmap
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.files import reading, required

SUFFIXES = (".dcm", ".ima", ".dicom")
MAGIC_OFFSET, MAGIC = 128, b"DICM"

MOST_SNIFFED = 1000
"""Files of a folder that are opened to see whether one is DICOM."""

CODEC_RATIO = 1032
"""No codec of DICOM shrinks an image by more than this: a larger claim is false."""

DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED_LENGTH = 0xFFFFFFFF

PIXEL_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


@dataclass(frozen=True)
class Pixels:
    """Where the pixels of a file are, and what they are.

    Attributes:
        shape: (rows, columns) of a frame.
        frames: how many there are.
        dtype: as stored.
        bits: bits of a pixel that are used.
        offset: byte of the first pixel; None where pydicom must decode them.
    """

    path: Path
    shape: tuple[int, int]
    frames: int
    dtype: np.dtype
    bits: int
    offset: int | None

    def frame(self, index: int) -> np.ndarray:
        """The stored integers (rows, columns) of one frame; bits beyond `bits` are dropped."""
        with reading(self.path), quiet():
            values = self._decoded(index) if self.offset is None else self._native(self.offset, index)
            if values.shape != self.shape:
                raise DataError(f"frame {index} has shape {values.shape}, its header says {self.shape}")
            spare = 8 * self.dtype.itemsize - self.bits
            return (values.astype(self.dtype.newbyteorder("=")) << spare) >> spare

    def _native(self, offset: int, index: int) -> np.ndarray:
        nbytes = math.prod(self.shape) * self.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(offset + index * nbytes)
            data = file.read(nbytes)
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def _decoded(self, index: int) -> np.ndarray:
        return np.asarray(required("pydicom").pixels.pixel_array(self.path, index=index, raw=True))


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels: `dataset` has the elements that were asked for."""

    path: Path
    dataset: Any
    pixels: Pixels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about values of doubtful form: what is used is checked here."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def is_dicom(path: Path) -> bool:
    """Is this a DICOM file, or a folder with one among its first 1000 files? Only their first bytes are read."""
    files = path.iterdir() if path.is_dir() else iter([path])
    return any(_is_marked(file) for file in itertools.islice(files, MOST_SNIFFED))


def series_files(path: Path, key: str | None, most: int) -> tuple[list[Path], str]:
    """The files of the one series in a file or folder, sorted by name, and a line about the choice.

    Args:
        key: UID or description of the series; needed where there are several.
        most: files that a folder may hold.

    Raises:
        DataError: no DICOM file, too many, or one that is damaged.
        ConfigError: several series, or none that `key` names.
    """
    files, ignored = _files(path, most)
    series: dict[str, list[Path]] = {}
    names: dict[str, str] = {}
    for file in files:
        uid, names[uid] = _series(file)
        series.setdefault(uid, []).append(file)
    uid = _chosen(series, names, key)
    return series[uid], f"{len(series[uid])} files of series {uid} {names[uid]!r}{ignored}"


def read_header(path: Path, keywords: Sequence[str | int]) -> Header:
    """The header of one file: elements `keywords` (or tags), and its pixels, checked against the file's size."""
    pydicom = required("pydicom")
    with reading(path), quiet():
        syntax = _syntax(pydicom, path)
        # A memory map ends where the file ends: no length in a damaged header makes pydicom allocate more.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            dataset = pydicom.dcmread(data, stop_before_pixels=True, specific_tags=[*PIXEL_KEYWORDS, *keywords])
            offset, length = _pixel_element(dataset, data)
            return Header(path, dataset, _pixels(path, dataset, syntax, offset, length, len(data)))


def number(dataset: Any, keyword: str) -> float:
    """One finite number of an element."""
    return numbers(dataset, keyword, 1)[0]


def numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...]:
    """The finite numbers of an element, exactly `count`."""
    value = dataset.get(keyword)
    values = [] if value in (None, "") or isinstance(value, bytes) else np.atleast_1d(value).tolist()
    if len(values) != count:
        raise DataError(f"its {keyword} is {str(value)[:80]!r}; expected {count} number(s)")
    converted = tuple(float(v) for v in values)
    if not all(math.isfinite(v) for v in converted):
        raise DataError(f"its {keyword} is {converted}; expected finite numbers")
    return converted


def _is_marked(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(MAGIC_OFFSET + len(MAGIC))[MAGIC_OFFSET:] == MAGIC
    return False


def _files(path: Path, most: int) -> tuple[list[Path], str]:
    """The DICOM files among those of a folder, sorted by name, and what to say of the others."""
    if path.is_file():
        return [path], ""
    entries = sorted(itertools.islice((p for p in path.iterdir() if not p.name.startswith(".")), most + 1))
    if len(entries) > most:
        raise DataError(f"holds more than {most} files; give the folder of one series")
    files = [p for p in entries if not p.is_dir() and p.name.upper() != "DICOMDIR" and _is_meant(p)]
    if not files:
        raise DataError("holds no DICOM file")
    ignored = len(entries) - len(files)
    return files, f"; {ignored} other entries of the folder ignored" * bool(ignored)


def _is_meant(path: Path) -> bool:
    """A file that says by its name that it is DICOM must be; of any other one its first bytes decide."""
    return path.name.lower().endswith(SUFFIXES) or _is_marked(path)


def _series(path: Path) -> tuple[str, str]:
    """UID and description of the series that a file belongs to."""
    pydicom = required("pydicom")
    with reading(path), quiet():
        _syntax(pydicom, path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tags = ["SeriesInstanceUID", "SeriesDescription", "Modality"]
            dataset = pydicom.dcmread(data, stop_before_pixels=True, specific_tags=tags)
            description = f"{dataset.get('SeriesDescription') or dataset.get('Modality') or 'no description'}"
            return str(dataset.get("SeriesInstanceUID")), description[:64]


def _chosen(series: dict[str, list[Path]], names: dict[str, str], key: str | None) -> str:
    """The UID of the series that `key` names, or of the only one."""
    found = [uid for uid in series if key in (None, uid, names[uid])]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{uid} {names[uid]!r}, {len(series[uid])} files" for uid in list(series)[:20])
    asked = "" if key is None else f", and the hint key {key!r} names {len(found)} of them"
    raise ConfigError(f"holds {len(series)} series{asked}; give one's UID or description as hint key: {known}")


def _syntax(pydicom: Any, path: Path) -> Any:
    """The transfer syntax, if its files can be read."""
    syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
    if syntax == DEFLATED:
        raise DataError(f"is stored as {syntax.name}, which is not read. Convert it to Explicit VR Little Endian")
    if not syntax.is_transfer_syntax:
        raise DataError(f"names the transfer syntax {syntax}, which DICOM does not know")
    return syntax


def _pixel_element(dataset: Any, data: mmap.mmap) -> tuple[int, int]:
    """Where the value of PixelData begins, and its length; `data` stands at the element."""
    implicit, little = dataset.original_encoding
    order, start = "<" if little else ">", data.tell()
    head = data[start : start + (8 if implicit else 12)]
    if head[:4] != struct.pack(f"{order}HH", 0x7FE0, 0x0010):
        raise DataError("holds no PixelData")
    (length,) = struct.unpack(f"{order}I", head[-4:])
    return start + len(head), length


def _pixels(path: Path, dataset: Any, syntax: Any, offset: int, length: int, size: int) -> Pixels:
    rows, columns, allocated, stored, high = (
        int(number(dataset, name)) for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")
    )
    frames = int(number(dataset, "NumberOfFrames")) if dataset.get("NumberOfFrames") else 1
    signed, little = int(number(dataset, "PixelRepresentation")), dataset.original_encoding[1]
    samples, photometric = int(number(dataset, "SamplesPerPixel")), str(dataset.get("PhotometricInterpretation"))
    if samples != 1 or photometric != "MONOCHROME2":
        why = "; programs disagree whether its values run backwards" * (photometric == "MONOCHROME1")
        raise DataError(f"has {samples} samples a pixel, {photometric[:32]}{why}; expected 1, MONOCHROME2")
    if min(rows, columns, frames) < 1 or signed not in (0, 1):
        raise DataError(f"claims {frames} frames of {rows} x {columns} pixels, PixelRepresentation {signed}")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or high != stored - 1:
        raise DataError(
            f"has {stored} bits up to bit {high} in {allocated}; expected them to begin at bit 0 of 8, 16, 32"
        )
    if not little and allocated == 8:
        raise DataError("has 8 bits a pixel in big-endian order; convert it to Explicit VR Little Endian")
    nbytes = frames * rows * columns * allocated // 8
    if syntax.is_encapsulated:
        _check_decoder(syntax, nbytes, size)
    elif length not in (nbytes, nbytes + nbytes % 2) or offset + nbytes > size:
        raise DataError(
            f"is not whole: {frames} frames of {rows} x {columns} pixels are {nbytes} bytes, PixelData claims "
            f"{length}, and {max(size - offset, 0)} follow"
        )
    dtype = np.dtype(f"{'<' if little else '>'}{'iu'[1 - signed]}{allocated // 8}")
    return Pixels(path, (rows, columns), frames, dtype, stored, None if syntax.is_encapsulated else offset)


def _check_decoder(syntax: Any, nbytes: int, size: int) -> None:
    """Refuse what pydicom cannot decode here, and a claim that no codec can keep."""
    if nbytes > CODEC_RATIO * size:
        raise DataError(f"claims {nbytes} bytes of pixels in a file of {size} bytes")
    try:
        available = required("pydicom").pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DataError(
            f"is compressed as {syntax.name}, which pydicom cannot decode with what is installed. "
            f"Install pylibjpeg and its plugins, or convert the files to Explicit VR Little Endian"
        )
