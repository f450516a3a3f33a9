"""The operator of a run: slab by slab on Volumes, in the run's unit, with the data weights, divided by its norm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from volrecon.projectors.operator import POWER_ITERATIONS, POWER_TOLERANCE, Operator
from volrecon.volume import Readable, Slab, Space, Volume, slice_dots, sweep


@dataclass(frozen=True)
class StreamedOperator:
    """scale * sqrt(W) A on Volumes.

    Attributes:
        operator: `A`, of the whole.
        space: where results live.
        scale: the run's unit in 1/mm over the norm; 1 leaves A as it is.
        root_weights: sqrt(W) per detector pixel, or None for W = 1.
    """

    operator: Operator
    space: Space
    scale: float = 1.0
    root_weights: Volume | None = None

    @property
    def domain_shape(self) -> tuple[int, int, int]:
        return self.operator.domain_shape

    @property
    def range_shape(self) -> tuple[int, int, int]:
        return self.operator.range_shape

    def __call__(self, x: Readable) -> Volume:
        """Project a volume: every slab is added into the rows of its shadow, in ascending order."""
        y = self.space.zeros(self.range_shape)
        for start, stop in self.space.blocks(self.domain_shape):
            part = self.operator.restrict(slices=slice(start, stop))
            y.add(part.rows.start, self._weighted(part(x.read(start, stop)), part.rows))
        return y

    def T(self, y: Readable) -> Backprojection:
        """Backproject: nothing is computed until a sweep reads the slabs of the result, each of them once."""
        return Backprojection(self, y)

    def norm(self) -> float:
        """Largest singular value, by power iteration."""
        x = self.space.full(self.domain_shape, 1.0)
        length, value = float(torch.tensor(self.domain_shape).prod()) ** 0.5, 0.0
        for _ in range(POWER_ITERATIONS):
            y = self(x)
            x_next = self.space.empty(self.domain_shape)

            def scaled(slab: Slab, back: torch.Tensor, length: float = length) -> tuple[list, list]:
                block = back / length
                return [block], [slice_dots(block, block)]

            (square,) = sweep(self.space, scaled, [self.T(y)], [x_next])
            x.release()
            y.release()
            x, length, last, value = x_next, square**0.5, value, square**0.5
            if value == 0.0 or abs(value - last) <= POWER_TOLERANCE * value:
                break
        x.release()
        return value**0.5

    def normalised(self) -> tuple[StreamedOperator, float]:
        """This operator divided by its norm, and the norm."""
        norm = self.norm()
        return replace(self, scale=self.scale / norm if norm else self.scale), norm

    def _weighted(self, rows_block: torch.Tensor, rows: slice) -> torch.Tensor:
        if self.root_weights is None:
            return rows_block * self.scale
        return rows_block * self.root_weights.read(rows.start, rows.stop) * self.scale


@dataclass(frozen=True)
class Backprojection:
    """`A.T(y)`, computed slab by slab as it is read; the projections are read in the slab's shadow only."""

    A: StreamedOperator
    y: Readable

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.A.domain_shape

    def read(self, start: int, stop: int) -> torch.Tensor:
        part = self.A.operator.restrict(slices=slice(start, stop))
        block: torch.Tensor = part.T(self.A._weighted(self.y.read(part.rows.start, part.rows.stop), part.rows))
        return block
