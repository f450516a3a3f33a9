"""A plan fits its budget, says what would, and never gets worse with more."""

import functools
import re

import pytest
import torch
from balls import MU, small_scan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volrecon import plan as module
from volrecon.errors import ResourceError
from volrecon.geometry import VolumeGeometry
from volrecon.memory import parsed_size
from volrecon.plan import default_budget, make_plan, plan_lines
from volrecon.rehearsal import rehearse
from volrecon.solvers import METHODS, Measurement
from volrecon.volume import BLOCK_BYTES, RamSpace, RamVolume, chunk_height, slice_bytes

MIB, GIB = 2**20, 2**30
GRID = VolumeGeometry((2048, 128, 128), (0.025, 0.4, 0.4))
VOLUME = 4 * 2048 * 128 * 128
BASELINE = 400 * MIB


def measurement(name: str, grid: VolumeGeometry = GRID) -> Measurement:
    scan = small_scan("parallel" if name == "fbp" else "cone", 2)
    return Measurement(RamVolume(torch.zeros(scan.shape)), scan, grid, RamSpace(), 2 * MU)


@functools.cache
def rehearsed(name: str, height: int, on_disk: bool):
    method = METHODS[name](cg_iterations=2) if name == "tv" else METHODS[name]()
    return rehearse(method, measurement(name), height, on_disk)


@pytest.fixture
def planned(monkeypatch):
    """planned(method, budget, tiers, block_bytes): rehearsed once, in a process of 400 MiB."""
    monkeypatch.setattr(module, "resident", lambda: BASELINE)
    monkeypatch.setattr(module, "_writing", lambda count: 1.0)

    def plan(name, budget, tiers=("ram", "zarr"), block_bytes=None):
        monkeypatch.setattr(module, "rehearse", lambda method, m, height, on_disk: rehearsed(name, height, on_disk))
        return make_plan(METHODS[name](), measurement(name), budget, tiers, block_bytes)

    return plan


def least(planned, name, tiers=("ram", "zarr"), block_bytes=None) -> tuple[int, str]:
    """What the refusal of a budget that is too small says is needed; and the message."""
    with pytest.raises(ResourceError) as caught:
        planned(name, BASELINE + MIB, tiers, block_bytes)
    assert caught.value.exit_code == 5
    return parsed_size(re.match(r"([\d.]+ \w+) are needed at least", str(caught.value))[1]), str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_with_much_memory_all_is_in_it(planned, name):
    plan = planned(name, 64 * GIB)
    assert (plan.tier, plan.block_bytes) == ("ram", BLOCK_BYTES)
    assert plan.memory == BASELINE + plan.working_set == BASELINE + max(p.memory for p in plan.phases)
    assert [phase.name for phase in plan.phases] == ["prepare", "start", "step", "write"]
    assert all(phase.seconds >= 0 for phase in plan.phases)
    assert plan.working_set > VOLUME


@pytest.mark.parametrize("name", METHODS)
def test_with_little_memory_all_is_on_disk(planned, name):
    needed, message = least(planned, name)
    assert "tier zarr" in message
    given = parsed_size(re.search(r"--memory (\S+),", message)[1])
    plan = planned(name, given)
    assert plan.tier == "zarr"
    assert plan.memory <= given <= 1.1 * needed
    assert MIB == chunk_height(GRID.shape) * slice_bytes(GRID.shape) <= plan.block_bytes <= 4 * MIB
    assert plan.working_set < VOLUME
    with pytest.raises(ResourceError):
        planned(name, int(0.95 * needed))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=st.integers(0, 4 * 2**10), b=st.integers(0, 4 * 2**10), name=st.sampled_from(list(METHODS)))
def test_more_memory_is_never_worse(planned, a, b, name):
    """In a tier blocks never shrink; memory is preferred as soon as the volumes fit; no budget is exceeded."""
    small, large = (max(least(planned, name)[0] * 1.01, BASELINE + mib * MIB) for mib in sorted((a, b)))
    one, other = (planned(name, int(budget)) for budget in (small, large))
    assert one.memory <= small
    assert other.memory <= large
    assert (one.tier, other.tier) != ("ram", "zarr")
    for tier in ("ram", "zarr"):
        if planned_or_none(planned, name, int(small), tier):
            blocks = [planned(name, int(budget), (tier,)).block_bytes for budget in (small, large)]
            assert blocks == sorted(blocks)
            assert one.tier == "ram" or tier == "zarr"


def planned_or_none(planned, name, budget, tier):
    try:
        return planned(name, budget, (tier,))
    except ResourceError:
        return None


@pytest.mark.parametrize("tier", ["ram", "zarr"])
def test_a_tier_that_was_asked_for_is_kept(planned, tier):
    assert planned("cgls", 64 * GIB, (tier,)).tier == tier
    _, message = least(planned, "cgls", (tier,))
    assert ("compute.tier = 'zarr'" in message) == (tier == "ram")
    assert f"tier {tier}" in message


@pytest.mark.parametrize("tier", ["ram", "zarr"])
def test_blocks_that_were_asked_for_are_kept(planned, tier):
    for block in (1, 5 * MIB, 200 * MIB):
        assert planned("cgls", 64 * GIB, (tier,), block).block_bytes == block
    needed, message = least(planned, "cgls", (tier,), 64 * MIB)
    assert "blocks of 64 MiB" in message
    assert planned("cgls", int(needed * 1.02), (tier,), 64 * MIB).memory <= needed * 1.02


def test_larger_blocks_take_more(planned):
    sizes = [MIB, 4 * MIB, 16 * MIB, 32 * MIB]
    figures = [planned("tv", 64 * GIB, ("zarr",), size).working_set for size in sizes]
    assert figures == sorted(figures)
    assert figures[-1] > 3 * figures[0]


@pytest.mark.parametrize("name", METHODS)
def test_disk(planned, name):
    ram, zarr = (planned(name, 64 * GIB, (tier,)) for tier in ("ram", "zarr"))
    state = rehearsed(name, 2, False).state
    assert ram.scratch == 3 * state  # two generations that are kept, one that is being committed
    assert zarr.scratch >= 2 * state
    assert VOLUME * 8 / 7 < ram.output < 1.3 * VOLUME


def test_lines_for_people(planned):
    plan = planned("cgls", GIB, ("zarr",))
    lines = plan_lines(plan)
    text = "\n".join(lines)
    assert "on disk, in scratch (tier zarr)" in text
    assert "of a budget of 1 GiB; the program itself has 400 MiB" in text
    assert "20 steps at most" in text
    assert [line.split()[0] for line in lines[4:]] == ["prepare", "start", "step", "write"]
    assert "report" in plan_lines(plan, plan)[-1]


def test_without_a_word_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 10 * GIB)
    monkeypatch.setattr(module, "resident", lambda: GIB)
    assert default_budget() == 8 * GIB


def test_slices_larger_than_the_machine():
    """The rehearsal itself finds no memory: that is an error of ours, with what to do."""
    grid = VolumeGeometry((4, 2**20, 2**20), (1.0, 1e-4, 1e-4))
    with pytest.raises(ResourceError, match="grid with smaller slices"):
        make_plan(METHODS["cgls"](), measurement("cgls", grid), GIB, ("ram", "zarr"))


def test_other_errors_of_a_method_are_its_own(monkeypatch):
    def broken(self, m):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(METHODS["cgls"], "prepare", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        make_plan(METHODS["cgls"](), measurement("cgls"), GIB, ("ram",))
