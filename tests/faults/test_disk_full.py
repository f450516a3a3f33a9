"""Fault matrix, the disk: full (K8), too small from the start (K9)."""

import errno
import os
import resource
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import BOUNDARIES, LEFT, at_boundaries, cases, committed, contents, fixed_plan, job, kill_after, run
from processes import exit_code, run_small, start

from volrecon.errors import ResourceError

Usage = namedtuple("Usage", "total used free")


def full_from(count: int, the_job, folder: Path) -> bool:
    """Run on a disk on which nothing fits any more from the so-manieth call on; whether that was noticed."""
    left = [count]

    def count_down(name: str) -> None:
        left[0] -= name in ("fsync", "writev", "replace", "mkdir")
        if left[0] < 0 and name not in ("unlink", "rmdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with at_boundaries(count_down, BOUNDARIES):
        try:
            run(the_job, folder)
        except ResourceError as error:
            refused = str(error)
        else:
            return False
    check_refusal(refused)
    return True


def check_refusal(message: str) -> None:
    """It names the place, and what was free."""
    assert "cannot" in message
    assert "/run" in message
    assert "No space left on device" in message
    assert any(word.isdigit() for word in message.split("free")[0].split()), message


def fill_up(folder: Path, undisturbed, the_job, stride: int) -> None:
    expected, _ = undisturbed(the_job)
    count, refused = 1, 0  # the run directory itself is there
    while full_from(count, the_job, folder):
        before = committed(folder / "run")
        steps = run(the_job, folder)  # after somebody made room
        assert steps == list(range(before + 1, before + 1 + len(steps)))
        assert contents(folder / "run" / "volume.zarr") == expected
        assert sorted(p.name for p in (folder / "run").iterdir()) == LEFT
        shutil.rmtree(folder / "run")
        count, refused = count + stride, refused + 1
    assert refused > 2


@pytest.mark.parametrize(("method", "tier"), [("fdk", "ram"), ("cgls", "zarr")])
def test_K8_a_disk_that_fills_up(small, undisturbed, method, tier):
    fill_up(small, undisturbed, job(method, tier), 23 if method == "fdk" else 120)


@pytest.mark.slow
@cases
def test_K8_a_disk_that_fills_up_anywhere(small, undisturbed, method, tier):
    fill_up(small, undisturbed, job(method, tier), {"fdk": 3, "cgls": 11, "tv": 19}[method])


def test_K8_the_final_volume(small, undisturbed, monkeypatch):
    the_job = job("cgls", "ram")
    expected, _ = undisturbed(the_job)

    def refuse(*arguments, **where):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("zarr.Array.__setitem__", refuse)
        with pytest.raises(ResourceError, match=r"volume\.zarr") as caught:
            run(the_job, small)
    check_refusal(str(caught.value))
    assert caught.value.exit_code == 5
    assert run(the_job, small) == []
    assert contents(small / "run" / "volume.zarr") == expected


def test_K8_the_log(small, undisturbed):
    the_job = job("cgls", "ram")
    expected, _ = undisturbed(the_job)
    log = kill_after(1, the_job, small) / "log.jsonl"
    log.unlink()
    log.symlink_to("/dev/full")
    with pytest.raises(ResourceError, match=r"log\.jsonl") as caught:
        run(the_job, small)
    check_refusal(str(caught.value))
    log.unlink()
    assert run(the_job, small) == [2, 3]
    assert contents(small / "run" / "volume.zarr") == expected


def run_limited(folder: Path, method: str, tier: str, limit: int) -> None:
    """No file may be larger: the system itself refuses. Ends with exit code 5, as the command line does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run_small(folder, method, tier)
    except ResourceError as error:
        (folder / "refused").write_text(str(error))
        raise SystemExit(error.exit_code) from None


def test_K8_refused_by_the_system(small):
    """For real: a chunk is cut off in its middle."""
    assert exit_code(start(run_limited, small, "cgls", "zarr", 6000)) == 5
    refused = (small / "refused").read_text()
    assert "File too large" in refused
    assert ".zarr/data/c." in refused
    assert run(job("cgls", "zarr"), small) == [1, 2, 3]


@pytest.fixture
def disks(monkeypatch):
    """disks(path=free bytes, ...): what is free under folders of these names."""

    def tell(**free: int) -> None:
        def usage(path):
            names = [name for name in free if name in Path(path).parts]
            return Usage(10**12, 0, free[names[-1]] if names else 10**12)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    return tell


def with_disk_needs(monkeypatch, scratch: int, output: int) -> None:
    def planned(checked):
        return replace(fixed_plan(checked), scratch=scratch, output=output)

    monkeypatch.setattr("volrecon.engine.running.planned", planned)


def test_K9_not_enough_space_is_refused_before_computing(small, monkeypatch, disks):
    """With the estimate; the same command runs when there is room."""
    with_disk_needs(monkeypatch, scratch=5 * 2**30, output=2**30)
    the_job = job("cgls", "zarr")
    with monkeypatch.context() as patched:
        patched.setattr("volrecon.engine.running.solve", lambda *arguments: pytest.fail("it computes"))
        disks(run=6 * 2**30 - 1)
        for _ in range(2):
            with pytest.raises(ResourceError, match=r"6 GiB of disk are needed in .*run, 6 GiB are free") as caught:
                run(the_job, small)
            assert caught.value.exit_code == 5
    disks(run=6 * 2**30)
    assert run(the_job, small) == [1, 2, 3]


def test_K9_scratch_on_another_disk(small, monkeypatch, disks):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == small.stat().st_dev:
        pytest.skip("there is one disk only")
    with_disk_needs(monkeypatch, scratch=500, output=100)
    the_job = job("cgls", "zarr", scratch=str(other / "volrecon-tests"))
    disks(shm=499, run=100)
    with pytest.raises(ResourceError, match=r"500 B of disk are needed in .*shm, 499 B are free"):
        run(the_job, small)
    disks(shm=500, run=99)
    with pytest.raises(ResourceError, match=r"100 B of disk are needed in .*run, 99 B are free"):
        run(the_job, small)
    disks(shm=500, run=100)
    try:
        assert run(the_job, small) == [1, 2, 3]
        assert list((other / "volrecon-tests").iterdir()) == []
    finally:
        shutil.rmtree(other / "volrecon-tests", ignore_errors=True)
