"""ADMM for total variation between slices (Chung et al., DiffusionMBIR, CVPR 2023), or in 3D.

    min_x 1/2 ||y - Ax||^2 + lam ||Dx||,   A of norm 1,   D = Dz or the gradient
    x <- CG on A'A + rho D'D;   d <- shrink(Dx + u, lam/rho);   u <- u + Dx - d

d and u are both functions of one array, s = Dx + u_before: u = clip(s, lam/rho), d = s - u. So s is the state.
Nothing pulls x towards its start: few CG iterations are what keeps a prior's estimate, and more of them erase it.
"""

from dataclasses import dataclass

import torch

from volrecon.errors import ConfigError
from volrecon.solvers.cg import Stop, conjugate_gradients
from volrecon.solvers.coupling import Difference
from volrecon.solvers.normal import NormalOperator, data_residual, with_halo
from volrecon.solvers.problem import LeastSquares
from volrecon.volume import Readable, Slab, Volume, slice_dots, sweep

LARGEST_LAM = 1e3


@dataclass(frozen=True)
class Split:
    """After a sweep of ADMM.

    Attributes:
        x: the volume (z, y, x).
        s: Dx + u, both dual and split; of the shape of D x.
        squared_residual: ||y - Ax||^2 before and after.
        stop: why CG ended.
    """

    x: Volume
    s: Volume
    squared_residual: tuple[float, float]
    stop: Stop


def admm_sweep(
    problem: LeastSquares,
    x: Volume,
    s: Volume,
    difference: Difference,
    *,
    lam: float,
    rho: float,
    iterations: int,
    tolerance: float = 0.0,
) -> Split:
    """One sweep from x and s, both left as they are; s of a first sweep is all zero.

    M CG iterations take M + 1 projections and M backprojections. Volumes held besides x and s: three (x, residual,
    direction), then the new x and s; two sets of projections besides y.

    Args:
        lam: weight of the variation in the run's unit; 0 leaves least squares by CG.
        rho: penalty, above 0; lam/rho is the threshold on differences in the run's unit.
        iterations: M.

    Raises:
        ConfigError: lam outside [0, 1e3], or rho outside (0, 1e9].
    """
    if not 0 <= lam <= LARGEST_LAM or not rho > 0:
        raise ConfigError(f"lam is {lam} and rho {rho}; lam must be 0 to {LARGEST_LAM:g} and rho above 0")
    # Without a weight there is no split.
    B = NormalOperator(problem.A, rho=rho if lam else 0.0, difference=difference)
    left = data_residual(problem, x)
    start = _Residual(B, difference, problem.A.T(left.r), x, s, lam / rho)
    (pulled,) = sweep(problem.space, start.pull, [x, s], halo=[1, 0])
    solution = conjugate_gradients(B, x, start, iterations, tolerance, problem.space)
    left.r.release()
    s_next = problem.space.empty(s.shape)
    (pulls,) = sweep(problem.space, start.advance, [solution.x, s], [s_next], halo=[1, 0])
    after = left.squared + B.rho * (pulled - pulls) - solution.descent
    return Split(solution.x, s_next, (left.squared, max(after, 0.0)), solution.stop)


@dataclass(frozen=True)
class _Residual(Readable):
    """b - Bx = A'(y - Ax) + rho D'(d - u - Dx), with A'(y - Ax) in `back`."""

    B: NormalOperator
    difference: Difference
    back: Readable
    x: Volume
    s: Volume
    tau: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def read(self, start: int, stop: int) -> torch.Tensor:
        out = self.back.read(start, stop)
        if not self.B.rho:
            return out
        slab, x = with_halo(self.x, start, stop)
        s = self.s.read(start - slab.below, stop)
        pull = s - 2 * self.difference.clip(s, self.tau) - self.difference(slab, x)
        return out + self.B.rho * self.difference.transpose(slab, pull)

    def pull(self, slab: Slab, x: torch.Tensor, s: torch.Tensor) -> tuple[list, list]:
        """||d - u - Dx||^2 of any x."""
        return [], self.advance(slab, x, s)[1]

    def advance(self, slab: Slab, x: torch.Tensor, s: torch.Tensor) -> tuple[list, list]:
        """Dx + u, the next s, and ||d - u - Dx||^2."""
        Dx, u = self.difference(slab, x)[slab.below :], self.difference.clip(s, self.tau)
        pull = s - 2 * u - Dx
        return [Dx + u], [slice_dots(pull, pull)]
