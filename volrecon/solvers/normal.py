"""A'A + ridge I + rho D'D: the normal operator of regularised least squares, for conjugate gradients."""

from dataclasses import dataclass

import numpy as np
import torch

from volrecon.errors import ConfigError
from volrecon.projectors.streamed import Backprojection, StreamedOperator
from volrecon.solvers.coupling import Difference
from volrecon.solvers.problem import LeastSquares
from volrecon.volume import Readable, Slab, Volume, slice_dots, sweep

LARGEST = 1e9
"""Of a ridge or a penalty beside A'A of norm 1: float32 would no longer see the data."""


@dataclass(frozen=True)
class NormalOperator:
    """B = A'A + ridge I + rho D'D; A of norm 1 makes both weights scale-free.

    <p, B p> is the sum of squared lengths, so it is known before anything is backprojected, and is never negative.

    Raises:
        ConfigError: a weight outside [0, 1e9].
    """

    A: StreamedOperator
    ridge: float = 0.0
    rho: float = 0.0
    difference: Difference | None = None

    def __post_init__(self) -> None:
        for name, value in (("ridge", self.ridge), ("rho", self.rho)):
            if not 0 <= value <= LARGEST:
                raise ConfigError(f"{name} is {value}; beside an operator of norm 1 it must be 0 to {LARGEST:g}")

    def __call__(self, p: Volume) -> "NormalProduct":
        """B p: one projection now, one backprojection when the product is read."""
        space = self.A.space
        projected = self.A(p)
        (curvature,) = sweep(space, lambda slab, y: ([], [slice_dots(y, y)]), [projected])
        if self.ridge:
            (square,) = sweep(space, lambda slab, p: ([], [slice_dots(p, p)]), [p])
            curvature += self.ridge * square
        if self.rho:
            (square,) = sweep(space, self._differences, [p], halo=1)
            curvature += self.rho * square
        return NormalProduct(self, p, projected, self.A.T(projected), curvature)

    def _differences(self, slab: Slab, p: torch.Tensor) -> tuple[list, list]:
        Dp = self._difference(slab, p)[slab.below :]
        return [], [slice_dots(Dp, Dp)]

    @property
    def _difference(self) -> Difference:
        if self.difference is None:
            raise ConfigError(f"rho is {self.rho} but there is no difference operator")
        return self.difference

    def penalty(self, p: Readable, start: int, stop: int) -> torch.Tensor:
        """D'D p on slices [start, stop)."""
        slab, block = with_halo(p, start, stop)
        return self._difference.transpose(slab, self._difference(slab, block))


@dataclass(frozen=True)
class NormalProduct(Readable):
    """B p of a NormalOperator; `p` must stay as it is until the product has been read."""

    B: NormalOperator
    p: Volume
    projected: Volume
    back: Backprojection
    curvature: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.p.shape

    def read(self, start: int, stop: int) -> torch.Tensor:
        out = self.back.read(start, stop)
        if self.B.ridge:
            out = out + self.B.ridge * self.p.read(start, stop)
        if self.B.rho:
            out = out + self.B.rho * self.B.penalty(self.p, start, stop)
        return out

    def release(self) -> None:
        self.projected.release()


@dataclass(frozen=True)
class Residual:
    """What of the data a volume leaves unexplained.

    Attributes:
        r: y - Ax, a new volume of projections (v, angle, u).
        row_squares: its squared norm in every detector row, (v,) float64.
    """

    r: Volume
    row_squares: np.ndarray

    @property
    def squared(self) -> float:
        return float(sum(self.row_squares.tolist()))


def data_residual(problem: LeastSquares, x: Readable) -> Residual:
    """y - Ax; one projection."""
    r = problem.A(x)
    squares = np.zeros(r.shape[0])

    def subtract(slab: Slab, y: torch.Tensor, Ax: torch.Tensor) -> tuple[list, list]:
        new = y - Ax
        squares[slab.start : slab.stop] = slice_dots(new, new)
        return [new], []

    sweep(problem.space, subtract, [problem.y, r], [r])
    return Residual(r, squares)


def with_halo(x: Readable, start: int, stop: int) -> tuple[Slab, torch.Tensor]:
    """Slices [start, stop) with one more on either side where the volume goes on, as a sweep would hand them out."""
    slab = Slab(start, stop, min(1, start), min(1, x.shape[0] - stop))
    return slab, x.read(start - slab.below, stop + slab.above)
