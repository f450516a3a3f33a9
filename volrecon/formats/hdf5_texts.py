"""Short texts in an HDF5 file: units, axes, the name of a definition.

Most lie in heaps, and there HDF5 (2.0) does not survive damage: it runs forever, or asks for gigabytes. So the heap is
read here, after the file format specification (version 3.0: III.E global heap, IV.A object headers).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.files import required
from volrecon.formats.hdf5_access import check_inside, linked

LONGEST_TEXT = 1024
LARGEST_BLOCK = 2**20
MOST_BLOCKS = 64

CONTINUATION, ATTRIBUTE = 0x10, 0x0C


def text(group: Any, path: str) -> str | None:
    """The short text that a dataset holds; None where there is no such dataset."""
    found = linked(group, path)
    if not isinstance(found, required("h5py").Dataset) or not _is_short_text(found):
        return None
    check_inside(found, f"{path!r:.200}")
    offset = found.id.get_offset()
    if _in_heap(found) and offset is not None:
        return _from_heap(found.file, _read(found.file, offset, 16))
    return _plain(found[()])


def attribute(data: Any, name: str) -> str | None:
    """A short text among an object's attributes, None where it has none of that name.

    Raises:
        DataError: the attribute is something else.
    """
    if name not in data.attrs:
        return None
    stored = data.attrs.get_id(name)
    if not _is_short_text(stored):
        raise DataError(f"attribute {name!r} of {data.name!r:.200} is {stored.shape} {stored.dtype}, not a short text")
    # An attribute in dense storage has no message in the header; HDF5 may read it.
    message = next(_attributes(data, name.encode()), None)
    if _in_heap(stored) and message is not None:
        return _from_heap(data.file, message)
    return _plain(data.attrs[name])


def _is_short_text(stored: Any) -> bool:
    kind = required("h5py").check_string_dtype(stored.dtype)
    return kind is not None and stored.shape in ((), (1,)) and (kind.length or 0) <= LONGEST_TEXT


def _in_heap(stored: Any) -> bool:
    return required("h5py").check_string_dtype(stored.dtype).length is None


def _plain(value: Any) -> str:
    first = np.asarray(value, dtype=object).reshape(-1)[0]
    decoded = first.decode("utf-8", "replace") if isinstance(first, bytes) else cast(str, first)
    return decoded.partition("\0")[0].strip()


def _read(file: Any, offset: int, size: int) -> bytes:
    with Path(file.filename).open("rb") as stream:
        stream.seek(offset)
        return stream.read(min(max(size, 0), LARGEST_BLOCK))


def _from_heap(file: Any, reference: bytes) -> str:
    """The text that a reference (length, address of the heap, number in it) points to."""
    length, address, wanted = struct.unpack("<IQI", reference[:16])
    if length == 0:
        return ""
    at, start = 16, address + file.userblock_size
    head = _read(file, start, at)
    if head[:4] != b"GCOL":
        raise DataError(f"a text of {length} bytes should be in a heap at {address}, but there is none")
    heap = _read(file, start, int.from_bytes(head[8:], "little"))
    while at + 16 <= len(heap):
        number, held = struct.unpack_from("<H6xQ", heap, at)
        if number == wanted and length <= held:
            return _plain(heap[at + 16 : at + 16 + length])
        at += 16 + -(-held // 8) * 8
    raise DataError(f"the heap at {address} holds no text of {length} bytes where one should be")


def _attributes(data: Any, name: bytes) -> Iterator[bytes]:
    """The values of header messages that are attributes of that name."""
    for kind, body in _messages(data):
        if kind == ATTRIBUTE:
            version, *sizes = struct.unpack_from("<BxHHH", body)
            start = 9 if version == 3 else 8
            padded = [-(-size // 8) * 8 if version == 1 else size for size in sizes]
            if body[start : start + sizes[0]].rstrip(b"\0") == name:
                yield body[start + sum(padded) :]


def _messages(data: Any) -> Iterator[tuple[int, bytes]]:
    """The messages (type, body) of an object's header and its continuations."""
    base = data.file.userblock_size
    header = required("h5py").h5o.get_info(data.id).addr + base
    start = _read(data.file, header, 64)
    newer = start[:4] == b"OHDR"
    message, extra, (first, size) = struct.Struct("<HH4x"), 0, (16, int.from_bytes(start[8:12], "little"))
    if newer:
        flags = start[5]
        message, extra = struct.Struct("<BHx"), 2 if flags & 4 else 0
        at = 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
        first = at + (1 << (flags & 3))
        size = int.from_bytes(start[at:first], "little")
    blocks = [(header + first, size)]
    for offset, length in blocks:
        block, at = _read(data.file, offset, length), 0
        while at + message.size <= len(block):
            kind, held = message.unpack_from(block, at)
            at += message.size + extra
            body = block[at : at + held]
            at += held
            if kind == CONTINUATION and len(blocks) < MOST_BLOCKS:
                offset, length = struct.unpack_from("<QQ", body)
                # A newer continuation has a signature and a checksum around its messages.
                blocks.append((base + offset + 4, length - 8) if newer else (base + offset, length))
            yield kind, body
