"""3D total variation by ADMM (Boyd et al. 2011, section 6.4.1), with nonnegativity.

    min_x 1/2 ||y - Ax||^2 + lam ||Dx||_{2,1}   subject to x >= 0,   A of norm 1

Splits z = Dx and p = x with scaled duals u and w. Both duals and splits are functions of two arrays,

    s = Dx + u_before:  u = clip(s, lam/rho),  z = s - u        (clip onto the ball, z the shrinkage)
    t = x + w_before:   w = min(t, 0),         p = t - w

so the state is x, s, t and the data gradient g = A'(y - Ax), which follows x through the CG without another
projection. The x-update takes a few CG iterations on A'A + rho (D'D + I), warm-started.
"""

from typing import Annotated

import torch
from pydantic import Field

from volrecon.solvers.differences import Spacing, clip_to_ball, gradient, gradient_transpose
from volrecon.solvers.problem import Info, Iterative, LeastSquares, State
from volrecon.volume import Slab, Volume, slice_dots, sweep

REFRESH = 50  # steps after which g is computed anew, before float32 rounding can gather


class TV(Iterative):
    """Total variation.

    Attributes:
        lam: weight of the total variation, relative to the normalised operator, in the run's unit.
        rho: ADMM penalty; it changes the speed, not the limit.
        cg_iterations: CG iterations a step; each costs one projection and one backprojection.
        nonnegative: keep x >= 0, up to what ADMM has left of the constraint when it stops.
    """

    iterations: Annotated[int, Field(ge=1)] = 40
    lam: Annotated[float, Field(ge=0, le=1e3)] = 5e-5
    rho: Annotated[float, Field(gt=0, le=1e6)] = 0.002
    cg_iterations: Annotated[int, Field(ge=1, le=100)] = 8
    nonnegative: bool = True

    def init(self, problem: LeastSquares) -> State:
        space, shape = problem.space, problem.A.domain_shape
        volumes = {
            "x": space.zeros(shape),
            "g": space.of(problem.A.T(problem.y)),
            "s": space.zeros((shape[0], 3, *shape[1:])),
        }
        if self.nonnegative:
            volumes["t"] = space.zeros(shape)
        return State(0, volumes, {"squared_residual": problem.squared_norm})

    def step(self, problem: LeastSquares, state: State) -> tuple[State, Info]:
        before = self._refreshed(problem, state) if state.step and state.step % REFRESH == 0 else state
        x, g, squared = before["x"], before["g"], before.scalars["squared_residual"]
        r, square = self._residual(problem, before)
        d = r
        for k in range(self.cg_iterations):
            h, alpha, squared = self._line_search(problem, d, g, square, squared)
            if k + 1 < self.cg_iterations:
                x_next, g_next, r_next, square_next = self._advance(problem, x, g, r, d, h, alpha)
                d_next = self._direction(problem, r_next, d, square_next / square if square else 0.0)
                for old in {r, d, h, *({x, g} - set(before.volumes.values()))}:
                    old.release()
                x, g, r, d, square = x_next, g_next, r_next, d_next, square_next
        after, info = self._finish(problem, before, x, g, d, h, alpha, squared)
        kept = {*state.volumes.values(), *after.volumes.values()}
        for old in {r, d, h, x, g, before["g"]} - kept:
            old.release()
        return State(state.step + 1, after.volumes, after.scalars), info

    def _refreshed(self, problem: LeastSquares, state: State) -> State:
        space, A = problem.space, problem.A
        r = A(state["x"])

        def subtract(slab: Slab, y: torch.Tensor, Ax: torch.Tensor) -> tuple[list, list]:
            return [y - Ax], [slice_dots(y - Ax, y - Ax)]

        (squared,) = sweep(space, subtract, [problem.y, r], [r])
        g = space.of(A.T(r))
        r.release()
        return State(state.step, {**state.volumes, "g": g}, {"squared_residual": squared})

    def _residual(self, problem: LeastSquares, state: State) -> tuple[Volume, float]:
        """r = g + rho D'(z - u - Dx) + rho (p - w - x) and its squared norm."""
        spacing, tau, rho = _spacing(problem), self.lam / self.rho, self._rho
        out = problem.space.empty(problem.A.domain_shape)

        def residual(
            slab: Slab, g: torch.Tensor, x: torch.Tensor, s: torch.Tensor, *t: torch.Tensor
        ) -> tuple[list, list]:
            own = x[slab.below : len(x) - slab.above]
            s = s[: len(s) - slab.above]
            difference = s - 2 * clip_to_ball(s, tau) - gradient(slab, x, spacing)
            r = g + rho * gradient_transpose(slab, difference, spacing)
            if t:
                r += self.rho * (t[0].abs() - own)
            return [r], [slice_dots(r, r)]

        inputs = [state["g"], state["x"], state["s"], *([state["t"]] if self.nonnegative else [])]
        (square,) = sweep(problem.space, residual, inputs, [out], halo=[0, 1, 1, 0][: len(inputs)])
        return out, square

    def _line_search(
        self, problem: LeastSquares, d: Volume, g: Volume, square: float, squared_residual: float
    ) -> tuple[Volume, float, float]:
        """h = A'A d, the step alpha = <r, r> / <d, B d>, and ||y - A(x + alpha d)||^2."""
        spacing = _spacing(problem)
        projected = problem.A(d)
        h = problem.space.empty(problem.A.domain_shape)

        def products(slab: Slab, h: torch.Tensor, d: torch.Tensor, g: torch.Tensor) -> tuple[list, list]:
            own = d[slab.below : len(d) - slab.above]
            Dd = gradient(slab, d, spacing)[slab.below :]
            return [h], [slice_dots(own, h), slice_dots(Dd, Dd), slice_dots(own, own), slice_dots(own, g)]

        dh, DdDd, dd, dg = sweep(problem.space, products, [problem.A.T(projected), d, g], [h], halo=[0, 1, 0])
        projected.release()
        curvature = dh + self._rho * DdDd + (self.rho * dd if self.nonnegative else 0.0)
        alpha = square / curvature if curvature > 0 else 0.0
        return h, alpha, squared_residual - 2 * alpha * dg + alpha**2 * dh

    def _advance(
        self, problem: LeastSquares, x: Volume, g: Volume, r: Volume, d: Volume, h: Volume, alpha: float
    ) -> tuple[Volume, Volume, Volume, float]:
        """x + alpha d, g - alpha h, r - alpha B d."""
        spacing, own_rho = _spacing(problem), self.rho if self.nonnegative else 0.0
        outputs = [problem.space.empty(problem.A.domain_shape) for _ in range(3)]

        def advance(slab: Slab, d: torch.Tensor, *blocks: torch.Tensor) -> tuple[list, list]:
            x, g, r, h = blocks
            own = d[slab.below : len(d) - slab.above]
            Bd = h + self._rho * gradient_transpose(slab, gradient(slab, d, spacing), spacing) + own_rho * own
            r = r - alpha * Bd
            return [x + alpha * own, g - alpha * h, r], [slice_dots(r, r)]

        (square,) = sweep(problem.space, advance, [d, x, g, r, h], outputs, halo=[1, 0, 0, 0, 0])
        return outputs[0], outputs[1], outputs[2], square

    def _direction(self, problem: LeastSquares, r: Volume, d: Volume, beta: float) -> Volume:
        out = problem.space.empty(problem.A.domain_shape)
        sweep(problem.space, lambda slab, r, d: ([r + beta * d], []), [r, d], [out])
        return out

    def _finish(
        self,
        problem: LeastSquares,
        before: State,
        x: Volume,
        g: Volume,
        d: Volume,
        h: Volume,
        alpha: float,
        squared: float,
    ) -> tuple[State, Info]:
        """The last CG step fused with the updates of both splits."""
        spacing, tau, space = _spacing(problem), self.lam / self.rho, problem.space
        volumes = {name: space.empty(old.shape) for name, old in before.volumes.items()}

        def finish(slab: Slab, x: torch.Tensor, d: torch.Tensor, *blocks: torch.Tensor) -> tuple[list, list]:
            g, h, s, start, *t = blocks
            new = x + alpha * d
            own = new[slab.below : len(new) - slab.above]
            s = gradient(slab, new, spacing)[slab.below :] + clip_to_ball(s, tau)
            out = [own, g - alpha * h, s, *(own + old.clamp(max=0) for old in t)]
            return out, [slice_dots(own - start, own - start), slice_dots(own, own)]

        inputs = [x, d, g, h, before["s"], before["x"], *([before["t"]] if self.nonnegative else [])]
        outputs = [volumes[name] for name in ("x", "g", "s", "t") if name in volumes]
        change, size = sweep(space, finish, inputs, outputs, halo=[1, 1, 0, 0, 0, 0, 0][: len(inputs)])
        info = Info(problem.relative(squared), (change / size) ** 0.5 if size else 0.0)
        return State(before.step, volumes, {"squared_residual": squared}), info

    @property
    def _rho(self) -> float:
        """The penalty of z = Dx; without a weight there is no split."""
        return self.rho if self.lam > 0 else 0.0


def _spacing(problem: LeastSquares) -> Spacing:
    z, y, x = problem.A.operator.volume_geometry.voxel_zyx_mm
    return z / x, y / x, 1.0
