"""A folder that is written beside its place and swapped in whole, without touching what others put there."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volrecon.errors import ConfigError

MARKER = "temporary-folder-of-volrecon"


@contextmanager
def swapped(path: Path) -> Iterator[Path]:
    """A name to write a folder under, which takes the place of `path` when the block ends without an error.

    Both the new folder and, for a moment, the old one lie in `.NAME.volrecon` beside it. Call `put_back` before.
    """
    work = _work(path)
    old, new = work / "old", work / "new"
    try:
        _clear(path)
        work.mkdir(parents=True)
        (work / MARKER).touch()
        yield new
        if path.exists():
            path.replace(old)
        new.replace(path)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        _clear(path)


def put_back(path: Path) -> None:
    """Undo a swap of an earlier process that stopped half-way.

    Raises:
        ConfigError: something that volrecon did not make lies where the swap takes place.
    """
    work = _work(path)
    if not work.exists() and not work.is_symlink():
        return
    if work.is_dir() and not work.is_symlink() and not any(work.iterdir()):
        work.rmdir()
        return
    if work.is_symlink() or not (work / MARKER).is_file():
        raise ConfigError(f"{work} is in the way, and volrecon did not make it; move it, or choose another output")
    if (work / "old").exists() and not path.exists():
        (work / "old").replace(path)


def _work(path: Path) -> Path:
    return path.with_name(f".{path.name}.volrecon")


def _clear(path: Path) -> None:
    work = _work(path)
    if not (work / MARKER).is_file():
        return
    # The marker goes last: killed on the way, the rest is still known to be volrecon's.
    for inside in (work / "old", work / "new"):
        shutil.rmtree(inside, ignore_errors=True)
    with contextlib.suppress(OSError):
        (work / MARKER).unlink()
        work.rmdir()
