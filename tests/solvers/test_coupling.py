"""Differences along z and in 3D as operators of a penalty, and the normal operator they enter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import GRID, dense, measurement, projections

from volrecon.errors import ConfigError
from volrecon.solvers.coupling import AlongZ, Isotropic
from volrecon.solvers.normal import NormalOperator, data_residual, with_halo
from volrecon.solvers.problem import least_squares
from volrecon.volume import RamVolume

DIFFERENCES = [AlongZ(), AlongZ(2.5), Isotropic((2.0, 1.0, 1.0))]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def slabs(slices: int, height: int):
    return [(start, min(start + height, slices)) for start in range(0, slices, height)]


def whole(difference, x: torch.Tensor, height: int) -> torch.Tensor:
    """D x, put together from slabs."""
    parts = [with_halo(RamVolume(x), *slab) for slab in slabs(len(x), height)]
    return torch.cat([difference(slab, block)[slab.below :] for slab, block in parts])


def transposed(difference, v: torch.Tensor, height: int) -> torch.Tensor:
    parts = [with_halo(RamVolume(v), *slab) for slab in slabs(len(v), height)]
    return torch.cat([difference.transpose(slab, block[: len(block) - slab.above]) for slab, block in parts])


def matrix(difference, shape) -> np.ndarray:
    units = np.eye(int(np.prod(shape)), dtype=np.float32)
    return np.stack(
        [whole(difference, torch.from_numpy(e.reshape(shape)), shape[0]).numpy().ravel() for e in units], axis=1
    )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
    height=st.integers(1, 7),
    difference=st.sampled_from(DIFFERENCES),
)
def test_the_transpose_is_the_adjoint_for_slabs_of_any_height(shape, height, difference):
    x = random(*shape)
    Dx = whole(difference, x, height)
    assert tuple(Dx.shape) == difference.shape(shape)
    assert torch.equal(Dx, whole(difference, x, shape[0]))
    v = whole(difference, random(*shape, seed=1), height)
    Dv = transposed(difference, v, height)
    left, right = float((Dx.double() * v).sum()), float((x.double() * Dv).sum())
    assert abs(left - right) <= 1e-6 * float(Dx.double().norm() * v.double().norm()) + 1e-12


@pytest.mark.parametrize("spacing", [1.0, 2.5])
def test_differences_along_z_have_free_ends(spacing):
    """No slice is joined to the one at the other end."""
    x = random(4, 2, 3)
    expected = np.zeros(x.shape, np.float32)
    expected[:-1] = np.diff(x.numpy(), axis=0) / spacing
    np.testing.assert_allclose(whole(AlongZ(spacing), x, 2), expected, atol=1e-6)
    D = matrix(AlongZ(spacing), (9, 1, 1))
    assert 3.8 / spacing**2 < np.linalg.norm(D, 2) ** 2 < 4 / spacing**2


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_clipping_leaves_the_shrinkage(difference):
    """s - clip(s) minimises radius ||d|| + 1/2 ||d - s||^2: nothing near it is better."""
    s = random(*difference.shape((2, 3, 4)))
    d = s - difference.clip(s, 0.7)

    def objective(d):
        length = d.abs().sum() if isinstance(difference, AlongZ) else torch.linalg.norm(d, dim=1).sum()
        return float(0.7 * length + 0.5 * ((d - s) ** 2).sum())

    assert (d == 0).any() or isinstance(difference, Isotropic)
    for seed in range(100):
        for size in (1e-2, 0.3):
            assert objective(d + size * random(*s.shape, seed=seed)) > objective(d)


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize(("ridge", "rho"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
@pytest.mark.parametrize("block_bytes", [2**20, 1])
def test_the_normal_operator(difference, ridge, rho, block_bytes, monkeypatch):
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", 1)
    problem = least_squares(measurement(projections(), block_bytes=block_bytes), "none")
    A, y = dense(problem)
    D = matrix(difference, GRID.shape)
    B = A.T @ A + ridge * np.eye(A.shape[1]) + rho * D.T @ D
    p = RamVolume(random(*GRID.shape))
    product = NormalOperator(problem.A, ridge, rho, difference)(p)
    flat = p.tensor.numpy().ravel().astype(np.float64)
    found = torch.cat([product.read(*slab) for slab in problem.space.blocks(GRID.shape)])
    np.testing.assert_allclose(found.numpy().ravel(), B @ flat, atol=1e-5)
    assert product.curvature == pytest.approx(flat @ B @ flat, rel=1e-5)
    left = data_residual(problem, p)
    np.testing.assert_allclose(left.r.tensor.numpy().ravel(), y - A @ flat, atol=1e-5)
    rows = ((y - A @ flat) ** 2).reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(left.row_squares, rows, rtol=1e-4)
    assert left.squared == pytest.approx(rows.sum(), rel=1e-5)


@pytest.mark.parametrize("weights", [{"ridge": -1.0}, {"ridge": np.nan}, {"rho": 1e30}, {"rho": -0.1}])
def test_N4_weights_without_meaning_are_refused(weights):
    problem = least_squares(measurement(projections()), "none")
    with pytest.raises(ConfigError, match="must be 0 to"):
        NormalOperator(problem.A, **weights, difference=AlongZ())
    with pytest.raises(ConfigError, match="no difference operator"):
        NormalOperator(problem.A, rho=0.1)(RamVolume(random(*GRID.shape)))
