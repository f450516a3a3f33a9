"""What `.zarray` and `zarr.json` of other writers say, checked before it is believed: Zarr formats 2 and 3.

Read are arrays of plain numbers with the usual codecs. Codecs that hold Python objects (pickle, json) are not among
them, nor is whatever an installed package may have added to Zarr's registry.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from volrecon.errors import DataError

LARGEST_METADATA = 64 * 2**20
LARGEST_CHUNK = 2**30
LARGEST_ARRAY = 2**50

NUMBER_V2 = r"^[<>|][iuf][1248]$"

Positive = Annotated[int, Field(ge=1)]
Sizes = Annotated[list[Positive], Field(min_length=1, max_length=32)]
M = TypeVar("M", bound=BaseModel)


class Foreign(BaseModel):
    """Metadata of another writer: exact types, finite numbers, keys we do not know are left alone."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True, populate_by_name=True)


class Filter(Foreign):
    id: Literal[
        "shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "crc32", "crc32c", "adler32", "fletcher32"
    ]


class Compressor(Foreign):
    id: Literal["blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma"]


class ArrayV2(Foreign):
    """`.zarray`."""

    shape: Sizes
    chunks: Sizes
    dtype: Annotated[str, Field(pattern=NUMBER_V2)]
    compressor: Compressor | None
    filters: list[Filter] | None
    fill_value: Any
    dimension_separator: Literal[".", "/"] = "."


class Codec(Foreign):
    name: Literal["bytes", "transpose", "blosc", "gzip", "zstd", "crc32c"]


class IndexBytes(Foreign):
    class Endian(Foreign):
        endian: Literal["little"]

    name: Literal["bytes"]
    configuration: Endian


class IndexChecksum(Foreign):
    name: Literal["crc32c"]


class Shard(Foreign):
    chunk_shape: Sizes
    codecs: list[Codec]
    index_codecs: Annotated[tuple[IndexBytes, IndexChecksum], Field(strict=False)]
    index_location: Literal["start", "end"] = "end"


class Sharding(Foreign):
    """A shard must be the outermost and only codec, or a chunk could not be had without reading the whole shard."""

    name: Literal["sharding_indexed"]
    configuration: Shard


class ChunkGrid(Foreign):
    class Shape(Foreign):
        chunk_shape: Sizes

    name: Literal["regular"]
    configuration: Shape


class KeyEncoding(Foreign):
    class Separator(Foreign):
        separator: Literal[".", "/"] | None = None

    name: Literal["default", "v2"]
    configuration: Separator = Separator()


class ArrayV3(Foreign):
    """`zarr.json` of an array."""

    shape: Sizes
    data_type: Literal[
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"
    ]
    chunk_grid: ChunkGrid
    chunk_key_encoding: KeyEncoding
    fill_value: Any
    codecs: Annotated[list[Sharding], Field(max_length=1)] | list[Codec]
    dimension_names: list[str | None] | None = None
    storage_transformers: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)


@dataclass(frozen=True)
class Node:
    """A group or an array, as its metadata say; `metadata` and `attributes` are as found."""

    folder: Path
    zarr_format: Literal[2, 3]
    is_array: bool
    metadata: dict[str, Any]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """How an array lies in its files.

    Attributes:
        chunks: what is decoded in one piece.
        files: what one file holds: a chunk, or a shard of many.
        names: of the axes, where all have one.
        key: matches the name of a file below the array's folder, its groups being the indices.
        blosc: chunks end in a Blosc buffer ("last"), with a checksum behind it ("before crc32c"), or neither (None).
        index: where a shard has its index; None without shards.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    files: tuple[int, ...]
    names: tuple[str, ...] | None
    key: re.Pattern[str]
    blosc: Literal["last", "before crc32c"] | None
    index: Literal["start", "end"] | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-n // size) for n, size in zip(self.shape, self.chunks, strict=True))

    @property
    def shard(self) -> tuple[int, ...]:
        """Chunks along each axis of a file."""
        return tuple(n // size for n, size in zip(self.files, self.chunks, strict=True))

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        return math.prod(self.files) * self.dtype.itemsize


def checked(model: type[M], table: Any, what: str) -> M:
    """Metadata as a model.

    Raises:
        DataError: the first key that is missing or holds something else.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    found = "" if problem["type"] == "missing" else f", found {problem['input']!r:.80}"
    raise DataError(f"{what}: {key}: {problem['msg']}{found}")


def read_node(folder: Path) -> Node:
    """The group or array in a folder; consolidated metadata of groups above or in it are ignored.

    Raises:
        DataError: neither, or damaged.
    """
    if (folder / "zarr.json").is_file():
        table = _table(folder / "zarr.json")
        kind = table.get("node_type")
        if table.get("zarr_format") != 3 or kind not in ("array", "group"):
            raise DataError(f"zarr.json says format {table.get('zarr_format')!r:.40}, node {kind!r:.40}; expected 3")
        attributes = table.get("attributes", {})
        if not isinstance(attributes, dict):
            raise DataError("zarr.json is damaged: its attributes are no table")
        return Node(folder, 3, kind == "array", table, attributes)
    name = next((name for name in (".zarray", ".zgroup") if (folder / name).is_file()), None)
    if name is None:
        raise DataError(f"{folder} is no Zarr group or array: it has no zarr.json, .zgroup or .zarray")
    table = _table(folder / name)
    if table.get("zarr_format") != 2:
        raise DataError(f"{name} says format {table.get('zarr_format')!r:.40}; expected 2")
    attributes = _table(folder / ".zattrs") if (folder / ".zattrs").exists() else {}
    return Node(folder, 2, name == ".zarray", table, attributes)


def layout_of(node: Node) -> Layout:
    """The layout of an array.

    Raises:
        DataError: not numbers, codecs beyond the usual ones, absurd sizes.
    """
    layout = _layout_v3(node) if node.zarr_format == 3 else _layout_v2(node)
    if not len(layout.shape) == len(layout.chunks) == len(layout.files):
        raise DataError(f"claims shape {layout.shape} in chunks of {layout.chunks}, in files of {layout.files}")
    if any(whole % part for whole, part in zip(layout.files, layout.chunks, strict=True)):
        raise DataError(f"claims shards of {layout.files}, which chunks of {layout.chunks} do not fill")
    total = math.prod(layout.shape) * layout.dtype.itemsize
    if total > LARGEST_ARRAY or layout.chunk_bytes > LARGEST_CHUNK:
        raise DataError(
            f"claims {total} bytes in chunks of {layout.chunk_bytes}; at most {LARGEST_ARRAY} and {LARGEST_CHUNK}"
        )
    return layout


def _table(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise DataError(f"{path} is a symbolic link; copy the file to its place")
    if (size := path.stat().st_size) > LARGEST_METADATA:
        raise DataError(f"{path} has {size} bytes; metadata above {LARGEST_METADATA} is refused")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged, not JSON: {error}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} is damaged: it holds no table")
    return table


def _layout_v2(node: Node) -> Layout:
    stated = checked(ArrayV2, node.metadata, f"{node.folder}/.zarray")
    shape, chunks = tuple(stated.shape), tuple(stated.chunks)
    key = _key_pattern("", stated.dimension_separator, len(shape))
    blosc: Literal["last"] | None = "last" if stated.compressor and stated.compressor.id == "blosc" else None
    names = _names(node.attributes.get("_ARRAY_DIMENSIONS"))
    return Layout(shape, np.dtype(stated.dtype), chunks, chunks, names, key, blosc)


def _layout_v3(node: Node) -> Layout:
    stated = checked(ArrayV3, node.metadata, f"{node.folder}/zarr.json")
    files = chunks = tuple(stated.chunk_grid.configuration.chunk_shape)
    index = None
    codecs = [codec for codec in stated.codecs if isinstance(codec, Codec)]
    for outer in stated.codecs:
        if isinstance(outer, Sharding):
            chunks, index = tuple(outer.configuration.chunk_shape), outer.configuration.index_location
            codecs = outer.configuration.codecs
    default = stated.chunk_key_encoding.name == "default"
    separator = stated.chunk_key_encoding.configuration.separator or ("/" if default else ".")
    key = _key_pattern(f"c{separator}" if default else "", separator, len(stated.shape))
    names = _names(stated.dimension_names)
    return Layout(
        tuple(stated.shape), np.dtype(stated.data_type), chunks, files, names, key, _blosc_place(codecs), index
    )


def _names(stated: Any) -> tuple[str, ...] | None:
    known = isinstance(stated, list) and stated and all(isinstance(name, str) for name in stated)
    return tuple(stated) if known else None


def _key_pattern(prefix: str, separator: str, axes: int) -> re.Pattern[str]:
    return re.compile(re.escape(prefix) + re.escape(separator).join([r"(0|[1-9]\d{0,17})"] * axes))


def _blosc_place(codecs: list[Codec]) -> Literal["last", "before crc32c"] | None:
    """Where Blosc stands among a chunk's codecs; anywhere else its buffer could not be checked."""
    names = [codec.name for codec in codecs]
    if "blosc" not in names:
        return None
    if names.count("blosc") == 1 and names[-1] == "blosc":
        return "last"
    if names.count("blosc") == 1 and names[-2:] == ["blosc", "crc32c"]:
        return "before crc32c"
    raise DataError(f"has the codecs {', '.join(names)}; blosc is read as the last, or with crc32c behind it")
