"""ADMM with variation between slices: its formula, its limit, and what it holds."""

import numpy as np
import pytest
import torch
from held import HeldSpace, cost, counted
from test_coupling import matrix
from tiny import GRID, dense, measurement, projections, truth

from volrecon.datasteps import proximal
from volrecon.errors import ConfigError
from volrecon.solvers.admm_ztv import admm_sweep
from volrecon.solvers.cg import Stop
from volrecon.solvers.coupling import AlongZ, Isotropic
from volrecon.solvers.problem import least_squares
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume

DIFFERENCES = [AlongZ(2.0), Isotropic((2.0, 1.0, 1.0))]
EXACT = {"iterations": 100, "tolerance": 1e-6}


@pytest.fixture(scope="module")
def problem():
    return least_squares(measurement(projections(noise=0.3)), "none")


def start(noise: float = 0.2) -> RamVolume:
    return RamVolume(torch.from_numpy(truth() + noise * np.random.default_rng(9).standard_normal(GRID.shape)).float())


def sweeps(problem, difference, count, x=None, **numbers):
    x, s = x or start(), problem.space.zeros(difference.shape(GRID.shape))
    for _ in range(count):
        split = admm_sweep(problem, x, s, difference, **numbers)
        x, s = split.x, split.s
    return split


def flat(volume) -> np.ndarray:
    return volume.read(0, volume.shape[0]).numpy().astype(np.float64).ravel()


def shrink(difference, v, tau):
    if isinstance(difference, AlongZ):
        return np.sign(v) * np.maximum(np.abs(v) - tau, 0)
    parts = v.reshape(GRID.shape[0], 3, -1)
    length = np.linalg.norm(parts, axis=1, keepdims=True)
    return (parts * np.maximum(1 - tau / np.maximum(length, 1e-30), 0)).ravel()


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_the_published_iteration(problem, difference):
    """Three sweeps with d and u written out, x solved exactly."""
    lam, rho = 0.02, 0.1
    A, y = dense(problem)
    D = matrix(difference, GRID.shape)
    d, u = np.zeros(D.shape[0]), np.zeros(D.shape[0])
    for _ in range(3):
        x = np.linalg.solve(A.T @ A + rho * D.T @ D, A.T @ y + rho * D.T @ (d - u))
        d = shrink(difference, D @ x + u, lam / rho)
        u = u + D @ x - d
    split = sweeps(problem, difference, 3, lam=lam, rho=rho, **EXACT)
    np.testing.assert_allclose(flat(split.x), x, atol=3e-3)
    np.testing.assert_allclose(flat(split.s), d + u, atol=3e-3)
    assert split.squared_residual[1] == pytest.approx(((y - A @ x) ** 2).sum(), rel=1e-3)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_the_limit_is_the_minimum(problem, difference):
    lam = 0.02
    A, y = dense(problem)
    D = matrix(difference, GRID.shape)
    split = sweeps(problem, difference, 250, lam=lam, rho=0.05, iterations=8)

    def objective(x):
        v = D @ x
        variation = np.abs(v) if isinstance(difference, AlongZ) else np.linalg.norm(v.reshape(3, 3, -1), axis=1)
        return 0.5 * ((y - A @ x) ** 2).sum() + lam * variation.sum()

    x, rng = flat(split.x), np.random.default_rng(0)
    for step in [rng.standard_normal(x.size) for _ in range(100)] + [np.linalg.lstsq(A, y)[0] - x]:
        for size in (1e-2, 0.1, 1.0):
            assert objective(x + size * step) > objective(x) - 1e-6
    assert objective(x) < 0.99 * objective(np.linalg.lstsq(A, y)[0])


def test_one_cg_iteration_moves_along_the_gradient(problem):
    """M = 1, DiffusionMBIR's: x + alpha r with the step of least energy."""
    lam, rho, difference = 0.02, 0.1, AlongZ(2.0)
    A, y = dense(problem)
    D, x = matrix(difference, GRID.shape), flat(start())
    r = A.T @ (y - A @ x) - rho * D.T @ D @ x
    expected = x + (r @ r) / (np.sum((A @ r) ** 2) + rho * np.sum((D @ r) ** 2)) * r
    split = sweeps(problem, difference, 1, lam=lam, rho=rho, iterations=1)
    np.testing.assert_allclose(flat(split.x), expected, atol=1e-5)
    residuals = [((y - A @ v) ** 2).sum() for v in (x, expected)]
    assert split.squared_residual == pytest.approx(residuals, rel=1e-4)
    assert split.stop is Stop.ITERATIONS


def test_N4_without_a_weight_it_is_plain_cg(problem):
    for count in (1, 2):
        split = sweeps(problem, AlongZ(2.0), count, lam=0.0, rho=0.1, iterations=4)
        plain = start()
        for _ in range(count):
            plain = proximal(problem, plain, gamma=np.inf, iterations=4).x
        assert torch.equal(split.x.tensor, plain.tensor)


def test_more_weight_less_variation(problem):
    """A huge weight joins all slices into one."""
    D = matrix(AlongZ(2.0), GRID.shape)
    variations = [
        np.abs(D @ flat(sweeps(problem, AlongZ(2.0), 40, lam=lam, rho=0.1, iterations=8).x)).sum()
        for lam in (1e-3, 1e-2, 1e-1, 1.0)
    ]
    assert variations == sorted(variations, reverse=True)
    assert variations[-1] < 0.02 * variations[0]


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("iterations", [1, 5])
def test_what_it_holds_and_costs(problem, difference, iterations):
    space = HeldSpace()
    one = counted(problem, space)
    x, s = start(), RamVolume(torch.zeros(difference.shape(GRID.shape)))
    split = admm_sweep(one, x, s, difference, lam=0.01, rho=0.1, iterations=iterations)
    assert cost(one) == (iterations + 1, iterations)
    assert set(space.alive) == {split.x, split.s}
    own = 3 if iterations > 1 else 2
    assert space.peak[GRID.shape] == own
    assert space.peak[tuple(problem.y.shape)] == 2
    assert torch.equal(x.tensor, start().tensor)
    assert not s.tensor.any()


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_tiers_and_blocks(difference, tmp_path, monkeypatch):
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", 1)
    results = []
    with ZarrSpace(tmp_path, 1) as disk:
        for space in (RamSpace(), RamSpace(1), disk):
            m = measurement(projections(noise=0.3))
            problem = least_squares(type(m)(m.projections, m.scan, m.volume, space, 1.0), "none")
            x = space.of(start())
            split = sweeps(problem, difference, 2, x, lam=0.02, rho=0.1, iterations=3)
            results.append((flat(split.x), flat(split.s)))
    for whole, thin, stored in zip(*results, strict=True):
        assert thin.tobytes() == stored.tobytes()
        np.testing.assert_allclose(thin, whole, atol=1e-5)


@pytest.mark.parametrize(
    "numbers",
    [
        {"lam": -1e-3, "rho": 0.1},
        {"lam": np.nan, "rho": 0.1},
        {"lam": 1e30, "rho": 0.1},
        {"lam": 0.1, "rho": 0.0},
        {"lam": 0.1, "rho": -1.0},
        {"lam": 0.1, "rho": np.nan},
        {"lam": 0.1, "rho": 1e30},
    ],
)
def test_N4_weights_without_meaning_are_refused(problem, numbers):
    with pytest.raises(ConfigError):
        sweeps(problem, AlongZ(), 1, **numbers, iterations=2)
