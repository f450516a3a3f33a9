"""One writer an output: the kernel's lock, and a sign of life where that does not reach (row K11)."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volrecon.errors import LockedError, ResourceError
from volrecon.store import lock as module
from volrecon.store.lock import DEAD, locked

HERE = socket.gethostname()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / ".lock"


@pytest.fixture(autouse=True)
def _folder(path):
    path.parent.mkdir()


def held_by(path, host: str, pid: int, seconds_ago: float = 0.0) -> None:
    """A lock file as its holder left it."""
    path.write_text(json.dumps({"host": host, "pid": pid}))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def no_kernel_locks(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)


def test_K11_a_second_writer_is_refused_at_once(path):
    with locked(path):
        started = time.monotonic()
        with (
            pytest.raises(LockedError, match=rf"{path.parent} .*process {os.getpid()} on {HERE}") as caught,
            locked(path),
        ):
            pytest.fail("two writers")
        assert time.monotonic() - started < 10  # a busy machine
        assert caught.value.exit_code == 6


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("ends", [time.monotonic, interrupted])
def test_given_back(path, ends):
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt), locked(path):
            ends()
        assert [p.name for p in path.parent.iterdir()] == [".lock"]
        assert path.read_bytes() == b""


def test_K11_the_lock_of_a_killed_process_of_this_machine_is_taken_over(path, dead_pid):
    held_by(path, HERE, dead_pid)
    with locked(path):
        assert json.loads(path.read_text()) == {"host": HERE, "pid": os.getpid()}


def test_the_kernel_knows_better_than_a_number_that_was_given_again(path):
    held_by(path, HERE, os.getppid())  # runs, but is another process by now
    with locked(path):
        pass


def test_K11_a_holder_on_another_machine(path):
    held_by(path, "elsewhere", 12, seconds_ago=40)
    with pytest.raises(LockedError, match=r"process 12 on elsewhere.* 40 s ago.*90 s") as caught, locked(path):
        pytest.fail("two writers")
    assert caught.value.exit_code == 6
    assert json.loads(path.read_text())["host"] == "elsewhere"
    held_by(path, "elsewhere", 12, seconds_ago=DEAD + 2)
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert [p.name for p in path.parent.iterdir()] == [".lock"]


def test_another_clock_changes_nothing(path, monkeypatch):
    """Age is told by the clock of the file system, not by this machine's."""
    held_by(path, "elsewhere", 12, seconds_ago=5)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(LockedError, match="elsewhere"), locked(path):
        pass


@pytest.mark.usefixtures("no_kernel_locks")
def test_without_kernel_locks_a_running_process_holds(path, dead_pid):
    with locked(path), pytest.raises(LockedError, match=f"process {os.getpid()}"), locked(path):
        pass
    held_by(path, HERE, dead_pid)
    with locked(path):
        pass
    held_by(path, HERE, os.getpid(), seconds_ago=DEAD + 2)  # the number was given to us since
    with locked(path):
        pass


def test_signs_of_life(path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    failures = []
    utime = os.utime

    def now_and_then(*arguments):
        if len(failures) < 2:
            failures.append(1)
            raise OSError(errno.ESTALE, "Stale file handle")
        utime(*arguments)

    with locked(path):
        utime(path, (0, 0))
        monkeypatch.setattr("os.utime", now_and_then)
        for _ in range(500):
            if path.stat().st_mtime > 1e9:
                break
            time.sleep(0.01)
        assert path.stat().st_mtime > 1e9
    assert len(failures) == 2
    utime(path, (0, 0))
    time.sleep(0.05)
    assert path.stat().st_mtime == 0


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=80), st.sampled_from([b"[]", b"3", b'{"pid": "x"}', b'{"host": ["a"]}'])))
def test_whatever_stands_in_it(path, content):
    """Taken, or refused by name; never another error."""
    path.write_bytes(content)
    with contextlib.suppress(LockedError), locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_no_place_for_a_lock(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="lock"), locked(tmp_path / "file" / ".lock"):
        pass


@pytest.mark.parametrize("call", ["pwrite", "fsync", "ftruncate"])
def test_K8_a_full_disk(path, monkeypatch, call):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(ResourceError, match=r"\.lock: No space left.* free"), locked(path):
            pass
    with locked(path):
        pass
