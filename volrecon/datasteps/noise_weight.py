"""The weight of the data from the scan's noise: the discrepancy principle on what CG has seen.

If x0 is off by white noise of variance v, and y by noise of variance s^2 a ray, the best gamma is v/s^2, and then the
least value of ||y - Ax||^2 + ||x - x0||^2/gamma is s^2 times the number of rays in the mean (Mead, J. Inverse Ill-Posed
Problems 16, 2008). So gamma is chosen for that value; v need not be known. Morozov's rule, ||y - Ax||^2 alone, counts
the rays that x is fitted to as noise; in trials it left the data up to ten times too little weight.
"""

import numpy as np
import torch

from volrecon.datasteps.proximal import Corrected
from volrecon.errors import ConfigError
from volrecon.solvers.problem import LeastSquares, Measurement
from volrecon.volume import Slab, sweep

SMALLEST, LARGEST = 1e-3, 1e6
"""Bounds of gamma: below, the data do not move x0; above, the identity is lost beside A'A in float32."""


def noise_energy(measurement: Measurement, problem: LeastSquares) -> float:
    """Expected ||y - Ax||^2 of the true x, in the problem's own weights and unit.

    Weighted by their noise, all rays have the same share. Without such weights a few rays that hardly any photon
    passed decide, and their variance is poorly known.

    Raises:
        ConfigError: the scan does not know its noise.
    """
    noise, root = measurement.noise, problem.A.root_weights
    if noise.kind == "none":
        raise ConfigError("the scan does not know its noise; give gamma a number, or the scan a noise model")
    air = (noise.photons + noise.electronic**2) / noise.photons**2 if noise.kind == "poisson" else noise.sigma_y**2

    def variances(slab: Slab, y: torch.Tensor, *w: torch.Tensor) -> tuple[list, list]:
        own = noise.root_weights(torch.nan_to_num(y, nan=0.0))
        relative = (~torch.isnan(y)).double() if own is None else (~torch.isnan(y)) / own.double() ** 2
        return [], [(relative * w[0].double() ** 2 if w else relative).flatten(1).sum(1).numpy()]

    (total,) = sweep(problem.space, variances, [measurement.projections, *([root] if root else [])])
    return air * total * (problem.A.scale / measurement.unit_per_mm) ** 2


def gamma_of_noise(step: Corrected, gamma: float, energy: float) -> float:
    """The gamma for which ||y - Ax||^2 + ||x - x0||^2/gamma would have become `energy`, from a step with another.

    M iterations of CG span a Krylov space in which A'A is a tridiagonal M x M matrix, and proximal steps of every
    gamma lie in that same space: nothing is projected. Repeat the step with the new gamma, or take it for the next
    one, whose x0 hardly differs. Where no gamma of 1e-3 to 1e6 meets the energy the nearer end is taken: x0 fits the
    data already, or M iterations cannot fit them so well.

    Args:
        step: of `proximal` with `gamma`.
        energy: as from `noise_energy`.
    """
    if not step.solution.alphas:
        return SMALLEST
    eigenvalues, parts = _spectrum(step, gamma)
    low, high = np.log(SMALLEST), np.log(LARGEST)
    for _ in range(60):
        middle = (low + high) / 2
        least = step.squared_residual[0] - float((parts**2 / (eigenvalues + np.exp(-middle))).sum())
        low, high = (middle, high) if least > energy else (low, middle)
    return float(np.exp(high))


def _spectrum(step: Corrected, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of A'A in the Krylov space, and the parts of A'(y - A x0) along its eigenvectors.

    The tridiagonal matrix follows from CG's numbers (Golub and Van Loan, section 10.2).
    """
    alphas, squares = np.array(step.solution.alphas), np.array(step.solution.squares)
    betas = (squares[1:] / squares[:-1])[: len(alphas) - 1]
    diagonal = 1 / alphas - 1 / gamma
    diagonal[1:] += betas / alphas[:-1]
    beside = np.sqrt(betas) / alphas[:-1]
    eigenvalues, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return eigenvalues.clip(min=0), squares[0] ** 0.5 * vectors[0]
