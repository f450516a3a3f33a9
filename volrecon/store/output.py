"""An output appears whole or not at all: it is written beside its place and moved there when complete."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from volrecon.errors import ConfigError, ResourceError
from volrecon.store.durable import free_bytes, sync_folder, sync_tree
from volrecon.swap import put_back, swapped

LARGEST_METADATA = 64 * 2**20


def is_ours(path: Path) -> bool:
    """Whether a folder is a Zarr store that volrecon wrote, and not another writer's."""
    if not path.is_dir() or not (path / "zarr.json").is_file():
        return False
    attributes = _attributes(path / "zarr.json")
    return isinstance(attributes, dict) and isinstance(attributes.get("volrecon"), dict)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over anything but a Zarr group of ours, and over that only when asked."""
    if "\0" in str(path):
        raise ConfigError("the output path contains a NUL character")
    if path.is_symlink():
        raise ConfigError(f"{path} is a symbolic link; name the real place")
    if not path.exists():
        return
    if not is_ours(path):
        raise ConfigError(f"{path} exists and was not written by volrecon; it is left alone. Choose another --out.")
    if not overwrite:
        raise ConfigError(f"{path} exists and is complete; pass --overwrite to replace it, or choose another --out")


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `path` to write into; it takes the place of `path` when the block ends without an error."""
    if path.name in ("", ".."):
        raise ConfigError(f"{path} names a folder that is there already, not an output; give it a name")
    check_outside(path)
    try:
        put_back(path)
        check_free(path, overwrite)
        with swapped(path) as folder:
            yield folder
            sync_tree(folder)
        sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error}; {free_bytes(path)} bytes are free there. Nothing that stood there was "
            f"changed."
        ) from error


def check_outside(path: Path) -> None:
    """Refuse an output inside a store of ours: it would be lost with the store, and spoil it."""
    store = next((parent for parent in path.absolute().parents if is_ours(parent)), None)
    if store is not None:
        raise ConfigError(f"{path} lies inside {store}, a store of volrecon; choose a place beside it")


def _attributes(path: Path) -> Any:
    """The attributes of a Zarr group as they stand in its metadata; None where these are unreadable."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return json.loads(file.read(LARGEST_METADATA)).get("attributes")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
