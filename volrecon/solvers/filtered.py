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
from volrecon.volume import Slab, Space, Volume, sweep


@dataclass(frozen=True)
class FilteredProjections:
    """Weighted, filtered projections, ready to be backprojected into a volume in the run's unit."""

    filtered: Volume
    backprojector: VoxelBackprojector
    space: Space

    @property
    def slabs(self) -> list[tuple[int, int]]:
        return list(self.space.blocks(self.backprojector.volume.shape))


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
            cosine = torch.from_numpy(cosine_weights(m.scan, slab.start, slab.stop))
            weighted = _without_gaps(rows) * cosine * torch.from_numpy(weights)
            return [torch.from_numpy(ramp_filtered(weighted.numpy(), spacing, self.filter, self.cutoff))], []

        sweep(m.space, filter_rows, [m.projections], [filtered])
        return FilteredProjections(filtered, VoxelBackprojector(m.volume, m.scan), m.space)

    def init(self, problem: FilteredProjections) -> State:
        return State(0, {"x": problem.space.zeros(problem.backprojector.volume.shape)})

    def step(self, problem: FilteredProjections, state: State) -> tuple[State, Info]:
        """Write the next slab. The volume is filled in place: a slab is written once and never read again."""
        start, stop = problem.slabs[state.step]
        rows = problem.backprojector.rows(start, stop)
        filtered = problem.filtered.read(rows.start, rows.stop).numpy()
        block = torch.from_numpy(problem.backprojector(filtered, rows, start, stop))
        state["x"].write(start, block.clamp_(min=0) if self.nonnegative else block)
        return State(state.step + 1, state.volumes, state.scalars), Info()

    def steps(self, problem: FilteredProjections) -> int:
        return len(problem.slabs)


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
