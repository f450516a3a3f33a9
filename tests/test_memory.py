"""What memory the process has, uses and may use."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from volrecon import memory
from volrecon.errors import ConfigError
from volrecon.memory import free_memory, give_back_freed, parsed_size, peak_resident, ran_out, resident, shown_size

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * GIB),
        ("2 gib", 2 * GIB),
        (" 1.5 GiB ", 3 * GIB // 2),
        ("800MB", 800 * 10**6),
        ("800M", 800 * 10**6),
        ("800MiB", 800 * MIB),
        ("64k", 64_000),
        ("1TiB", 2**40),
        ("1e9", 10**9),
        ("1e3KiB", 1000 * 1024),
        ("123", 123),
        ("7B", 7),
        (".5K", 500),
    ],
)
def test_sizes(text, size):
    assert parsed_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GiB",
        "0",
        "0.4",
        "-1GiB",
        "nan",
        "inf",
        "1e999",
        "9" * 400,
        "2 GiB 3",
        "2XB",
        "1.2.3",
        ".",
        "2GiBs",
        "٣GiB",
        "1\0",
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match=r"is no amount of memory; give one such as 2GiB") as caught:
        parsed_size(text)
    assert len(str(caught.value)) < 150


@given(st.integers(1, 2**59))
def test_what_is_shown_can_be_given(size):
    """To the three figures that are shown."""
    text = shown_size(size)
    assert len(text) <= 10
    assert parsed_size(text) == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (1000 * MIB, "1000 MiB"),
    ],
)
def test_shown(size, text):
    assert shown_size(size) == text


class System:
    """Made-up /proc and /sys files."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        roots = {name: (str(folder / f"sys{name}"), *rest[1:]) for name, rest in memory.CGROUPS.items()}
        monkeypatch.setattr(memory, "CGROUPS", roots)
        monkeypatch.setattr(memory, "MEMINFO", folder / "meminfo")
        monkeypatch.setattr(memory, "OWN_CGROUPS", folder / "cgroup")
        (folder / "meminfo").write_text("MemTotal:       99999999 kB\nMemAvailable:    8388608 kB\n")

    def member(self, *lines: str) -> None:
        (self.folder / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def group(self, place: str, limit: str, used: int, files: int = 0) -> None:
        """Version 2."""
        folder = self.folder / "sys" / place.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\nactive_file 7\n")


@pytest.fixture
def system(tmp_path, monkeypatch) -> System:
    return System(tmp_path, monkeypatch)


def test_without_cgroups_all_that_is_available(system):
    assert free_memory() == 8 * GIB


@pytest.mark.parametrize("limit", ["max", str(64 * GIB)])
def test_a_cgroup_without_a_limit_below_it(system, limit):
    system.member("0::/job")
    system.group("/job", limit, 1 * GIB)
    assert free_memory() == 8 * GIB


def test_what_the_cgroup_leaves(system):
    system.member("0::/job")
    system.group("/job", str(2 * GIB), GIB // 2)
    assert free_memory() == 3 * GIB // 2


def test_cached_files_are_given_back(system):
    """Scratch that was read and written fills the cgroup with pages that go when they are needed."""
    system.member("0::/job")
    system.group("/job", str(2 * GIB), 2 * GIB, files=GIB)
    assert free_memory() == GIB


def test_a_limit_further_up_holds_too(system):
    """As batch systems set it, on the job and not on the step the process is in."""
    system.member("0::/slurm/job_7/step_0/task_0")
    system.group("/slurm/job_7/step_0/task_0", "max", 100)
    system.group("/slurm/job_7", str(3 * GIB), GIB)
    assert free_memory() == 2 * GIB


def test_in_a_container_only_the_root_is_seen(system):
    system.member("0::/docker/1234")
    system.group("/", str(GIB), GIB // 4)
    assert free_memory() == 3 * GIB // 4


def test_version_1(system):
    folder = system.folder / "sysmemory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{GIB // 2}\n")
    (folder / "memory.stat").write_text(f"inactive_file 3\ntotal_inactive_file {GIB // 4}\n")
    system.member("9:cpu,cpuacct:/other", "4:memory:/job", "0::/")
    assert free_memory() == 3 * GIB // 4


def test_a_cgroup_that_is_full(system):
    system.member("0::/job")
    system.group("/job", str(GIB), 2 * GIB)
    assert free_memory() == 0


def test_a_system_that_tells_nothing(system, monkeypatch):
    (system.folder / "meminfo").unlink()
    assert 2**20 < free_memory() < 2**50


def test_this_process():
    assert 10 * MIB < resident() <= peak_resident() < 2**40
    assert 0 < free_memory() < 2**50


def test_the_peak_stays():
    before = peak_resident()
    block = np.ones(max(before - resident(), 0) + 64 * MIB, np.uint8)
    grown = peak_resident()
    assert grown >= before + 32 * MIB
    del block
    assert peak_resident() >= grown - MIB  # the kernel counts pages of every thread in lots


def test_the_peak_is_the_process_own(monkeypatch):
    """Not that of the one which started it, as getrusage may tell."""
    monkeypatch.setattr(memory, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2**50))
    assert peak_resident() < 2**40


def test_freed_blocks_go_back():
    give_back_freed()
    torch.ones(30 * MIB // 4)
    before = resident()
    blocks = [torch.ones(4 * MIB // 4) for _ in range(16)]
    assert resident() > before + 32 * MIB
    del blocks
    assert resident() < before + 24 * MIB


@pytest.mark.parametrize("make", [lambda: torch.empty(2**58), lambda: np.empty(2**58), lambda: np.full(2**50, 1.0)])
def test_memory_that_runs_out(make):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        make()
    assert ran_out(caught.value)


def test_memory_that_runs_out_on_a_device():
    assert ran_out(torch.cuda.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), OSError(12, "x")]
)
def test_other_errors(error):
    assert not ran_out(error)
