"""What memory the process has, uses and may use."""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import torch

from volrecon.errors import ConfigError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
SHARE = 0.7
"""Of what is free, the part that a run takes when nothing is said."""

CGROUPS = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By controller as /proc/self/cgroup names it (version 2 has no name): the folder, and the files and the line in
memory.stat that tell the limit, what is used, and how much of that is files nobody waits for."""

MEMINFO, OWN_CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
OWN_PAGES = 2**20


def parsed_size(text: str) -> int:
    """Bytes of a size such as "2GiB", "800 MB" or "1e9".

    Raises:
        ConfigError: no size, or none above 0.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    try:
        size = int(float(match[1]) * UNITS[match[2] or ""]) if match else 0
    except (ValueError, OverflowError):
        size = 0
    if not 0 < size < 2**60:
        raise ConfigError(f"{text!r:.40} is no amount of memory; give one such as 2GiB or 800MB")
    return size


def shown_size(count: float) -> str:
    """Bytes as people read them."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.3g} {units[0]}" if count < 999.5 else f"{count:.0f} {units[0]}"


def free_memory() -> int:
    """Bytes that this process may still take: what its cgroup leaves of what the machine has."""
    try:
        available = _kilobytes(MEMINFO, "MemAvailable")
    except OSError:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min([available, *_left_by_cgroups()]), 0)


def _left_by_cgroups() -> Iterator[int]:
    """Bytes left by every cgroup that this process is in and that has a limit, parents included."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        for controller in controllers.split(","):
            if controller not in CGROUPS:
                continue
            root, limit, usage, files = CGROUPS[controller]
            # In a container the place may be the host's: then only the root is there.
            for folder in (Path(place), *Path(place).parents):
                yield from _left(Path(root + str(folder)), limit, usage, files)


def _left(cgroup: Path, limit: str, usage: str, files: str) -> Iterator[int]:
    try:
        most, used = (int((cgroup / name).read_text()) for name in (limit, usage))
        stat = (cgroup / "memory.stat").read_text()
    except (OSError, ValueError):  # no such cgroup, or "max"
        return
    given_back = re.search(rf"^{files} (\d+)", stat, re.MULTILINE)
    yield most - used + (int(given_back[1]) if given_back else 0)


def resident() -> int:
    """Bytes of this process in memory now."""
    try:
        return _kilobytes(Path("/proc/self/status"), "VmRSS")
    except OSError:
        return peak_resident()


def peak_resident() -> int:
    """The most bytes of this process that were in memory at once since it began."""
    with contextlib.suppress(OSError):  # getrusage would tell the peak of the process that started this one, if larger
        return _kilobytes(Path("/proc/self/status"), "VmHWM")
    most = getrusage(RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def give_back_freed() -> None:
    """Have the C library return large blocks to the system when they are freed.

    It would raise its threshold to the largest block it has seen and keep up to twice that; a plan must hold.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, OWN_PAGES)
        libc.mallopt(M_TRIM_THRESHOLD, OWN_PAGES)


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in whichever library's words."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _kilobytes(path: Path, name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB", path.read_text(), re.MULTILINE)
    return 1024 * int(match[1]) if match else 0
