"""Fault matrix, memory: it runs out and the run goes on (M1, M4), does not fit (M2), is refused before (M3)."""

import json
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from balls import GRID
from faulty import BLOCK_BYTES, CHUNK, METHODS, TIERS, contents, job, run

from volrecon import engine
from volrecon.errors import ResourceError, StorageWarning
from volrecon.plan import make_plan
from volrecon.solvers import METHODS as ALGORITHMS
from volrecon.store import Generations, open_volume

LARGE = 2 * BLOCK_BYTES
"""Blocks of two chunks; BLOCK_BYTES are one."""
ERRORS = {
    "host": MemoryError(),
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    "device": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
}


@dataclass
class Shortage:
    """Memory that runs out while blocks are higher than some slices.

    Attributes:
        height: slices of a block that still fit.
        heights: of every attempt.
        lost: what the failed attempts held.
        kept_alive: how much of that was alive when the next attempt began.
    """

    height: int
    error: Exception
    heights: list[int] = field(default_factory=list)
    lost: list[weakref.ref] = field(default_factory=list)
    kept_alive: list[int] = field(default_factory=list)

    def hits(self, space) -> None:
        self.kept_alive.append(sum(ref() is not None for ref in self.lost))
        self.heights.append(space.height(GRID.shape))
        if self.heights[-1] > self.height:
            held = [torch.ones(1000), space.zeros((3, 4, 4)), np.ones(1000)]
            self.lost += [weakref.ref(one) for one in held]
            raise type(self.error)(*self.error.args)


@pytest.fixture
def short(small, monkeypatch):
    """short(method, part, height, at=step): memory runs out in prepare, init or a step of a method."""

    def begin(method: str, part: str, height: int = CHUNK, at: int = 0, error: str = "host") -> Shortage:
        kind = ALGORITHMS[METHODS[method]["recipe"]]
        shortage, whole = Shortage(height, ERRORS[error]), getattr(kind, part)

        def wrapped(self, given, *state):
            if not state or state[0].step == at:
                shortage.hits(given.space)
            return whole(self, given, *state)

        monkeypatch.setattr(kind, part, wrapped)
        return shortage

    monkeypatch.setattr("faulty.BLOCK_BYTES", LARGE)
    return begin


def volume(folder, name: str = "run") -> np.ndarray:
    return open_volume(folder / name / "volume.zarr").data[:]


def with_small_blocks(the_job, small, monkeypatch) -> dict[str, bytes]:
    """The files of a run that had small blocks all along."""
    with monkeypatch.context() as patched:
        patched.setattr("faulty.BLOCK_BYTES", BLOCK_BYTES)
        run(the_job.model_copy(update={"out": "thin"}), small)
    return contents(small / "thin" / "volume.zarr")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", METHODS)
def test_M1_from_the_start(small, short, monkeypatch, method, error):
    """Blocks halve until they fit; the volume is that of small blocks, bit for bit."""
    the_job = job(method, "ram")
    expected = with_small_blocks(the_job, small, monkeypatch)
    shortage = short(method, "prepare", error=error)
    with pytest.warns(StorageWarning, match=r"memory ran out with blocks of 0\.0156 MiB; going on with 0\.00781 MiB"):
        run(the_job, small)
    assert shortage.heights == [2 * CHUNK, CHUNK]
    assert shortage.kept_alive == [0, 0]  # row M4
    assert contents(small / "run" / "volume.zarr") == expected


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("method", "part", "at"), [("cgls", "init", 0), ("cgls", "step", 1), ("tv", "step", 1)])
def test_M1_on_the_way(small, short, monkeypatch, tier, method, part, at):
    """What was done stays; the rest, in smaller blocks, changes only the rounding. The next commit knows them."""
    the_job, committed = job(method, tier), []
    run(the_job.model_copy(update={"out": "undisturbed"}), small)
    commit = Generations.commit
    noted = lambda self, g: (committed.append(g.about["block_bytes"]), commit(self, g))  # noqa: E731
    monkeypatch.setattr(Generations, "commit", noted)
    shortage = short(method, part, at=at)
    with pytest.warns(StorageWarning, match="memory ran out"):
        steps = run(the_job, small)
    assert steps == list(range(1, len(steps) + 1))
    assert shortage.kept_alive == [0, 0]
    small_ones = len(steps) - at
    assert committed == [LARGE] * at + [BLOCK_BYTES] * small_ones
    expected = volume(small, "undisturbed")
    np.testing.assert_allclose(volume(small), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_M1_a_resumed_run_begins_with_what_fitted(small, short):
    the_job = job("cgls", "zarr")
    shortage = short("cgls", "step", at=1)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.warns(StorageWarning, match="memory ran out"), pytest.raises(KeyboardInterrupt):
        engine.run(engine.check(the_job, small), stop)
    del shortage.heights[:]
    heights = []
    short("cgls", "step", at=2).heights = heights
    assert run(the_job, small) == [3]
    assert heights == [CHUNK]


@pytest.mark.parametrize("part", ["prepare", "init", "step"])
def test_M2_the_smallest_blocks_do_not_fit(small, short, part):
    """An end, not a loop; the message has the numbers, and what to do."""
    shortage = short("cgls", part, height=0)
    message = r"\(20, 16, 16\) with blocks of 8 slices, the smallest.*compute\.tier = 'zarr'"
    with pytest.warns(StorageWarning, match="memory ran out"), pytest.raises(ResourceError, match=message) as caught:
        run(job("cgls", "ram"), small)
    assert caught.value.exit_code == 5
    assert shortage.heights == [2 * CHUNK, CHUNK]
    assert not (small / "run" / "volume.zarr").exists()


def test_M2_on_the_command_line(small, short, cli):
    short("cgls", "step", height=0)
    options = ["--set", "compute.tier=ram", "--quiet"]
    printed = cli("run", "--scan", "scan.zarr", "--method", "cgls", "--out", "run", *options, code=5)
    assert "the smallest" in printed


def test_other_errors_are_not_taken_for_it(small, short, monkeypatch):
    monkeypatch.setitem(ERRORS, "shape", RuntimeError("shapes differ"))
    shortage = short("cgls", "step", height=0, error="shape")
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(job("cgls", "ram"), small)
    assert len(shortage.heights) == 1


@pytest.mark.parametrize("tier", ["auto", "ram", "zarr"])
def test_M3_a_plan_over_the_budget_is_refused_before_anything_is_computed(tmp_path, write_ball, cli, monkeypatch, tier):
    """And the refusal leaves a place where the same command goes on with more."""
    write_ball(views=6)
    monkeypatch.setattr("volrecon.engine.running.solve", lambda *arguments: pytest.fail("it computes"))
    command = ["--scan", "scan.zarr", "--method", "cgls", "--out", "run", "--set", f"compute.tier={tier}"]
    for name in ("plan", "run"):
        printed = cli(name, *command, "--memory", "64MiB", code=5)
        assert "are needed at least" in printed
        assert "the budget is 64 MiB" in printed
    assert "tier" in cli("plan", *command, "--memory", "8GiB")
    assert not (tmp_path / "run" / "unfinished.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    engine.run(engine.check(job("fdk", "ram"), tmp_path))


def test_less_memory_than_it_was_begun_with(small, monkeypatch):
    """A run that the system killed for its memory goes on, with --memory, in what there is."""
    the_job = job("cgls", "ram")

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(engine.check(the_job, small), stop)
    note = json.loads((small / "run" / "unfinished.json").read_text())
    assert note["how"]["tier"] == "ram"
    run(the_job.model_copy(update={"out": "undisturbed"}), small)
    monkeypatch.undo()
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", CHUNK)
    planned = []

    def on_disk(method, measurement, budget, tiers, block_bytes):
        planned.append(make_plan(method, measurement, 2**40, ["zarr"], BLOCK_BYTES))
        return planned[-1]

    monkeypatch.setattr("volrecon.engine.planning.make_plan", on_disk)
    monkeypatch.setattr("volrecon.engine.running.parsed_size", lambda text: note["how"]["planned_memory"] - 1)
    compute = the_job.compute.model_copy(update={"memory": "1GiB", "tier": "auto"})
    assert run(the_job.model_copy(update={"compute": compute}), small) == [3]
    assert len(planned) >= 1
    expected = volume(small, "undisturbed")
    np.testing.assert_allclose(volume(small), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
