"""CGLS: conjugate gradients on the least squares problem (Hestenes and Stiefel 1952; Bjorck 1996, algorithm 7.4.1)."""

from typing import Annotated

import torch
from pydantic import Field

from volrecon.solvers.problem import Info, Iterative, LeastSquares, State
from volrecon.volume import Slab, slice_dots, sweep


class CGLS(Iterative):
    """min ||y - Ax||^2 from x = 0; stopping early is the regularisation. Needs a matched pair."""

    scale_free = True
    iterations: Annotated[int, Field(ge=1)] = 20

    def init(self, problem: LeastSquares) -> State:
        space, A = problem.space, problem.A
        p = space.empty(A.domain_shape)
        (gamma,) = sweep(space, _copied, [A.T(problem.y)], [p])
        volumes = {"x": space.zeros(A.domain_shape), "r": space.of(problem.y), "p": p}
        return State(0, volumes, {"gamma": gamma})

    def step(self, problem: LeastSquares, state: State) -> tuple[State, Info]:
        space, A, gamma = problem.space, problem.A, state.scalars["gamma"]
        q = A(state["p"])
        (delta,) = sweep(space, lambda slab, q: ([], [slice_dots(q, q)]), [q])
        # At the exact solution p = 0: stay there instead of dividing 0 by 0.
        alpha = gamma / delta if delta > 0 else 0.0
        r = space.empty(A.range_shape)

        def shorten(slab: Slab, r: torch.Tensor, q: torch.Tensor) -> tuple[list, list]:
            new = r - alpha * q
            return [new], [slice_dots(new, new)]

        (squared,) = sweep(space, shorten, [state["r"], q], [r])
        q.release()
        s = space.empty(A.domain_shape)
        (gamma_next,) = sweep(space, _copied, [A.T(r)], [s])
        beta = gamma_next / gamma if gamma > 0 else 0.0
        x, p = space.empty(A.domain_shape), space.empty(A.domain_shape)

        def advance(slab: Slab, x: torch.Tensor, p: torch.Tensor, s: torch.Tensor) -> tuple[list, list]:
            new = x + alpha * p
            return [new, s + beta * p], [slice_dots(p, p), slice_dots(new, new)]

        step_size, size = sweep(space, advance, [state["x"], state["p"], s], [x, p])
        s.release()
        info = Info(problem.relative(squared), abs(alpha) * (step_size / size) ** 0.5 if size else 0.0)
        return State(state.step + 1, {"x": x, "r": r, "p": p}, {"gamma": gamma_next}), info


def _copied(slab: Slab, block: torch.Tensor) -> tuple[list, list]:
    return [block], [slice_dots(block, block)]
