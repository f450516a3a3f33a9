"""SIRT against its formula and its limit."""

import numpy as np
import pytest
import torch
from held import HeldSpace, cost, counted
from tiny import GRID, SCAN, dense, measurement, projections, solved, truth

from volrecon.geometry import VolumeGeometry
from volrecon.solvers import Measurement
from volrecon.solvers.sirt import SIRT, inverse_sums, sirt_step
from volrecon.volume import RamSpace, RamVolume


def inverted(sums: np.ndarray) -> np.ndarray:
    return np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 1e-6 * sums.max())


@pytest.mark.parametrize("relaxation", [0.5, 1.0, 1.9])
def test_the_formula(relaxation):
    method = SIRT(iterations=4, relaxation=relaxation, nonnegative=False)
    problem = method.prepare(measurement(projections(noise=0.1)))
    A, b = dense(problem)
    C, R = inverted(A.sum(axis=0)), inverted(A.sum(axis=1))
    x = np.zeros(A.shape[1])
    for _ in range(4):
        x += relaxation * C * (A.T @ (R * (b - A @ x)))
    np.testing.assert_allclose(solved(method, problem)[0].ravel(), x, atol=1e-5)


def test_nonnegative_is_a_projection_of_every_step():
    method = SIRT(iterations=5)
    problem = method.prepare(measurement(projections(noise=0.5)))
    A, b = dense(problem)
    C, R = inverted(A.sum(axis=0)), inverted(A.sum(axis=1))
    x = np.zeros(A.shape[1])
    for _ in range(5):
        x = np.maximum(x + C * (A.T @ (R * (b - A @ x))), 0)
    got = solved(method, problem)[0].ravel()
    np.testing.assert_allclose(got, x, atol=1e-5)
    assert (got == 0).any()


def test_a_single_step_as_a_data_step():
    """From any x, which is left as it is; what it holds and costs."""
    space = HeldSpace()
    problem = counted(SIRT().prepare(measurement(projections(noise=0.1))), space)
    R, C = inverse_sums(problem.A)
    assert (cost(problem), space.alive) == ((1, 1), [R, C])
    x = RamVolume(torch.rand(GRID.shape))
    before, space.peak = x.tensor.clone(), {}
    step = sirt_step(problem, x, R, C, 0.7)
    assert cost(problem) == (2, 2)
    assert space.alive == [R, C, step.x]
    assert space.peak == {GRID.shape: 2, tuple(problem.y.shape): 2}
    assert torch.equal(x.tensor, before)
    A, b = dense(SIRT().prepare(measurement(projections(noise=0.1))))
    flat = before.numpy().ravel()
    expected = flat + 0.7 * inverted(A.sum(axis=0)) * (A.T @ (inverted(A.sum(axis=1)) * (b - A @ flat)))
    np.testing.assert_allclose(step.x.tensor.numpy().ravel(), expected, atol=1e-5)
    assert step.squared_residual == pytest.approx(np.sum((b - A @ flat) ** 2), rel=1e-5)


def test_it_converges_to_the_object_of_exact_data():
    method = SIRT(iterations=3000, relaxation=1.9)
    problem = method.prepare(measurement(projections()))
    np.testing.assert_allclose(solved(method, problem)[0], truth(), atol=0.03)


def test_voxels_that_no_ray_meets_stay_air():
    """Column sums of zero divide nothing."""
    wide = VolumeGeometry((3, 5, 31), GRID.voxel_zyx_mm)
    two = SCAN.select(slice(0, 2))
    data = Measurement(RamVolume(torch.ones(two.shape)), two, wide, RamSpace(), 1.0)
    method = SIRT(iterations=5)
    problem = method.prepare(data)
    state = method.init(problem)
    unseen = problem.A.T(RamVolume(torch.ones(two.shape))).read(0, 3) == 0
    assert unseen.any()
    for _ in range(5):
        state, _ = method.step(problem, state)
    x = state["x"].read(0, 3)
    assert torch.isfinite(x).all()
    assert not x[unseen].any()
