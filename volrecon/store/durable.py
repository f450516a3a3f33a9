"""Files that survive: written whole under another name, synced, renamed, and their folder synced."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from volrecon.errors import IntegrityError, ResourceError

PARTIAL = ".partial"
"""How a file ends while it is written; what a killed process left of one is removed, never read."""


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, also after a crash.

    Raises:
        ResourceError: the disk is full or refuses.
    """
    data = text.encode("utf-8")
    partial = path.with_name(f".{path.name}{PARTIAL}")
    with writing(path, len(data)):
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)


def replace_sealed(path: Path, content: dict[str, Any]) -> None:
    """`replace_text` of a table as JSON, with its sha256; floats come back bit for bit, tuples as lists."""
    replace_text(path, json.dumps(_sealed(content), indent=1, sort_keys=True) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """What `replace_sealed` wrote.

    Raises:
        IntegrityError: it is unreadable, or not what was written.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop("sha256", None)
        whole = seal == _sealed(content)["sha256"]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged: {error}") from error
    if not whole:
        raise IntegrityError(f"{path} is damaged: its sha256 is not that of its content")
    return content


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(content, sort_keys=True)
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def sync_file(path: Path) -> None:
    """Have the disk keep a file's bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have the disk keep the names in a folder, where its file system can."""
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.ENOTSUP):
            raise


def sync_tree(folder: Path) -> None:
    """Have the disk keep everything in a folder: files first, then the folders that name them, outermost last."""
    for inner, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_file(Path(inner, name))
        sync_folder(Path(inner))


@contextmanager
def writing(path: Path, count: int) -> Iterator[None]:
    """Turn what a file system says no with into a ResourceError that gives the numbers.

    Args:
        count: bytes that were to be written.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {path}: {error.strerror or error}; {count} bytes were needed, {free_bytes(path)} are free "
            f"there. What was committed before is untouched: free some space and give the same command again."
        ) from error


def free_bytes(path: Path) -> str:
    """What is free where a path is, or would be; in words where that is unknown."""
    for folder in path.parents:
        if folder.exists():
            return str(shutil.disk_usage(folder).free)
    return "an unknown number"
