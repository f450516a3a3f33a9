"""The weight that the scan's noise asks for."""

import numpy as np
import pytest
import torch
from tiny import GRID, dense, measurement, projections, truth

from volrecon.datasteps import gamma_of_noise, noise_energy, proximal
from volrecon.errors import ConfigError
from volrecon.noise import Noise
from volrecon.projectors import projector
from volrecon.solvers.problem import least_squares
from volrecon.volume import RamVolume

SIGMA_Y, OFF = 0.1, 0.4
GAUSSIAN = Noise("gaussian", sigma_y=SIGMA_Y)


def volume(x) -> RamVolume:
    return RamVolume(torch.from_numpy(x.reshape(GRID.shape)).float())


def estimate(seed: int = 9) -> RamVolume:
    return volume(truth() + OFF * np.random.default_rng(seed).standard_normal(GRID.shape))


@pytest.fixture(scope="module")
def problem():
    return least_squares(measurement(projections(noise=SIGMA_Y), GAUSSIAN), "noise")


@pytest.mark.parametrize("weights", ["noise", "none"])
@pytest.mark.parametrize("noise", [GAUSSIAN, Noise("poisson", 3e4, 50.0)], ids=lambda n: n.kind)
def test_the_noise_energy_is_that_of_noise(noise, weights):
    """The mean of ||y - A truth||^2 over many scans, masked pixels aside."""
    clean = projector(GRID, measurement(np.zeros((3, 12, 8))).scan)(truth().astype(np.float32))
    energies, expected = [], []
    for seed in range(40):
        y = np.stack([noise.sampled(row, k, seed) for k, row in enumerate(clean)])
        y[1, 3, 2:4] = np.nan
        m = measurement(y, noise)
        problem = least_squares(m, weights)
        left = problem.y.tensor - problem.A(volume(truth())).tensor
        energies.append(float((left**2).sum()) / problem.A.scale**2)
        expected.append(noise_energy(m, problem) / problem.A.scale**2)
    standard_error = np.std(energies) / 40**0.5
    assert np.mean(energies) == pytest.approx(np.mean(expected), abs=4 * standard_error)
    assert standard_error < 0.05 * np.mean(expected)


def test_a_scan_that_knows_no_noise(problem):
    with pytest.raises(ConfigError, match="does not know its noise"):
        noise_energy(measurement(projections()), problem)


@pytest.mark.parametrize("iterations", [3, 6, 60])
@pytest.mark.parametrize("first", [0.1, 10.0, 1e3])
def test_the_energy_is_met(problem, iterations, first):
    """A second step, with the gamma that the first one tells, leaves the misfit asked for."""
    x0 = estimate()
    step = proximal(problem, x0, gamma=first, iterations=iterations)
    low = proximal(problem, x0, gamma=np.inf, iterations=iterations).squared_residual[1]
    for part in (0.3, 0.9):
        energy = low + part * (step.squared_residual[0] - low)
        gamma = gamma_of_noise(step, first, energy)
        met = proximal(problem, x0, gamma=gamma, iterations=iterations)
        pulled = float(((met.x.tensor - x0.tensor) ** 2).sum()) / gamma
        assert met.squared_residual[1] + pulled == pytest.approx(energy, rel=2e-3)


def test_an_energy_out_of_reach(problem):
    step = proximal(problem, estimate(), gamma=10.0, iterations=4)
    assert gamma_of_noise(step, 10.0, 0.0) == pytest.approx(1e6)
    assert gamma_of_noise(step, 10.0, 2 * step.squared_residual[0]) == pytest.approx(1e-3)


def test_an_estimate_that_fits_exactly():
    problem = least_squares(measurement(np.zeros((3, 12, 8))), "none")
    fits = proximal(problem, volume(np.zeros(75)), gamma=1.0, iterations=3)
    assert gamma_of_noise(fits, 1.0, 0.1) == 1e-3


def test_the_weight_is_the_ratio_of_variances(problem):
    """Estimates off by white noise of a variance v: gamma v/s^2 in the mean, and errors next to the least."""
    (A, _), clean, found, errors = dense(problem), projections(), [], []
    for seed in range(12):
        m = measurement(clean + SIGMA_Y * np.random.default_rng(seed).standard_normal(clean.shape), GAUSSIAN)
        noisy, x0 = least_squares(m, "noise"), estimate(100 + seed)
        found.append(gamma_of_noise(proximal(noisy, x0, gamma=10.0, iterations=40), 10.0, noise_energy(m, noisy)))
        y, start = noisy.y.tensor.numpy().ravel(), x0.tensor.numpy().ravel()
        gammas = (found[-1], *np.geomspace(1e-1, 1e5, 13))
        solved = [np.linalg.solve(np.eye(75) + g * A.T @ A, start + g * A.T @ y) for g in gammas]
        errors.append([np.linalg.norm(x - truth().ravel()) for x in solved])
    expected = (OFF / (SIGMA_Y * problem.A.scale)) ** 2
    assert np.exp(np.mean(np.log(found))) == pytest.approx(expected, rel=0.25)
    chosen, *grid = np.mean(errors, axis=0)
    assert chosen < 1.03 * min(grid)
    assert min(grid) < 0.8 * min(grid[0], grid[-1])
