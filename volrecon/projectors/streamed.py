"""The operator of a run: slab by slab on Volumes, in the run's unit, with the data weights, divided by its norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from volrecon.projectors.operator import Operator
from volrecon.volume import Readable, Slab, Space, Volume, one_ahead, rows_at_once, slice_dots, sweep

LANCZOS_STEPS = 8


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
        for (start, stop), read in one_ahead(self.space.blocks(self.domain_shape), x.fetch):
            block = read()
            for part in self.parts(start, stop):
                y.add(part.rows.start, self._weighted(part(block).mul_(self.scale), part.rows))
            del block, read
        return y

    def parts(self, start: int, stop: int) -> Iterator[Operator]:
        """The operator of slices [start, stop) in row blocks of its shadow, ascending.

        A shadow of many views can be far larger than the slab. The blocks lie on one grid, whatever the slab: a
        backprojection adds the same numbers in the same order.
        """
        whole = self.operator.restrict(slices=slice(start, stop))
        height = rows_at_once(self.range_shape)
        for first in range(whole.rows.start // height * height, whole.rows.stop, height):
            yield whole.restrict(rows=slice(max(first, whole.rows.start), min(first + height, whole.rows.stop)))

    def T(self, y: Readable) -> Backprojection:
        """Backproject: nothing is computed until a sweep reads the slabs of the result, each of them once."""
        return Backprojection(self, y)

    def norm(self) -> float:
        """Largest singular value, by Lanczos on A'A (Golub and Van Loan, section 10.1) from the constant volume.

        The matrix has no negative entries, so neither has its leading vector: a constant start cannot miss it. Eight
        steps are nearer than thirty of power iteration, whose last percent comes slowly. With an unmatched pair this
        is the norm of the pair as the solvers see it.
        """
        space, shape = self.space, self.domain_shape
        before, v = space.zeros(shape), space.full(shape, math.prod(shape) ** -0.5)
        alphas: list[float] = []
        betas: list[float] = []
        while len(alphas) < LANCZOS_STEPS:
            w, alpha, beta = self._lanczos_step(before, v, betas[-1] if betas else 0.0)
            alphas.append(alpha)
            betas.append(beta)
            before.release()
            before, v = v, w
            if beta <= 1e-6 * max(alphas):  # the space is exhausted
                break
        before.release()
        v.release()
        T = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
        return float(max(np.linalg.eigvalsh(T)[-1], 0.0) ** 0.5)

    def _lanczos_step(self, before: Volume, v: Volume, beta: float) -> tuple[Volume, float, float]:
        """The next Lanczos vector, and the step's diagonal and off-diagonal entries."""
        projected = self(v)
        image, w = self.space.empty(self.domain_shape), self.space.empty(self.domain_shape)

        def products(slab: Slab, image: torch.Tensor, v: torch.Tensor) -> tuple[list, list]:
            return [image], [slice_dots(image, v)]

        (alpha,) = sweep(self.space, products, [self.T(projected), v], [image])

        def orthogonal(slab: Slab, image: torch.Tensor, v: torch.Tensor, before: torch.Tensor) -> tuple[list, list]:
            block = image - alpha * v - beta * before
            return [block], [slice_dots(block, block)]

        (square,) = sweep(self.space, orthogonal, [image, v, before], [w])
        length = square**0.5
        sweep(self.space, lambda slab, w: ([w / length if length else w], []), [w], [w])
        projected.release()
        image.release()
        return w, alpha, length

    def _weighted(self, rows_block: torch.Tensor, rows: slice) -> torch.Tensor:
        """The weights applied, in place."""
        if self.root_weights is not None:
            rows_block *= self.root_weights.read(rows.start, rows.stop)
        return rows_block


@dataclass(frozen=True)
class Backprojection(Readable):
    """`A.T(y)`, computed slab by slab as it is read; the projections are read in the slab's shadow only."""

    A: StreamedOperator
    y: Readable

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.A.domain_shape

    def read(self, start: int, stop: int) -> torch.Tensor:
        total: torch.Tensor | None = None
        for part in self.A.parts(start, stop):
            rows = self.y.read(part.rows.start, part.rows.stop) * self.A.scale
            block = part.T(self.A._weighted(rows, part.rows))
            total = block if total is None else total.add_(block)
            del rows, block
        return torch.zeros(stop - start, *self.shape[1:]) if total is None else total
