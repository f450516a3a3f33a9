"""A space that knows how many of its volumes are alive, and an operator that counts its projections."""

import copy
from dataclasses import dataclass, field

from volrecon.projectors.streamed import Backprojection, StreamedOperator
from volrecon.solvers import LeastSquares
from volrecon.volume import RamSpace, RamVolume


class HeldVolume(RamVolume):
    def release(self):
        self.space.alive.remove(self)
        super().release()


class HeldSpace(RamSpace):
    """`peak` is the most volumes alive at once, by shape."""

    def __init__(self, block_bytes=2**20):
        super().__init__(block_bytes)
        self.alive, self.peak = [], {}

    def empty(self, shape):
        volume = HeldVolume(super().empty(shape).tensor)
        volume.space = self
        self.alive.append(volume)
        self.peak[shape] = max(self.peak.get(shape, 0), self.count(shape))
        return volume

    def count(self, shape):
        return sum(v.shape == tuple(shape) for v in self.alive)


@dataclass(frozen=True)
class CountedOperator(StreamedOperator):
    """Whole projections and backprojections, the latter by the slices that were read."""

    counts: dict = field(default_factory=lambda: {"forward": 0.0, "back": 0.0})

    def __call__(self, x):
        self.counts["forward"] += 1
        return super().__call__(x)

    def T(self, y):
        return CountedBackprojection(self, y)


class CountedBackprojection(Backprojection):
    def read(self, start, stop):
        self.A.counts["back"] += (stop - start) / self.shape[0]
        return super().read(start, stop)


def counted(problem: LeastSquares, space: HeldSpace) -> LeastSquares:
    """The same problem in a space that counts; its own y is not counted."""
    A = CountedOperator(problem.A.operator, space, problem.A.scale, problem.A.root_weights)
    return LeastSquares(A, copy.copy(problem.y), space, problem.squared_norm)


def cost(problem: LeastSquares) -> tuple[float, float]:
    """(projections, backprojections) so far."""
    return problem.A.counts["forward"], round(problem.A.counts["back"], 9)
