"""Zarr arrays that never lie: NaN fill, every chunk written, crc32c on each, metadata checked before it is believed."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from volrecon.errors import DataError, IntegrityError, ResourceError
from volrecon.volume import Readable

FORMAT_VERSION = 1
LARGEST_CHUNK = 2**30
LARGEST_ARRAY = 2**50
LARGEST_METADATA = 64 * 2**20


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dimension_names: tuple[str, ...],
    compressed: bool = True,
    separator: Literal["/", "."] = "/",
) -> zarr.Array:
    """A float32 array whose missing chunks read as NaN, so that air is always stored.

    Args:
        separator: between the numbers of a chunk's key: "/" makes folders, "." puts all chunks into one.
    """
    if int(np.prod(chunks, dtype=object)) * 4 > LARGEST_CHUNK:
        raise ResourceError(f"a chunk of {chunks} values exceeds 1 GiB; one slice must stay below that")
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype="float32",
        fill_value=float("nan"),
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if compressed else [Crc32cCodec()],
        dimension_names=dimension_names,
        chunk_key_encoding={"name": "default", "separator": separator},
        # A chunk that is all NaN (a masked detector row) is data too: left out, it would count as missing.
        config={"write_empty_chunks": True},
    )


def read_metadata(folder: Path, node: str) -> dict[str, Any]:
    """The `zarr.json` of a group or array, refused unless it is one of format 3."""
    path = folder / "zarr.json"
    if not folder.exists():
        raise DataError(f"{folder} does not exist")
    if not path.is_file():
        hint = " (Zarr format 2 is not read)" if (folder / ".zattrs").exists() or (folder / ".zarray").exists() else ""
        raise DataError(f"{folder} is not a Zarr {node}: it has no zarr.json{hint}")
    if path.stat().st_size > LARGEST_METADATA:
        raise DataError(f"{path} has {path.stat().st_size} bytes; metadata above {LARGEST_METADATA} is refused")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged, not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path} is damaged: it holds no table")
    found = metadata.get("zarr_format"), metadata.get("node_type")
    if found != (3, node):
        raise DataError(f"{path} says (zarr_format, node_type) = {found}; volrecon reads (3, {node!r})")
    return metadata


class StoredArray(Readable):
    """A float32 array on disk, read in blocks along axis 0, every chunk checked.

    Raises:
        DataError: the metadata describe something else than was asked for.
        IntegrityError: on reading, a chunk is missing or damaged.
    """

    def __init__(self, folder: Path, dimension_names: tuple[str, ...], name: str, partial: bool = False) -> None:
        self.folder, self.name, self.partial = folder, name, partial
        metadata = read_metadata(folder, "array")
        self._chunks = _check_array(folder, metadata, dimension_names)
        try:
            self.array = zarr.open_array(folder, mode="r")
        except Exception as error:  # zarr raises many kinds for unknown codecs and the like
            raise DataError(f"{folder} cannot be opened as a Zarr array: {error}") from error

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def chunks(self) -> tuple[int, ...]:
        return self._chunks

    def read(self, start: int, stop: int) -> torch.Tensor:
        return torch.from_numpy(self[start:stop])

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.shape[0])
        block = np.empty((stop - start, *self.shape[1:]), np.float32)
        try:
            # One chunk after the other: zarr would decode many at a time, each in memory of its own.
            for first in range(start - start % self._chunks[0], stop, self._chunks[0]):
                low, high = max(first, start), min(first + self._chunks[0], stop)
                block[low - start : high - start] = self.array[low:high]
        except MemoryError:
            raise
        except Exception as error:  # every codec fails in its own way
            bad = self.damaged(start, stop)
            raise IntegrityError(f"{self.folder}: damaged chunks {', '.join(bad) or '(unknown)'}: {error}") from error
        if not self.partial:
            self._check_present(start, stop)
        return block

    def _check_present(self, start: int, stop: int) -> None:
        missing = [key for key in self._keys(start, stop) if not (self.folder / key).is_file()]
        if missing:
            raise IntegrityError(
                f"{self.folder}: {len(missing)} chunks are missing, first {missing[0]}; they would read as NaN. "
                f"Restore the file, or open it with partial=True (--partial) to read what is there."
            )

    def _keys(self, start: int, stop: int) -> list[str]:
        first, last = start // self._chunks[0], -(-stop // self._chunks[0])
        counts = [-(-n // c) for n, c in zip(self.shape[1:], self._chunks[1:], strict=True)]
        return ["c/" + "/".join(map(str, (k, *rest))) for k in range(first, last) for rest in np.ndindex(*counts)]

    def damaged(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Keys of the chunks that are missing or do not decode, all of them."""
        bad = []
        for key in self._keys(start, self.shape[0] if stop is None else stop):
            if not (self.folder / key).is_file():
                bad.append(key)
                continue
            where = tuple(
                slice(int(k) * c, (int(k) + 1) * c) for k, c in zip(key.split("/")[1:], self._chunks, strict=True)
            )
            try:
                self.array[where]
            except Exception:
                bad.append(key)
        return bad


def _check_array(folder: Path, metadata: dict[str, Any], dimension_names: tuple[str, ...]) -> tuple[int, ...]:
    """Refuse what is not a plausible float32 array of these axes, from the metadata alone; its chunk shape."""
    try:
        shape = [int(n) for n in metadata["shape"]]
        chunks = [int(n) for n in metadata["chunk_grid"]["configuration"]["chunk_shape"]]
        data_type, names = metadata["data_type"], tuple(metadata.get("dimension_names") or ())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{folder}/zarr.json lacks what an array needs: {error!r}") from error
    if data_type != "float32":
        raise DataError(f"{folder} holds {data_type}; volrecon reads float32")
    if names != dimension_names:
        raise DataError(f"{folder} has axes {names}; expected {dimension_names}. Transpose it and write the names.")
    total, chunk = 4, 4
    for n, c in zip(shape, chunks, strict=False):
        total, chunk = total * n, chunk * c
    if len(shape) != len(dimension_names) or len(chunks) != len(shape) or min(shape + chunks) < 1:
        raise DataError(
            f"{folder} claims shape {shape} in chunks of {chunks}; {len(dimension_names)} positive sizes needed"
        )
    if chunk > LARGEST_CHUNK or total > LARGEST_ARRAY:
        raise DataError(
            f"{folder} claims {total} bytes in chunks of {chunk}; at most {LARGEST_ARRAY} and {LARGEST_CHUNK}"
        )
    return tuple(chunks)


def our_attributes(folder: Path, kind: str) -> dict[str, Any]:
    """The attributes `volrecon` of a group, checked for kind and version."""
    all_attributes = read_metadata(folder, "group").get("attributes")
    attributes = all_attributes.get("volrecon") if isinstance(all_attributes, dict) else None
    if not isinstance(attributes, dict):
        raise DataError(f"{folder} is a Zarr group but not one of volrecon's; import it first")
    if attributes.get("kind") != kind:
        raise DataError(f"{folder} is a {attributes.get('kind')!r}; a {kind!r} is needed here")
    version = attributes.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise DataError(f"{folder} has format version {version}; this volrecon reads 1 to {FORMAT_VERSION}. Update it.")
    return attributes
