"""SIRT: simultaneous iterative reconstruction (Gilbert 1972; as in Gregor and Benson, IEEE TMI 27(7), 2008)."""

from typing import Annotated

import torch
from pydantic import Field

from volrecon.solvers.problem import Info, Iterative, LeastSquares, State
from volrecon.volume import Slab, Space, Volume, slice_dots, sweep


class SIRT(Iterative):
    """x <- x + w C A'R (y - Ax), C = 1/A'1, R = 1/A1, both 0 where the sums vanish.

    Attributes:
        relaxation: w in (0, 2).
        nonnegative: project onto x >= 0 after every step.
    """

    iterations: Annotated[int, Field(ge=1)] = 100
    relaxation: Annotated[float, Field(gt=0, lt=2)] = 1.0
    nonnegative: bool = True

    def init(self, problem: LeastSquares) -> State:
        space, A = problem.space, problem.A
        ones = space.full(A.domain_shape, 1.0)
        R = A(ones)
        ones.release()
        _invert(space, R)
        ones = space.full(A.range_shape, 1.0)
        C = space.of(A.T(ones))
        ones.release()
        _invert(space, C)
        return State(0, {"x": space.zeros(A.domain_shape), "R": R, "C": C})

    def step(self, problem: LeastSquares, state: State) -> tuple[State, Info]:
        space, A = problem.space, problem.A
        projected = A(state["x"])
        weighted = space.empty(A.range_shape)

        def residual(slab: Slab, y: torch.Tensor, Ax: torch.Tensor, R: torch.Tensor) -> tuple[list, list]:
            r = y - Ax
            return [R * r], [slice_dots(r, r)]

        (squared,) = sweep(space, residual, [problem.y, projected, state["R"]], [weighted])
        x_next = space.empty(A.domain_shape)

        def update(slab: Slab, x: torch.Tensor, C: torch.Tensor, back: torch.Tensor) -> tuple[list, list]:
            new = x + self.relaxation * C * back
            new = new.clamp_(min=0) if self.nonnegative else new
            return [new], [slice_dots(new - x, new - x), slice_dots(new, new)]

        change, size = sweep(space, update, [state["x"], state["C"], A.T(weighted)], [x_next])
        projected.release()
        weighted.release()
        info = Info(problem.relative(squared), (change / size) ** 0.5 if size else 0.0)
        return State(state.step + 1, {**state.volumes, "x": x_next}), info


def _invert(space: Space, sums: Volume) -> None:
    """1 / sums in place, 0 where a sum is below a millionth of the largest: rays that only graze the fading border."""
    largest = 0.0
    for start, stop in space.blocks(sums.shape):
        largest = max(largest, float(sums.read(start, stop).max()))
    floor = 1e-6 * largest

    def invert(slab: Slab, block: torch.Tensor) -> tuple[list, list]:
        return [torch.where(block > floor, 1.0 / block.clamp(min=1e-30), torch.zeros_like(block))], []

    sweep(space, invert, [sums], [sums])
