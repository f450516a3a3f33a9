"""Looking into an HDF5 file without leaving it: no other file is opened, and nothing missing reads as a value."""

import itertools
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import DataError, ResourceError
from volrecon.formats.base import LARGEST_IN_MEMORY
from volrecon.formats.files import required

MOST_OBJECTS = 10_000
MOST_SOFT_LINKS = 16
LARGEST_SMALL = 64 * 2**20


def opened(path: Path) -> Any:
    """The h5py file, for reading only.

    Raises:
        ResourceError: another process has it open for writing.
    """
    try:
        return required("h5py").File(path, "r")
    except BlockingIOError as error:
        raise ResourceError(f"{path}: another process is writing it; wait until it is closed ({error})") from error


def tree(file: Any, deepest: int = 16) -> dict[str, Any]:
    """Objects by their shortest path, at most 10000: groups, datasets, and links to other files as such."""
    h5py = required("h5py")
    found: dict[str, Any] = {}
    groups = deque([("", file, 1)])
    seen = {file}
    while groups:
        path, group, depth = groups.popleft()
        for name in itertools.islice(group, MOST_OBJECTS - len(found)):
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found[f"{path}/{name}"] = link
            if not isinstance(link, h5py.HardLink) or (item := group[name]) in seen:
                continue
            seen.add(item)
            found[f"{path}/{name}"] = item
            if isinstance(item, h5py.Group) and depth < deepest:
                groups.append((f"{path}/{name}", item, depth + 1))
    return found


def linked(group: Any, path: str) -> Any | None:
    """The object at a path, absolute or from `group`; None where there is none.

    Raises:
        DataError: the way leads to another file, nowhere, or in circles.
    """
    h5py = required("h5py")
    here = group.file["/"] if path.startswith("/") else group
    names, followed = deque(path.split("/")), 0
    while names:
        name = names.popleft()
        if name in ("", "."):
            continue
        link = here.get(name, getlink=True) if isinstance(here, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{path!r:.200} lies in another file, {link.filename!r:.200}; links to other files are not followed. "
                f"Import that file, or copy the data into this one."
            )
        if isinstance(link, h5py.SoftLink):
            followed += 1
            if followed > MOST_SOFT_LINKS:
                raise DataError(f"{path!r:.200} leads over more than {MOST_SOFT_LINKS} soft links: they go in circles")
            here = group.file["/"] if link.path.startswith("/") else here
            names.extendleft(reversed(link.path.split("/")))
        elif link is not None:
            here = here[name]
        elif followed:
            raise DataError(f"{path!r:.200} is a soft link to something that the file does not hold ({name!r:.200})")
        else:
            return None
    return here


def dataset(group: Any, path: str) -> Any | None:
    """The dataset of numbers at a path, checked by `check_numbers`; None where there is none."""
    found = linked(group, path)
    if found is None:
        return None
    if not isinstance(found, required("h5py").Dataset):
        raise DataError(f"{path!r:.200} is not a dataset")
    check_numbers(found)
    return found


def check_numbers(data: Any) -> None:
    """Refuse a dataset that is not numbers, that this file does not wholly hold, or that h5py cannot unpack."""
    name = f"{data.name!r:.200}"
    if data.shape is None or data.dtype.kind not in "iuf":
        raise DataError(f"{name} has shape {data.shape} of {data.dtype}; expected integers or floats")
    check_inside(data, name)
    layout, expected = data.id.get_create_plist(), math.prod(data.shape) * data.dtype.itemsize
    if data.chunks is None:
        if (held := data.id.get_storage_size()) != expected:
            raise DataError(f"{name} claims shape {data.shape}, {expected} bytes, but the file holds {held}")
        return
    for index in range(layout.get_nfilters()):
        _check_filter(name, layout.get_filter(index))
    if (size := math.prod(data.chunks) * data.dtype.itemsize) > LARGEST_IN_MEMORY:
        raise DataError(f"{name} has chunks {data.chunks} of {size} bytes; the limit is {LARGEST_IN_MEMORY}")
    # A chunk that was never written reads as the fill value without an error.
    chunks = math.prod(-(-n // chunk) for n, chunk in zip(data.shape, data.chunks, strict=True))
    if (held := data.id.get_num_chunks()) != chunks:
        raise DataError(f"{name} is not whole: {held} of its {chunks} chunks were written")
    if (stored := data.id.get_storage_size()) > (size := data.file.id.get_filesize()):
        raise DataError(f"{name} claims {stored} bytes of chunks in a file of {size}")


def check_inside(data: Any, name: str) -> None:
    """Refuse a dataset whose values lie elsewhere."""
    if data.is_virtual:
        raise DataError(
            f"{name} is a virtual dataset: its values lie in other datasets or files, which are not followed. "
            f"Copy the values into one file."
        )
    if data.external:
        files = ", ".join(repr(entry[0]) for entry in data.external)
        raise DataError(f"{name} keeps its values in other files, {files:.200}, which are not opened")


def _check_filter(name: str, stored: tuple[int, int, tuple[int, ...], bytes]) -> None:
    code, _, _, title = stored
    if not required("h5py").h5z.filter_avail(code):
        raise DataError(
            f"{name} is compressed with the filter {code} {title!r:.60}, which is not installed; repack the file with "
            f"h5repack -f GZIP=4, or install the filter's HDF5 plugin"
        )


def numbers(data: Any) -> np.ndarray:
    """All values of a small checked dataset as float64 (n,).

    Raises:
        DataError: more than one axis, or larger than 64 MiB.
    """
    if data.ndim > 1 or data.size * data.dtype.itemsize > LARGEST_SMALL:
        raise DataError(f"{data.name!r:.200} has shape {data.shape} of {data.dtype}; expected a list of numbers")
    return np.atleast_1d(data[()]).astype(np.float64)
