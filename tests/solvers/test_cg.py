"""Conjugate gradients against dense linear algebra, and every way they may end."""

import numpy as np
import pytest
import torch
from held import HeldSpace
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError
from volrecon.solvers.cg import Stop, conjugate_gradients
from volrecon.volume import RamSpace, RamVolume, Readable


class DenseProduct(Readable):
    def __init__(self, operator, p):
        flat = p.tensor.numpy().ravel().astype(np.float64)
        Bp = operator.matrix @ flat
        self.operator, self.block, self.curvature = operator, torch.from_numpy(Bp.reshape(p.shape)).float(), flat @ Bp

    @property
    def shape(self):
        return tuple(self.block.shape)

    def read(self, start, stop):
        self.operator.read_slices += stop - start
        return self.block[start:stop]

    def release(self):
        self.operator.held -= 1


class Dense:
    """A matrix as an operator on volumes (z, y, x), which counts its uses."""

    def __init__(self, matrix):
        self.matrix, self.calls, self.held, self.read_slices = np.asarray(matrix, np.float64), 0, 0, 0

    def __call__(self, p):
        self.calls += 1
        self.held += 1
        return DenseProduct(self, p)


def system(shape, seed, condition=30.0):
    """A symmetric positive matrix of that condition, a right side and a start."""
    n, rng = int(np.prod(shape)), np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return Q @ np.diag(np.geomspace(1, condition, n)) @ Q.T, rng.standard_normal(n), rng.standard_normal(n)


def volume(flat, shape) -> RamVolume:
    return RamVolume(torch.from_numpy(np.asarray(flat).reshape(shape)).float())


def solve(matrix, b, start, shape, iterations=200, tolerance=0.0, space=None):
    B = Dense(matrix)
    x = volume(start, shape)
    residual = volume(b - B.matrix @ np.asarray(start), shape)
    solution = conjugate_gradients(B, x, residual, iterations, tolerance, space or RamSpace())
    assert B.held == 0
    assert np.array_equal(x.tensor.numpy().ravel(), np.asarray(start, np.float32))
    return solution, solution.x.tensor.numpy().ravel().astype(np.float64), B


@settings(deadline=None, max_examples=20)
@given(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), st.integers(0, 1000))
def test_it_solves_the_system(shape, seed):
    matrix, b, start = system(shape, seed)
    solution, x, _ = solve(matrix, b, start, shape, tolerance=1e-5)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), atol=2e-4)
    assert solution.stop is Stop.CONVERGED
    assert len(solution.alphas) <= 2 * matrix.shape[0]


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_every_iterate_is_best_in_its_krylov_space(iterations):
    shape = (2, 3, 4)
    matrix, b, start = system(shape, 3)
    r = b - matrix @ start
    basis = np.stack([np.linalg.matrix_power(matrix, k) @ r for k in range(iterations)], axis=1)
    expected = start + basis @ np.linalg.solve(basis.T @ matrix @ basis, basis.T @ r)
    solution, x, _ = solve(matrix, b, start, shape, iterations)
    np.testing.assert_allclose(x, expected, atol=2e-5)
    assert solution.stop is Stop.ITERATIONS
    energy = [v @ matrix @ v - 2 * b @ v for v in (start, expected)]
    assert solution.descent == pytest.approx(energy[0] - energy[1], rel=1e-5)


@pytest.mark.parametrize(("iterations", "volumes"), [(1, 2), (2, 3), (6, 3)])
def test_what_it_holds_and_costs(iterations, volumes):
    shape, space = (4, 3, 2), HeldSpace()
    matrix, b, start = system(shape, 1)
    solution, _, B = solve(matrix, b, start, shape, iterations, space=space)
    assert (B.calls, B.read_slices) == (iterations, (iterations - 1) * shape[0])
    assert space.peak == {shape: volumes}
    assert space.alive == [solution.x]


def test_the_tolerance_is_relative_to_the_first_residual():
    shape = (2, 3, 4)
    matrix, b, start = system(shape, 5)
    for scale in (1.0, 1e3):
        solution, x, _ = solve(matrix, scale * b, scale * start, shape, tolerance=0.1)
        lengths = np.linalg.norm([b * scale - matrix @ x, scale * (b - matrix @ start)], axis=1)
        assert lengths[0] <= 0.1 * lengths[1]
        assert solution.stop is Stop.CONVERGED
        assert 1 < len(solution.alphas) < 15
        assert (np.array(solution.squares[:-1]) > 0.01 * solution.squares[0]).all()


def test_blocks_do_not_matter(monkeypatch):
    shape = (5, 3, 4)
    matrix, b, start = system(shape, 2)
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", 2)
    results = [solve(matrix, b, start, shape, 7, space=space)[1] for space in (RamSpace(), RamSpace(1))]
    assert RamSpace(1).height(shape) == 2
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_N2_no_right_side(start):
    """b = 0 from 0 stays, from elsewhere goes to 0."""
    shape = (2, 2, 2)
    matrix, _, _ = system(shape, 0)
    solution, x, B = solve(matrix, np.zeros(8), np.full(8, start), shape, tolerance=1e-6)
    assert solution.stop is Stop.CONVERGED
    np.testing.assert_allclose(x, 0, atol=1e-5)
    assert B.calls == 0 or start


def test_N2_an_exact_start_stops_at_once():
    shape = (2, 2, 2)
    solution, x, B = solve(np.eye(8), np.arange(8.0), np.arange(8.0), shape)
    assert (solution.stop, B.calls, solution.alphas) == (Stop.CONVERGED, 0, ())
    assert x.tolist() == list(range(8))


@pytest.mark.parametrize("matrix", [np.zeros((8, 8)), -np.eye(8), np.diag([1.0, -2.0] * 4)])
def test_N2_no_positive_operator(matrix):
    """Zero, negative, indefinite: a code, and the x that was reached."""
    solution, x, _ = solve(matrix, np.ones(8), np.zeros(8), (2, 2, 2))
    assert solution.stop is Stop.NOT_POSITIVE
    assert np.isfinite(x).all()
    if matrix[0, 0] <= 0:
        assert not x.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["residual", "operator"])
def test_N2_numbers_that_are_none(bad, where):
    x, ones = volume(np.zeros(8), (2, 2, 2)), np.ones(8)
    residual, matrix = (bad * ones, np.eye(8)) if where == "residual" else (ones, np.diag(bad * ones))
    with np.errstate(invalid="ignore"):
        solution = conjugate_gradients(Dense(matrix), x, volume(residual, (2, 2, 2)), 5, 0.0, RamSpace())
    assert solution.stop is Stop.NOT_FINITE
    assert not solution.x.tensor.any()


@pytest.mark.parametrize(("iterations", "tolerance"), [(0, 0.0), (-1, 0.0), (3, -0.1), (3, 1.0), (3, np.nan)])
def test_impossible_numbers_are_refused(iterations, tolerance):
    with pytest.raises(ConfigError, match="CG iterations"):
        solve(np.eye(8), np.ones(8), np.zeros(8), (2, 2, 2), iterations, tolerance)
