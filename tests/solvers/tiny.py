"""Problems so small that NumPy solves them densely."""

import numpy as np
import torch

from volrecon.geometry import VolumeGeometry, parallel
from volrecon.noise import Noise
from volrecon.solvers import LeastSquares, Measurement, Method, State
from volrecon.volume import RamSpace, RamVolume

GRID = VolumeGeometry((3, 5, 5), (2.0, 1.0, 1.0))
SCAN = parallel(detector_shape=(3, 8), pixel_mm=(2.0, 1.0), angles=np.pi * (np.arange(12) + 0.5) / 12)


def truth(seed: int = 0) -> np.ndarray:
    x = np.zeros(GRID.shape)
    x[:, 1:4, 1:4] = 1.0
    x[1, 2:, 2:4] = 0.4
    return x + 0.1 * np.random.default_rng(seed).random(GRID.shape)


def measurement(y: np.ndarray, noise: Noise | None = None, block_bytes: int = 2**20) -> Measurement:
    stored = RamVolume(torch.from_numpy(np.asarray(y, np.float32)))
    return Measurement(stored, SCAN, GRID, RamSpace(block_bytes), 1.0, noise or Noise())


def dense(problem: LeastSquares) -> tuple[np.ndarray, np.ndarray]:
    """The weighted, normalised matrix and right-hand side, float64."""
    n = int(np.prod(GRID.shape))
    columns = []
    for k in range(n):
        unit = torch.zeros(n)
        unit[k] = 1
        columns.append(problem.A(RamVolume(unit.reshape(GRID.shape))).read(0, 3).numpy().ravel().astype(np.float64))
    return np.stack(columns, axis=1), problem.y.read(0, 3).numpy().ravel().astype(np.float64)


def projections(seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """Line integrals of `truth`, with Gaussian noise that no volume can explain."""
    from volrecon.projectors import projector

    y = projector(GRID, SCAN)(truth(seed).astype(np.float32))
    return y + noise * np.random.default_rng(seed + 1).standard_normal(y.shape).astype(np.float32)


def solved(method: Method, problem: LeastSquares) -> tuple[np.ndarray, State]:
    state = method.init(problem)
    while state.step < method.steps(problem):
        state, _ = method.step(problem, state)
    return state["x"].read(0, 3).numpy().astype(np.float64), state


def differences(x: np.ndarray) -> np.ndarray:
    """D x by NumPy, (3, z, y, x), in units of the voxel in x; ends free."""
    out = np.zeros((3, *x.shape))
    out[0, :-1] = np.diff(x, axis=0) / 2.0
    out[1, :, :-1] = np.diff(x, axis=1)
    out[2, :, :, :-1] = np.diff(x, axis=2)
    return out


def total_variation(x: np.ndarray) -> float:
    return float(np.sqrt((differences(x) ** 2).sum(axis=0)).sum())
