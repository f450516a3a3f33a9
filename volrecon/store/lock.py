"""One writer for an output, on this machine and on others that see the same folder.

The kernel's lock on a file ends with its process, so a killed writer leaves none. Some network file systems keep such
locks to one machine: the file therefore also names its holder, who touches it while it lives.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volrecon.errors import LockedError, ResourceError
from volrecon.store.durable import writing

BEAT = 10.0
"""Seconds between two signs of life."""
DEAD = 90.0
"""Seconds without one after which a holder on another machine counts as gone."""
LARGEST = 4096
"""Bytes of a lock file."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which stays, empty, when it is given back.

    Raises:
        LockedError: another process holds it; its machine and number are named.
        ResourceError: the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ResourceError(f"cannot make the lock {path}: {error.strerror}") from error
    try:
        with writing(path, LARGEST):
            _acquire(descriptor, path)
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(descriptor, over), daemon=True)
        beat.start()
        try:
            yield
        finally:
            over.set()
            beat.join()
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path) -> None:
    kernel = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"{path.parent} is being written by {_holder(descriptor)}; wait for it, or stop it") from None
    except OSError:  # a file system without locks: only the sign of life is left
        kernel = False
    content = _content(descriptor)
    here = content.get("host") == socket.gethostname()
    gone = not content or (here and (kernel or not _runs(content.get("pid"))))
    quiet = 0.0 if gone else _now(path) - os.fstat(descriptor).st_mtime
    if not gone and quiet < DEAD:
        raise LockedError(
            f"{path.parent} is being written by {_holder(descriptor)}, which gave a sign of life {quiet:.0f} s ago; "
            f"wait for it, or, if it was killed, until that is {DEAD:.0f} s ago"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode(), 0)
    os.fsync(descriptor)


def _runs(pid: object) -> bool:
    """Whether a process of this machine exists."""
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()


def _beat(descriptor: int, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with contextlib.suppress(OSError):  # a network that is away for a while
            os.utime(descriptor)


def _now(path: Path) -> float:
    """The time as the file system of a path tells it: clocks of machines differ."""
    probe = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _holder(descriptor: int) -> str:
    content = _content(descriptor)
    return f"process {content.get('pid', '?')} on {content.get('host', 'an unknown machine')}"


def _content(descriptor: int) -> dict[str, object]:
    try:
        content = json.loads(os.pread(descriptor, LARGEST, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
