"""The proximal data step against dense solves, its cost, and the same bytes in every tier."""

import numpy as np
import pytest
import torch
from held import HeldSpace, cost, counted
from tiny import GRID, dense, measurement, projections, truth

from volrecon.datasteps import proximal
from volrecon.errors import ConfigError
from volrecon.noise import Noise
from volrecon.solvers.cg import Stop
from volrecon.solvers.problem import Measurement, least_squares
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume

SIGMA_Y = 0.3


@pytest.fixture(scope="module")
def problem():
    return least_squares(measurement(projections(noise=SIGMA_Y)), "none")


def estimate(noise: float = 0.2, seed: int = 9) -> RamVolume:
    x = truth() + noise * np.random.default_rng(seed).standard_normal(GRID.shape)
    return RamVolume(torch.from_numpy(x).float())


def flat(volume) -> np.ndarray:
    return volume.read(0, volume.shape[0]).numpy().astype(np.float64).ravel()


def closed_form(problem, x0, gamma):
    A, y = dense(problem)
    return np.linalg.solve(np.eye(A.shape[1]) + gamma * A.T @ A, x0 + gamma * A.T @ y)


@pytest.mark.parametrize("gamma", [1e-3, 1.0, 30.0, 1e4])
def test_the_closed_form(problem, gamma):
    x0 = estimate()
    step = proximal(problem, x0, gamma=gamma, iterations=200, tolerance=1e-6)
    expected = closed_form(problem, flat(x0), gamma)
    np.testing.assert_allclose(flat(step.x), expected, atol=3e-4)
    A, y = dense(problem)
    residuals = [((y - A @ v) ** 2).sum() for v in (flat(x0), expected)]
    assert step.squared_residual == pytest.approx(residuals, rel=1e-3)
    assert step.solution.stop is Stop.CONVERGED
    assert torch.equal(x0.tensor, estimate().tensor)


@pytest.mark.parametrize("gamma", [5.0, np.inf])
@pytest.mark.parametrize("iterations", [1, 3])
def test_few_iterations_are_best_in_the_krylov_space(problem, gamma, iterations):
    """Of 1/2 ||y - Ax||^2 + 1/(2 gamma) ||x - x0||^2 over x0 + span{g, A'A g, ...}."""
    (A, y), x0 = dense(problem), flat(estimate())
    g = A.T @ (y - A @ x0)
    K = np.stack([np.linalg.matrix_power(A.T @ A, k) @ g for k in range(iterations)], axis=1)
    t = np.linalg.solve(K.T @ (A.T @ A + np.eye(len(x0)) / gamma) @ K, K.T @ g)
    step = proximal(problem, estimate(), gamma=gamma, iterations=iterations)
    np.testing.assert_allclose(flat(step.x), x0 + K @ t, atol=3e-5)
    after = ((y - A @ (x0 + K @ t)) ** 2).sum()
    assert step.squared_residual[1] == pytest.approx(after, rel=1e-3)


def test_least_squares_in_the_end(problem):
    A, y = dense(problem)
    step = proximal(problem, estimate(), gamma=np.inf, iterations=200, tolerance=1e-5)
    np.testing.assert_allclose(flat(step.x), np.linalg.lstsq(A, y)[0], atol=5e-3)


def test_an_estimate_that_fits_stays():
    """N2: y = A x0 exactly leaves nothing to do, whatever gamma."""
    x0 = RamVolume(torch.zeros(GRID.shape))
    problem = least_squares(measurement(np.zeros((3, 12, 8))), "none")
    for gamma in (1.0, np.inf):
        step = proximal(problem, x0, gamma=gamma, iterations=5)
        assert not step.x.tensor.any()
        assert step.x is not x0
        assert step.squared_residual == (0.0, 0.0)


@pytest.mark.parametrize("iterations", [1, 5])
def test_what_it_holds_and_costs(problem, iterations):
    space = HeldSpace()
    one = counted(problem, space)
    step = proximal(one, estimate(), gamma=3.0, iterations=iterations)
    assert cost(one) == (iterations + 1, iterations)
    assert space.alive == [step.x]
    assert space.peak == {GRID.shape: 3 if iterations > 1 else 2, tuple(problem.y.shape): 2}


def test_tiers_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", 1)
    results = []
    with ZarrSpace(tmp_path, 1) as disk:
        for space in (RamSpace(), RamSpace(1), disk):
            m = measurement(projections(noise=0.3), Noise("poisson", 100.0))
            problem = least_squares(Measurement(m.projections, m.scan, m.volume, space, 1.0, m.noise), "noise")
            results.append(flat(proximal(problem, space.of(estimate()), gamma=20.0, iterations=4).x))
    assert results[1].tobytes() == results[2].tobytes()
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, -1.0, np.nan, 1e-30, -np.inf])
def test_N4_weights_without_meaning_are_refused(problem, gamma):
    with pytest.raises(ConfigError, match="gamma is"):
        proximal(problem, estimate(), gamma=gamma, iterations=3)
