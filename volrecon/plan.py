"""What a job will need, before it starts: memory, scratch, time; and the tier and blocks that fit a budget."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numcodecs import Zstd

from volrecon.errors import ResourceError
from volrecon.memory import SHARE, free_memory, ran_out, resident, shown_size
from volrecon.rehearsal import Pass, Rehearsal, rehearse
from volrecon.solvers import Measurement, Method
from volrecon.volume import BLOCK_BYTES, CHUNK_BYTES, RamSpace, chunk_height, slice_bytes

Tier = Literal["ram", "zarr"]

HEIGHTS = (2, 4)
"""Block heights that are rehearsed."""

CHUNKS_WRITTEN = 8
"""Chunks of the final volume in memory while it is scaled, checked, compressed and hashed."""

SLACK = 24 * 2**20
"""For what nobody counts: Python's own objects, threads' stacks, the C library's small blocks."""

KEPT: dict[Tier, int] = {"ram": 2, "zarr": 1}
"""Generations of the state that are kept on disk."""

DIVISOR = 5  # the pyramid of a volume has 1/8 + 1/64 + ... of its bytes


@dataclass(frozen=True)
class Phase:
    """One part of a run: the most memory it holds besides the baseline, in bytes, and its time in seconds."""

    name: str
    memory: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """How a job is to run, and what that takes.

    Attributes:
        tier: where volumes live.
        block_bytes: of one array in a pass.
        budget: bytes the process may take.
        baseline: bytes the process has before the run begins, programs included.
        scratch: most bytes on disk while it runs, without the volume.
        output: bytes of the volume, were it incompressible.
        phases: in order; "step" stands for all steps.
        steps: how many there are at most.
    """

    tier: Tier
    block_bytes: int
    budget: int
    baseline: int
    scratch: int
    output: int
    phases: tuple[Phase, ...]
    steps: int

    @property
    def working_set(self) -> int:
        return max(phase.memory for phase in self.phases)

    @property
    def memory(self) -> int:
        """The most bytes the process will take."""
        return self.baseline + self.working_set

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)


def plan_lines(plan: Plan, report: Plan | None = None) -> list[str]:
    """A plan as lines for people, with that of the direct method that a report computes."""
    memory = max(plan.memory, report.memory if report else 0)
    where = "in memory" if plan.tier == "ram" else "on disk, in scratch"
    return [
        f"volumes: {where} (tier {plan.tier}), passes in blocks of {shown_size(plan.block_bytes)}",
        f"memory: {shown_size(memory)} at most, of a budget of {shown_size(plan.budget)}; the program itself has "
        f"{shown_size(plan.baseline)}",
        f"disk: {shown_size(plan.scratch)} of scratch, then {shown_size(plan.output)} for the volume",
        f"time: about {plan.seconds:.3g} s, {plan.steps} steps at most",
        *(f"  {p.name:8} {shown_size(p.memory):>9}  {p.seconds:10.3g} s" for p in plan.phases),
        *([f"  {'report':8} {shown_size(report.working_set):>9}  {report.seconds:10.3g} s"] if report else []),
    ]


def default_budget() -> int:
    """Bytes that a run may take when nothing is said: a share of what is free, and what the process has already."""
    return int(SHARE * free_memory()) + resident()


def make_plan(
    method: Method, measurement: Measurement, budget: int, tiers: Sequence[Tier], block_bytes: int | None = None
) -> Plan:
    """The first of the tiers, and in it the largest blocks, that keep a job within a budget.

    Args:
        budget: bytes of the whole process.
        tiers: in order of preference.
        block_bytes: of one array in a pass; default as large as useful.

    Raises:
        ResourceError: none fits; the message says what would.
    """
    try:
        return _fitting(method, measurement, budget, tiers, block_bytes)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise ResourceError(
            f"not even a few slices of {slice_bytes(measurement.volume.shape) / 2**30:.3g} GiB fit this machine's "
            f"memory ({error}); use a grid with smaller slices"
        ) from error


def _fitting(
    method: Method, measurement: Measurement, budget: int, tiers: Sequence[Tier], block_bytes: int | None
) -> Plan:
    nearest: Plan | None = None
    rehearse(method, measurement, HEIGHTS[0], on_disk=False)  # loads what is compiled, which takes time and memory
    for tier in tiers:
        low, high = (rehearse(method, measurement, height, tier == "zarr") for height in HEIGHTS)
        for size in _sizes(measurement.volume.shape) if block_bytes is None else [block_bytes]:
            plan = _plan(measurement, low, high, tier, size, budget)
            if plan.memory <= budget:
                return plan
            nearest = plan if nearest is None or plan.memory < nearest.memory else nearest
    assert nearest is not None
    raise ResourceError(
        f"{shown_size(nearest.memory)} are needed at least ({shown_size(nearest.baseline)} of them by the program "
        f"itself, tier {nearest.tier}, blocks of {shown_size(nearest.block_bytes)}); the budget is "
        f"{shown_size(budget)}. {_remedy(tiers, nearest)}"
    )


def _remedy(tiers: Sequence[Tier], nearest: Plan) -> str:
    if "zarr" not in tiers:
        return "Use compute.tier = 'zarr' (or 'auto'), which keeps volumes on disk, or --memory with more."
    return f"Give --memory {shown_size(nearest.memory * 1.02).replace(' ', '')}, or a grid with smaller slices."


def _sizes(shape: tuple[int, ...]) -> list[int]:
    """Block sizes worth trying, falling to a single chunk."""
    smallest = chunk_height(shape) * slice_bytes(shape)
    sizes = [BLOCK_BYTES]
    while sizes[-1] > smallest:
        sizes.append(max(smallest, sizes[-1] // 2))
    return sizes


def _plan(measurement: Measurement, low: Rehearsal, high: Rehearsal, tier: Tier, size: int, budget: int) -> Plan:
    space, held = RamSpace(size), tier == "ram"
    phases = {name: [0.0, 0.0] for name in ("prepare", "start", "step")}
    for a, b in zip(low.passes, high.passes, strict=True):
        height = space.height(a.shape)
        kept = max(a.kept, b.kept) + (max(a.held, b.held) if held else 0)
        memory = _at(height, a, a.work, b, b.work) + kept
        blocks = a.count or -(-a.shape[0] // height)
        seconds = blocks * max(_at(height, a, a.seconds, b, b.seconds), a.seconds)
        phase = phases[a.phase]
        phase[0] = max(phase[0], memory)
        phase[1] += seconds * (low.steps if a.phase == "step" else 1)
    shape = measurement.volume.shape
    volume = slice_bytes(shape) * shape[0]
    chunk = chunk_height(shape) * slice_bytes(shape)
    # On disk: chunks of which a block reads or writes only a part, one of the volume's and one of the projections'.
    more = SLACK + (0 if held else 2 * CHUNK_BYTES)
    result = [Phase(name, int(memory) + more, seconds) for name, (memory, seconds) in phases.items()]
    result.append(Phase("write", CHUNKS_WRITTEN * chunk + (volume if held else 0) + more, _writing(volume)))
    most = max(p.held for p in low.passes)
    scratch = (KEPT[tier] + 1) * low.state if held else most + KEPT[tier] * low.state
    output = volume + volume // DIVISOR
    return Plan(tier, size, budget, resident(), scratch, output, tuple(result), low.steps)


def _writing(count: int) -> float:
    """Seconds to compress and hash so many bytes of a volume, from a sample of noise."""
    sample = np.random.Generator(np.random.Philox(0)).standard_normal(2**18, np.float32)
    started = time.perf_counter()
    Zstd(level=1).encode(sample)
    hashlib.sha256(sample.data)
    return (time.perf_counter() - started) * count / sample.nbytes


def _at(height: int, a: Pass, low: float, b: Pass, high: float) -> float:
    """A figure at another block height, from two."""
    if b.height == a.height:
        return low
    return max(low + (high - low) / (b.height - a.height) * (height - a.height), 0.0)
