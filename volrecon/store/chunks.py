"""Chunks of uncompressed Zarr arrays with crc32c, read and written directly.

zarr itself makes two copies of a chunk on its way to or from a file and cannot sync one; scratch is read and written
many times, and its memory is planned to the byte. The files are the same: little-endian float32, then the checksum.
"""

import os
import struct
import sys
from pathlib import Path

import google_crc32c
import numpy as np

from volrecon.errors import IntegrityError
from volrecon.store.durable import writing

if sys.byteorder != "little":
    raise ImportError("volrecon's scratch needs a little-endian machine")

CHECKSUM = struct.Struct("<I")


def write_chunk(path: Path, values: np.ndarray) -> None:
    """Write a C-contiguous float32 array and its checksum over whatever stands there. Not synced.

    Raises:
        ResourceError: the disk is full or refuses.
    """
    flat = values.reshape(-1).view(np.uint8)
    parts = [flat.data, memoryview(_checksum(flat))]
    with writing(path, flat.nbytes + CHECKSUM.size):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            while parts:
                written = os.writev(descriptor, parts)
                while parts and written >= len(parts[0]):
                    written -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][written:]
        finally:
            os.close(descriptor)


def read_chunk(path: Path, out: np.ndarray) -> None:
    """Fill a C-contiguous float32 array from a chunk and compare the checksum.

    Raises:
        IntegrityError: the chunk is missing, has another length, or is damaged.
    """
    flat = out.reshape(-1).view(np.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            view, count = flat.data, 0
            while count < len(view):
                got = file.readinto(view[count:])
                if not got:
                    break
                count += got
            stored = file.read(CHECKSUM.size + 1)
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing; it would read as NaN") from None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror or error}") from error
    if count < flat.nbytes or len(stored) != CHECKSUM.size:
        raise IntegrityError(f"{path} has not the {flat.nbytes + CHECKSUM.size} bytes of a whole chunk; it is damaged")
    if stored != _checksum(flat):
        raise IntegrityError(f"{path} is damaged: its crc32c does not match")


def _checksum(flat: np.ndarray) -> bytes:
    view = flat.view()
    view.flags.writeable = False  # the library takes nothing else without a copy
    return CHECKSUM.pack(google_crc32c.value(view))
