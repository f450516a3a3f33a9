"""CGLS against dense linear algebra."""

import numpy as np
import pytest
import torch
from tiny import GRID, dense, measurement, projections, solved

from volrecon.noise import Noise
from volrecon.solvers import State
from volrecon.solvers.cgls import CGLS
from volrecon.volume import RamVolume


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_it_finds_the_least_squares_solution(noise):
    method = CGLS(iterations=60)
    problem = method.prepare(measurement(projections(noise=noise)))
    A, b = dense(problem)
    expected, *_ = np.linalg.lstsq(A, b)
    np.testing.assert_allclose(solved(method, problem)[0].ravel(), expected, atol=2e-3)


def test_the_weights_are_those_of_the_noise():
    """sqrt(W) is one over the standard deviation, of the matrix and the data alike, up to one number."""
    y, noise = projections(noise=0.05) + 0.5, Noise("poisson", 100.0, 5.0)
    A, b = dense(CGLS().prepare(measurement(y)))
    weighted, data = dense(CGLS().prepare(measurement(y, noise)))
    counts = 100.0 * np.exp(-y.ravel().astype(np.float64))
    root = 1 / np.sqrt((counts + 25.0) / counts**2)
    factor = np.linalg.norm(weighted) / np.linalg.norm(root[:, None] * A)
    np.testing.assert_allclose(weighted, factor * root[:, None] * A, atol=1e-5)
    np.testing.assert_allclose(data, factor * root * b, atol=1e-5)
    assert root.max() > 2 * root.min()


def test_every_iterate_is_best_in_its_krylov_space():
    problem = CGLS().prepare(measurement(projections(noise=0.1)))
    A, b = dense(problem)
    basis = [A.T @ b]
    for k in range(1, 5):
        x = solved(CGLS(iterations=k), problem)[0].ravel()
        coefficients, *_ = np.linalg.lstsq(A @ np.stack(basis, 1), b)
        np.testing.assert_allclose(x, np.stack(basis, 1) @ coefficients, atol=1e-4)
        basis.append(A.T @ (A @ basis[-1]))


def test_no_data():
    problem = CGLS().prepare(measurement(np.zeros((3, 12, 8))))
    x, state = solved(CGLS(iterations=3), problem)
    assert not x.any()
    assert state.scalars["gamma"] == 0.0


def test_an_exact_start_stays():
    """N2: at the solution the direction is zero, and 0/0 is not taken."""
    method = CGLS()
    problem = method.prepare(measurement(projections()))
    x = RamVolume(torch.rand(GRID.shape))
    zero = {name: problem.space.zeros(shape) for name, shape in (("r", (3, 12, 8)), ("p", GRID.shape))}
    state, info = method.step(problem, State(0, {"x": x, **zero}, {"gamma": 0.0}))
    assert torch.equal(state["x"].tensor, x.tensor)
    assert (info.residual, info.change) == (0.0, 0.0)
