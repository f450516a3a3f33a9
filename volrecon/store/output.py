"""An output appears whole or not at all: it is written beside its place and moved there when complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volrecon.errors import ConfigError, ResourceError


def is_ours(path: Path) -> bool:
    """Whether a folder is a Zarr store that volrecon wrote, whole or damaged, and not another writer's."""
    return path.is_dir() and (path / "zarr.json").is_file() and '"volrecon"' in _head(path / "zarr.json")


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
    beside, old = path.with_name(f".{path.name}.writing"), path.with_name(f".{path.name}.old")
    _put_back(old, path)
    check_free(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        yield beside
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.replace(old)
        beside.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        _put_back(old, path)
        shutil.rmtree(beside, ignore_errors=True)
        raise ResourceError(f"cannot write {path}: {error}. Nothing that stood there was changed.") from error
    except BaseException:
        _put_back(old, path)
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _put_back(old: Path, path: Path) -> None:
    """Undo a swap that stopped half-way, now or in an earlier process."""
    if old.exists() and not path.exists():
        old.replace(path)


def _head(path: Path, size: int = 2**16) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(size)
