"""Filtered backprojection as steps: filter once, then one slab a step."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from volrecon.projectors.backproject import VoxelBackprojector
from volrecon.solvers.filtering import (
    Window,
    angular_weights,
    cosine_weights,
    ramp_filtered,
    redundancy_weights,
)
from volrecon.solvers.problem import Info, Measurement, Method, State
from volrecon.volume import Slab, Space, Volume, chunk_height, rows_at_once, slice_bytes, sweep

SLAB_BYTES = 32 * 2**20
"""Of a volume that a step fills; the same for any amount of memory, so that steps mean the same when a run resumes."""


@dataclass(frozen=True)
class FilteredProjections:
    """Weighted, filtered projections, ready to be backprojected into a volume in the run's unit.

    Attributes:
        slab: slices a step fills; a step takes them in blocks of the space.
    """

    filtered: Volume
    backprojector: VoxelBackprojector
    space: Space
    slab: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.backprojector.volume.shape


class Filtered(Method[FilteredProjections]):
    """Base of FBP and FDK.

    Attributes:
        filter: window on the ramp.
        cutoff: its end, as a fraction of the Nyquist frequency.
        nonnegative: set negative attenuation to 0.
    """

    kind = "direct"
    filter: Window = "hann"
    cutoff: Annotated[float, Field(gt=0, le=1)] = 1.0
    nonnegative: bool = False

    def prepare(self, measurement: Measurement) -> FilteredProjections:
        m = measurement
        self.check(m.scan, m.volume, m.backend)
        each, full_turn = angular_weights(m.scan)
        weights = (redundancy_weights(m.scan, full_turn) * each[:, None]).astype(np.float32)
        weights /= np.float32(m.unit_per_mm)
        if m.scan.beam != "parallel":  # (SOD / U)^2 of FDK is 1 / (magnification depth)^2
            weights /= np.float32(m.scan.magnification**2)
        spacing = m.scan.pixel_vu_mm[1] / m.scan.magnification
        filtered = m.space.empty(m.scan.shape)

        def filter_rows(slab: Slab, rows: torch.Tensor) -> tuple[list[torch.Tensor], list[Any]]:
            out = np.empty(tuple(rows.shape), np.float32)
            for k, row in enumerate(_without_gaps(rows).numpy()):  # one by one: the filter needs 16 times the memory
                cosine = cosine_weights(m.scan, slab.start + k, slab.start + k + 1)[0]
                out[k] = ramp_filtered(row * cosine * weights, spacing, self.filter, self.cutoff)
            return [torch.from_numpy(out)], []

        sweep(m.space, filter_rows, [m.projections], [filtered])
        return FilteredProjections(filtered, VoxelBackprojector(m.volume, m.scan), m.space, _slab(m.volume.shape))

    def init(self, problem: FilteredProjections) -> State:
        return State(0, {"x": problem.space.empty(problem.shape)}, filled={"x": 0})

    def step(self, problem: FilteredProjections, state: State) -> tuple[State, Info]:
        """Fill the next slab. The volume is filled in place: a slab is written once and never read again."""
        first = state.filled["x"]
        last = min(first + problem.slab, problem.shape[0])
        for start, stop in problem.space.blocks((last - first, *problem.shape[1:])):
            state["x"].write(first + start, self.slices(problem, first + start, first + stop))
        return State(state.step + 1, state.volumes, filled={"x": last}), Info()

    def steps(self, problem: FilteredProjections) -> int:
        return -(-problem.shape[0] // problem.slab)

    def slices(self, problem: FilteredProjections, start: int, stop: int) -> torch.Tensor:
        """Slices [start, stop), from row blocks of their shadow: one of many views can be far larger than the slab."""
        whole = problem.backprojector.rows(start, stop)
        height = rows_at_once(problem.filtered.shape)
        out = np.zeros((stop - start, *problem.shape[1:]), np.float32)
        for first in range(whole.start, whole.stop, height):
            last = min(first + height, whole.stop)
            # A sample lies between two rows: the block carries the next one's first.
            rows = problem.filtered.read(first, min(last + 1, whole.stop)).numpy()
            owned = slice(first if first > whole.start else -1, last)
            problem.backprojector.add(rows, first, owned, start, out)
        block = torch.from_numpy(out)
        return block.clamp_(min=0) if self.nonnegative else block


def _slab(shape: tuple[int, int, int]) -> int:
    """Slices a step fills: whole chunks, about SLAB_BYTES."""
    chunk = chunk_height(shape)
    return chunk * max(1, SLAB_BYTES // (chunk * slice_bytes(shape)))


def _without_gaps(rows: torch.Tensor) -> torch.Tensor:
    """Masked pixels (NaN) filled by linear interpolation along u."""
    if not torch.isnan(rows).any():
        return rows
    flat = rows.numpy().reshape(-1, rows.shape[-1]).copy()
    columns = np.arange(flat.shape[1])
    broken = np.isnan(flat).any(axis=1)
    for k in np.flatnonzero(broken):
        known = ~np.isnan(flat[k])
        flat[k, ~known] = np.interp(columns[~known], columns[known], flat[k, known]) if known.any() else 0.0
    return torch.from_numpy(flat.reshape(rows.shape))
