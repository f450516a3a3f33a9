"""A method run on nothing: what it will hold is counted, and nothing of it stays."""

import random
import time
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from balls import MU, small_scan

from volrecon.geometry import VolumeGeometry
from volrecon.rehearsal import Pass, rehearse
from volrecon.solvers import METHODS, Info, Measurement, Method, State
from volrecon.store import ZarrSpace
from volrecon.store import scratch as scratch_module
from volrecon.store.scratch import ZarrVolume
from volrecon.volume import RamSpace, RamVolume, slice_dots, sweep

GRID = VolumeGeometry((64, 128, 128), (1.0, 0.5, 0.5))
SLICE = 128 * 128 * 4
VOLUME = 64 * SLICE
NOISE = 48 * 1024
"""Bytes of Python's own objects."""


class Doubling(Method):
    """x' = 2 x, seven times; a block is read, doubled and written."""

    kind = "iterative"
    kept: int = 0

    def check(self, scan, volume, backend) -> None:
        pass

    def prepare(self, measurement):
        return measurement.space, np.ones(self.kept, np.uint8), torch.ones(self.kept // 4)

    def init(self, problem) -> State:
        return State(0, {"x": problem[0].zeros(GRID.shape)})

    def step(self, problem, state) -> tuple[State, Info]:
        out = problem[0].empty(GRID.shape)
        sweep(problem[0], self.double, [state["x"]], [out])
        return State(state.step + 1, {"x": out}), Info()

    def double(self, slab, x):
        return [x * 2], [slice_dots(x, x)]

    def steps(self, problem) -> int:
        return 7


class ByNumpy(Doubling):
    """The same with NumPy, whose memory torch then shows."""

    def double(self, slab, x):
        return [torch.from_numpy(np.multiply(x.numpy(), 2))], []


class Wasteful(Doubling):
    """Three blocks at a time besides the result."""

    def double(self, slab, x):
        a = x + 1
        b = np.add(a.numpy(), 1)
        return [a + (x - torch.from_numpy(b))], []


def measurement(beam: str = "cone", views: int = 4, grid: VolumeGeometry = GRID) -> Measurement:
    scan = small_scan(beam, views)
    return Measurement(RamVolume(torch.zeros(scan.shape)), scan, grid, RamSpace(), 2 * MU)


def passes(method: Method, on_disk: bool, height: int = 4) -> list[Pass]:
    rehearse(method, measurement(), height, on_disk)  # what is compiled is loaded, what is imported is there
    return rehearse(method, measurement(), height, on_disk).passes


@pytest.mark.parametrize(
    ("method", "on_disk", "start", "step"),
    [
        (Doubling(), False, 1, 1),  # the zeros, or the doubled block; what is read is there anyway
        (Doubling(), True, 5, 4),  # four waiting to be written and one made; two read, one waiting, one made
        (ByNumpy(), False, 1, 1),
        (ByNumpy(), True, 5, 4),
        (Wasteful(), False, 1, 4),
        (Wasteful(), True, 5, 7),
    ],
)
def test_blocks_counted_by_hand(method, on_disk, start, step):
    first, second = passes(method, on_disk)
    assert (first.phase, second.phase) == ("start", "step")
    assert VOLUME <= first.held <= second.held == 2 * VOLUME
    assert (first.height, first.shape) == (4, GRID.shape)
    assert first.work == pytest.approx(start * 4 * SLICE, abs=NOISE)
    assert second.work == pytest.approx(step * 4 * SLICE, abs=NOISE)
    assert first.seconds > 0


def test_what_it_tells_of_the_method():
    told = rehearse(Doubling(), measurement(), 4, on_disk=False)
    assert (told.state, told.steps) == (VOLUME, 7)


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_a_problem_keeps_counts_in_every_pass(on_disk):
    """A trained network, for one: it is not there yet when the plan is made."""
    plain, keeping = passes(Doubling(), on_disk), passes(Doubling(kept=2**20), on_disk)
    for without, one in zip(plain, keeping, strict=True):
        assert one.kept - without.kept == pytest.approx(2 * 2**20, abs=NOISE)
        assert one.work == pytest.approx(without.work, abs=NOISE)


@pytest.mark.parametrize(("reads", "counted"), [(True, 4), (False, 5)])
@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_no_more_blocks_are_alive_than_are_counted(tmp_path, monkeypatch, reads, counted, seconds):
    """Whether the disk is fast or slow. Without an input the queue of what is to be written fills up."""
    blocks: list[weakref.ref] = []
    most = [0]

    def note(block):
        blocks.append(weakref.ref(block))
        most[0] = max(most[0], sum(ref() is not None for ref in blocks))
        return block

    read, write = ZarrVolume._read, scratch_module.write_chunk
    monkeypatch.setattr(ZarrVolume, "_read", lambda volume, start, stop: note(read(volume, start, stop)))
    with ZarrSpace(tmp_path, 1) as space:
        x, out = space.zeros((256, 4, 4)), space.empty((256, 4, 4))
        space.flush()
        monkeypatch.setattr(scratch_module, "write_chunk", lambda *what: (time.sleep(seconds), write(*what)))
        if reads:
            sweep(space, lambda slab, x: ([note(x * 2)], []), [x], [out])
        for start, _ in space.blocks(out.shape) if not reads else ():
            out.write(start, note(torch.ones(16, 4, 4)))
        space.flush()
    assert most[0] <= counted
    if seconds and not reads:
        assert most[0] == counted


def tried(name: str) -> Method:
    return METHODS[name](cg_iterations=2) if name == "tv" else METHODS[name]()


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_rehearses_and_is_linear_in_the_height(name, on_disk):
    beam = "parallel" if name == "fbp" else "cone"
    method, m = tried(name), measurement(beam)
    rehearse(method, m, 2, on_disk)
    low, high, higher = (rehearse(method, m, height, on_disk) for height in (2, 4, 8))
    assert {one.phase for one in low.passes} <= {"prepare", "start", "step"}
    assert low.state == high.state == higher.state >= VOLUME
    assert low.steps == method.steps(method.prepare(m)) if name in ("fdk", "fbp") else low.steps == method.iterations
    for a, b, c in zip(low.passes, high.passes, higher.passes, strict=True):
        assert (a.phase, a.shape, a.held) == (b.phase, b.shape, b.held) == (c.phase, c.shape, c.held)
        if c.height == 2 * b.height == 4 * a.height:
            assert c.work == pytest.approx(b.work + 2 * (b.work - a.work), rel=0.1, abs=8 * NOISE)


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
@pytest.mark.parametrize("name", METHODS)
def test_volumes_of_few_slices(name, slices):
    grid = VolumeGeometry((slices, 16, 16), (2.0, 2.0, 2.0))
    m = measurement("parallel" if name == "fbp" else "cone", 4, grid)
    low, high = (rehearse(tried(name), m, height, on_disk=True) for height in (2, 4))
    assert [one.phase for one in low.passes] == [one.phase for one in high.passes]
    assert max(one.height for one in high.passes if one.shape[0] == slices) <= slices


def test_a_large_volume_costs_no_more_than_a_few_slices():
    grid = VolumeGeometry((100_000, 64, 64), (0.01, 1.0, 1.0))
    tracemalloc.start()
    told = rehearse(METHODS["cgls"](), measurement(grid=grid), 2, on_disk=True)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(one.held for one in told.passes) > 5 * 100_000 * 64 * 64 * 4
    assert most < 64 * 2**20


def states() -> tuple:
    return random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(monkeypatch, fails):
    m, before = measurement(), states()
    if fails:
        monkeypatch.setattr(Doubling, "double", lambda self, slab, x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rehearse(Doubling(), m, 2, on_disk=True)
    else:
        rehearse(METHODS["cgls"](), m, 2, on_disk=True)
    assert m.known == {}
    assert not tracemalloc.is_tracing()
    assert torch.overrides._get_current_function_mode() is None
    assert states() == before


def test_somebody_else_is_tracing():
    """It is counted all the same, and the tracing goes on."""
    alone = passes(Doubling(), on_disk=True)
    tracemalloc.start()
    try:
        block = np.ones(2**22, np.uint8)
        watched = rehearse(Doubling(), measurement(), 4, on_disk=True).passes
        assert tracemalloc.is_tracing()
        assert tracemalloc.get_traced_memory()[0] > block.nbytes
    finally:
        tracemalloc.stop()
    for a, b in zip(alone, watched, strict=True):
        assert a.work == pytest.approx(b.work, abs=NOISE)
