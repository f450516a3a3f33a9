"""Opening and replacing files: every failure names the file, nothing is replaced by half of something."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volrecon.errors import ConfigError, DataError, ResourceError, VolreconError
from volrecon.swap import put_back, swapped


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make every failure inside one that a user can act on: a VolreconError whose message names `path`."""
    try:
        yield
    except VolreconError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error.__cause__
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise ResourceError(f"{path}: may not be read ({error.strerror})") from error
    except MemoryError:
        raise
    except Exception as error:
        # Parsers of other people's formats, fed a damaged file, fail with any class of exception there is.
        reason = f"{type(error).__name__}: {error}"[:300]
        raise DataError(f"{path}: damaged, or not what its name says ({reason})") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes `path` at the end and is removed when anything fails.

    Raises:
        ResourceError: the disk or the folder does not let us write.
    """
    partial = path.with_name(f".{path.name}.volrecon-partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def replacing_folder(path: Path, names: str) -> Iterator[Path]:
    """A new folder to write into, which becomes the folder `path` at the end and is removed when anything fails.

    Raises:
        ConfigError: `path` is there, and is anything but a folder of files whose names match the pattern `names`.
        ResourceError: the disk or the folder does not let us write.
    """
    if not path.parent.is_dir():
        raise ResourceError(f"{path}: cannot be written (there is no folder {path.parent})")
    try:
        put_back(path)
        ours = path.is_dir() and not path.is_symlink() and all(p.match(names) and p.is_file() for p in path.iterdir())
        if not ours and (path.exists() or path.is_symlink()):
            raise ConfigError(
                f"{path} exists and is no folder of {names} alone; it is left alone. Choose another name."
            )
        with swapped(path) as folder:
            folder.mkdir()
            yield folder
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error})") from error


def required(package: str) -> Any:
    """An optional package, or a ConfigError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"{package} is not installed; pip install 'volrecon[io]'") from error
