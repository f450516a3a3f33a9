"""TV by ADMM against a dense Chambolle-Pock solver, and the optimality of its limit."""

import numpy as np
import pytest
from tiny import GRID, dense, differences, measurement, projections, solved, total_variation

from volrecon.solvers.cgls import CGLS
from volrecon.solvers.tv import REFRESH, TV

SPEED = {"rho": 0.05, "cg_iterations": 6, "iterations": 150}
LAM = 0.01


@pytest.fixture(scope="module")
def problem():
    return TV().prepare(measurement(projections(noise=0.3)))


@pytest.fixture(scope="module")
def matrices(problem):
    A, b = dense(problem)
    D = np.stack([differences(e.reshape(GRID.shape)).ravel() for e in np.eye(A.shape[1])], axis=1)
    return A, b, D


def objective(matrices, x: np.ndarray, lam: float) -> float:
    A, b, _ = matrices
    return 0.5 * float(((b - A @ x.ravel()) ** 2).sum()) + lam * total_variation(x)


def chambolle_pock(matrices, lam: float, nonnegative: bool, steps: int = 5000) -> np.ndarray:
    """min 1/2 ||b - Ax||^2 + lam ||Dx||_{2,1} with K = (A, D) (Sidky, Jorgensen, Pan 2012)."""
    A, b, D = matrices
    tau = sigma = 1 / np.linalg.norm(np.concatenate([A, D]), 2)
    x = bar = np.zeros(A.shape[1])
    p, q = np.zeros_like(b), np.zeros(D.shape[0])
    for _ in range(steps):
        p = (p + sigma * (A @ bar - b)) / (1 + sigma)
        q = (q + sigma * D @ bar).reshape(3, -1)
        q = (q * np.minimum(1, lam / np.maximum(np.linalg.norm(q, axis=0), 1e-300))).ravel()
        after = x - tau * (A.T @ p + D.T @ q)
        after = np.maximum(after, 0) if nonnegative else after
        x, bar = after, 2 * after - x
    return x.reshape(GRID.shape)


def test_the_operator_has_norm_1(matrices):
    assert np.linalg.norm(matrices[0], 2) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_an_independent_solver_agrees(problem, matrices, nonnegative):
    x, _ = solved(TV(lam=LAM, nonnegative=nonnegative, **SPEED), problem)
    expected = chambolle_pock(matrices, LAM, nonnegative)
    assert objective(matrices, x.clip(0) if nonnegative else x, LAM) == pytest.approx(
        objective(matrices, expected, LAM), rel=1e-4
    )
    np.testing.assert_allclose(x, expected, atol=0.01)
    assert (expected.min() < -0.01) == (not nonnegative)


def test_nothing_beats_the_limit(problem, matrices):
    """No perturbation of a minimiser is better, whatever its size."""
    x, _ = solved(TV(lam=LAM, nonnegative=False, **SPEED), problem)
    best = objective(matrices, x, LAM)
    rng = np.random.default_rng(0)
    least_squares, _ = solved(CGLS(iterations=60), problem)
    directions = [rng.standard_normal(GRID.shape) for _ in range(200)]
    directions += [least_squares - x, -x, np.full_like(x, x.mean()) - x]
    for direction in directions:
        for size in (1e-3, 1e-2, 0.1, 1.0):
            assert objective(matrices, x + size * direction, LAM) > best - 1e-6
    assert best < 0.95 * objective(matrices, least_squares, LAM)


def test_without_a_weight_it_is_least_squares(problem, matrices):
    A, b, _ = matrices
    expected, *_ = np.linalg.lstsq(A, b)
    x, _ = solved(TV(lam=0.0, nonnegative=False, **{**SPEED, "iterations": 60}), problem)
    np.testing.assert_allclose(x.ravel(), expected, atol=3e-3)


def test_without_a_weight_but_nonnegative(problem, matrices):
    from scipy.optimize import nnls

    A, b, _ = matrices
    x, _ = solved(TV(lam=0.0, **SPEED), problem)
    np.testing.assert_allclose(x.ravel(), nnls(A, b)[0], atol=0.01)


def test_nonnegative_to_a_small_tolerance(problem):
    x, _ = solved(TV(lam=LAM, **SPEED), problem)
    free, _ = solved(TV(lam=LAM, nonnegative=False, **SPEED), problem)
    assert free.min() < -0.01
    assert x.min() > -2e-3


@pytest.mark.parametrize(("rho", "cg_iterations"), [(0.02, 6), (0.2, 6), (0.05, 2)])
def test_rho_and_cg_iterations_change_the_speed_and_not_the_limit(problem, rho, cg_iterations):
    limit, _ = solved(TV(lam=LAM, **SPEED), problem)
    other, _ = solved(TV(lam=LAM, rho=rho, cg_iterations=cg_iterations, iterations=300), problem)
    np.testing.assert_allclose(other, limit, atol=0.01)
    early = [solved(TV(lam=LAM, rho=r, cg_iterations=cg_iterations, iterations=4), problem)[0] for r in (rho, 5 * rho)]
    assert np.abs(early[0] - early[1]).max() > 1e-4


def test_a_huge_weight_leaves_the_mean(problem, matrices):
    """Only constants have no variation: the best of them has a closed form."""
    A, b, _ = matrices
    x, _ = solved(TV(lam=10.0, rho=5.0, cg_iterations=20, iterations=60), problem)
    ones = A.sum(axis=1)
    np.testing.assert_allclose(x, (ones @ b) / (ones @ ones), atol=0.01)


def test_more_weight_less_variation(problem):
    variations = [total_variation(solved(TV(lam=lam, **SPEED), problem)[0]) for lam in (0.0, 1e-3, 1e-2, 1e-1)]
    assert variations == sorted(variations, reverse=True)
    assert variations[-1] < 0.5 * variations[0]


def test_the_running_gradient_stays_the_gradient(problem, matrices):
    """g follows A'(y - Ax) without projecting; `REFRESH` is not what keeps it right."""
    A, b, _ = matrices
    x, state = solved(TV(lam=LAM, rho=0.05, cg_iterations=3, iterations=REFRESH - 1), problem)
    expected = A.T @ (b - A @ x.ravel())
    np.testing.assert_allclose(state["g"].read(0, 3).numpy().ravel(), expected, atol=1e-5)
    assert state.scalars["squared_residual"] == pytest.approx(((b - A @ x.ravel()) ** 2).sum(), rel=1e-3)
