"""Proximal data step by conjugate gradients (Chung, Lee, Ye, DDS, ICLR 2024), and plain least squares."""

from dataclasses import dataclass

from volrecon.errors import ConfigError
from volrecon.solvers.cg import Solution, conjugate_gradients
from volrecon.solvers.normal import NormalOperator, data_residual
from volrecon.solvers.problem import LeastSquares
from volrecon.volume import Volume, slice_dots, sweep


@dataclass(frozen=True)
class Corrected:
    """An estimate after a data step.

    Attributes:
        x: a new volume (z, y, x).
        squared_residual: ||y - Ax||^2 before and after.
        solution: how CG went; `gamma_of_noise` reads it.
    """

    x: Volume
    squared_residual: tuple[float, float]
    solution: Solution


def proximal(problem: LeastSquares, x0: Volume, *, gamma: float, iterations: int, tolerance: float = 0.0) -> Corrected:
    """Towards argmin gamma/2 ||y - Ax||^2 + 1/2 ||x - x0||^2, by CG from x0; x0 is left as it is.

    CG runs on (A'A + I/gamma)(x - x0) = A'(y - A x0): the same iterates as on I + gamma A'A, and neither A'y nor
    another right side is kept. M iterations take M + 1 projections and M backprojections. Volumes held besides x0:
    three (x, residual, direction), for M = 1 two; two sets of projections besides y.

    Args:
        gamma: weight of the data, relative to the operator of norm 1; `math.inf` is least squares, where M alone keeps
            the prior's estimate.
        iterations: M.
        tolerance: stop when CG's residual is this fraction of the first.

    Raises:
        ConfigError: gamma below 1e-9, or not a number.
    """
    if not gamma >= 1e-9:
        raise ConfigError(f"gamma is {gamma}; it must be at least 1e-9, or infinite for least squares")
    B = NormalOperator(problem.A, ridge=1 / gamma)
    left = data_residual(problem, x0)
    solution = conjugate_gradients(B, x0, problem.A.T(left.r), iterations, tolerance, problem.space)
    left.r.release()
    after = left.squared - solution.descent
    if B.ridge:
        after -= B.ridge * _squared_distance(problem, solution.x, x0)
    return Corrected(solution.x, (left.squared, max(after, 0.0)), solution)


def _squared_distance(problem: LeastSquares, a: Volume, b: Volume) -> float:
    (square,) = sweep(problem.space, lambda slab, a, b: ([], [slice_dots(a - b, a - b)]), [a, b])
    return square
