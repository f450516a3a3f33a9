"""Fault matrix with real processes: K1 (SIGKILL), K7 (SIGTERM), K11 (two at once), R1 (the same bytes in two)."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from faulty import LEFT, METHODS, TIERS, cases, committed, contents, write_small_scan
from processes import done_again, exit_code, killed_at_random, run_command, run_small, start, wait_for

COMMAND = ("run", "--scan", "scan.zarr", "--method", "cgls", "--out", "run", "--quiet")
COMMAND += ("--set", "method.iterations=4", "--set", "compute.tier=zarr", "--set", "compute.threads=1")


@pytest.fixture
def folder(tmp_path) -> Path:
    write_small_scan(tmp_path)
    return tmp_path


def whole_run(folder: Path, method: str, tier: str) -> tuple[dict[str, bytes], float]:
    """The files of an undisturbed run's volume, and how long its process took."""
    started = time.monotonic()
    assert exit_code(start(run_small, folder, method, tier)) == 0
    seconds = time.monotonic() - started
    expected = contents(folder / "run" / "volume.zarr")
    shutil.rmtree(folder / "run")
    return expected, seconds


def check_finished(folder: Path, expected: dict[str, bytes]) -> None:
    assert contents(folder / "run" / "volume.zarr") == expected
    assert sorted(p.name for p in (folder / "run").iterdir() if p.name != "state") == LEFT
    assert done_again(folder / "run") == []


def kill_rounds(folder: Path, method: str, tier: str, rounds: int) -> None:
    expected, seconds = whole_run(folder, method, tier)
    rng = random.Random(f"{method} {tier}")
    for _ in range(rounds):
        killed_at_random(folder, method, tier, seconds, rng)
        finished = (folder / "run" / "volume.zarr").exists() and not (folder / "run" / "unfinished.json").exists()
        code = exit_code(start(run_small, folder, method, tier))
        assert code == (1 if finished else 0)  # it says that the volume is there
        check_finished(folder, expected)
        shutil.rmtree(folder / "run")


def test_K1_SIGKILL_at_random_moments(folder):
    kill_rounds(folder, "cgls", "zarr", 2)


@pytest.mark.slow
@cases
def test_K1_SIGKILL_at_random_moments_everywhere(folder, method, tier):
    kill_rounds(folder, method, tier, 4)


def exit_at(folder: Path, method: str, tier: str, boundaries: list[int]) -> None:
    expected, _ = whole_run(folder, method, tier)
    for boundary in boundaries:
        assert exit_code(start(run_small, folder, method, tier, boundary)) == 9
    assert exit_code(start(run_small, folder, method, tier)) == 0
    check_finished(folder, expected)


def test_K1_gone_without_unwinding(folder):
    """Several times, one after the other; each goes on where the one before was committed."""
    exit_at(folder, "fdk", "zarr", [3, 12, 30, 41, 17])


@pytest.mark.slow
@cases
def test_K1_gone_without_unwinding_everywhere(folder, method, tier):
    exit_at(folder, method, tier, [2, 9, 16, 30, 17])


@pytest.mark.parametrize("method", ["cgls"])
def test_R1_the_same_bytes_in_two_processes_and_tiers(folder, method):
    assert METHODS[method]
    volumes = [whole_run(folder, method, tier)[0] for tier in (*TIERS, "zarr")]
    assert volumes[0] == volumes[1] == volumes[2]


def test_K7_SIGTERM_to_a_process(folder):
    process = start(run_command, folder, "first", *COMMAND)
    wait_for(folder / "paused")
    process.terminate()
    (folder / "go").touch()
    assert exit_code(process) == 130
    printed = (folder / "first").read_text()
    assert "stopped after step 2 (SIGTERM); its state is committed" in printed
    assert committed(folder / "run") == 2
    assert exit_code(start(run_command, folder, "second", *COMMAND)) == 0
    assert "Traceback" not in printed + (folder / "second").read_text()
    resumed = contents(folder / "run" / "volume.zarr")
    assert done_again(folder / "run") == []
    shutil.rmtree(folder / "run")
    assert exit_code(start(run_command, folder, "third", *COMMAND)) == 0
    assert contents(folder / "run" / "volume.zarr") == resumed


def test_K11_two_processes(folder):
    """The second is refused at once and harms nothing; the lock of a killed one is taken over."""
    first = start(run_command, folder, "first", *COMMAND)
    wait_for(folder / "paused")
    assert exit_code(start(run_command, folder, "second", *COMMAND, "--restart")) == 6
    printed = (folder / "second").read_text()
    assert f"is being written by process {first.pid} on " in printed
    assert committed(folder / "run") >= 1
    first.kill()
    assert exit_code(first) == -signal.SIGKILL
    (folder / "go").touch()
    assert exit_code(start(run_command, folder, "third", *COMMAND)) == 0
    assert "Traceback" not in printed + (folder / "third").read_text()
    assert done_again(folder / "run") == []
