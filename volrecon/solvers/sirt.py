"""SIRT: simultaneous iterative reconstruction (Gilbert 1972; as in Gregor and Benson, IEEE TMI 27(7), 2008)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from volrecon.projectors.streamed import StreamedOperator
from volrecon.solvers.problem import Info, Iterative, LeastSquares, State
from volrecon.volume import Slab, Space, Volume, slice_dots, sweep


class SIRT(Iterative):
    """x <- x + w C A'R (y - Ax), C = 1/A'1, R = 1/A1, both 0 where the sums vanish.

    Attributes:
        relaxation: w in (0, 2).
        nonnegative: project onto x >= 0 after every step.
    """

    scale_free = True
    iterations: Annotated[int, Field(ge=1)] = 100
    relaxation: Annotated[float, Field(gt=0, lt=2)] = 1.0
    nonnegative: bool = True

    def init(self, problem: LeastSquares) -> State:
        R, C = inverse_sums(problem.A)
        return State(0, {"x": problem.space.zeros(problem.A.domain_shape), "R": R, "C": C})

    def step(self, problem: LeastSquares, state: State) -> tuple[State, Info]:
        step = sirt_step(problem, state["x"], state["R"], state["C"], self.relaxation, self.nonnegative)
        info = Info(problem.relative(step.squared_residual), step.change)
        return State(state.step + 1, {**state.volumes, "x": step.x}), info


@dataclass(frozen=True)
class Step:
    """After a step of SIRT.

    Attributes:
        x: a new volume (z, y, x).
        squared_residual: ||y - Ax||^2 of the x it started from.
        change: ||x' - x|| / ||x'||.
    """

    x: Volume
    squared_residual: float
    change: float


def inverse_sums(A: StreamedOperator) -> tuple[Volume, Volume]:
    """R = 1/A1 (v, angle, u) and C = 1/A'1 (z, y, x), 0 where the sums vanish; one projection, one backprojection."""
    space = A.space
    ones = space.full(A.domain_shape, 1.0)
    R = A(ones)
    ones.release()
    _invert(space, R)
    ones = space.full(A.range_shape, 1.0)
    C = space.of(A.T(ones))
    ones.release()
    _invert(space, C)
    return R, C


def sirt_step(
    problem: LeastSquares, x: Volume, R: Volume, C: Volume, relaxation: float, nonnegative: bool = False
) -> Step:
    """x + w C A'R (y - Ax), with `inverse_sums`; a Kaczmarz step with all rays at once. x is left as it is.

    One projection, one backprojection. Volumes held besides x and C: the new x; projections besides y and R: one set.
    """
    space, A = problem.space, problem.A
    r = A(x)

    def residual(slab: Slab, y: torch.Tensor, Ax: torch.Tensor, R: torch.Tensor) -> tuple[list, list]:
        r = y - Ax
        return [R * r], [slice_dots(r, r)]

    (squared,) = sweep(space, residual, [problem.y, r, R], [r])
    x_next = space.empty(A.domain_shape)

    def update(slab: Slab, x: torch.Tensor, C: torch.Tensor, back: torch.Tensor) -> tuple[list, list]:
        new = x + relaxation * C * back
        new = new.clamp_(min=0) if nonnegative else new
        return [new], [slice_dots(new - x, new - x), slice_dots(new, new)]

    change, size = sweep(space, update, [x, C, A.T(r)], [x_next])
    r.release()
    return Step(x_next, squared, (change / size) ** 0.5 if size else 0.0)


def _invert(space: Space, sums: Volume) -> None:
    """1 / sums in place, 0 where a sum is below a millionth of the largest: rays that only graze the fading border."""
    largest = 0.0
    for start, stop in space.blocks(sums.shape):
        largest = max(largest, float(sums.read(start, stop).max()))
    floor = 1e-6 * largest

    def invert(slab: Slab, block: torch.Tensor) -> tuple[list, list]:
        return [torch.where(block > floor, 1.0 / block.clamp(min=1e-30), torch.zeros_like(block))], []

    sweep(space, invert, [sums], [sums])
