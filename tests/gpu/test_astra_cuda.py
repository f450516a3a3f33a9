"""ASTRA on a GPU: zero-copy arrays, agreement with `joseph`, and by how much the pair is not matched."""

import numpy as np
import pytest

from tests.contracts.scans import SCANS
from volrecon.errors import ConfigError
from volrecon.projectors import dot_test, projector

pytestmark = pytest.mark.gpu
astra = pytest.importorskip("astra")

UNMATCHED = 5e-2
"""Bound of the dot test on smooth data until a GPU has measured it (bench/GPU.md)."""

CUDA_SCANS = ["cone", "cone, offset and tilted", "helix", "fan stack", "fan, one slice", "parallel, inclined"]


@pytest.fixture(autouse=True)
def _needs_cuda():
    if not astra.use_cuda():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("name", CUDA_SCANS)
def test_agrees_with_joseph(name):
    volume, scan = SCANS[name]
    A, peer = projector(volume, scan, device="cuda"), projector(volume, scan, "joseph")
    x = np.zeros(volume.shape, np.float32)
    x[:, 4:-5, 5:-4] = 1.0
    assert np.linalg.norm(A(x) - peer(x)) < 2e-2 * np.linalg.norm(peer(x))
    y = peer(x)
    assert np.linalg.norm(A.T(y) - peer.T(y)) < 5e-2 * np.linalg.norm(peer.T(y))


@pytest.mark.parametrize("name", CUDA_SCANS)
def test_mismatch_of_the_pair_is_bounded(name):
    A = projector(*SCANS[name], device="cuda")
    assert not A.matched
    error = max(dot_test(A, seed) for seed in range(20))
    print(f"{name}: dot test {error:.3g}")
    assert error < UNMATCHED


def test_torch_tensors_stay_on_the_gpu():
    torch = pytest.importorskip("torch")
    A = projector(*SCANS["cone"], device="cuda")
    x = torch.rand(A.domain_shape, device="cuda")
    y = A(x)
    assert y.device.type == "cuda"
    assert np.allclose(y.cpu().numpy(), A(x.cpu().numpy()), rtol=1e-5, atol=1e-5)


def test_cupy_arrays_stay_on_the_gpu():
    cupy = pytest.importorskip("cupy")
    A = projector(*SCANS["cone"], device="cuda")
    x = cupy.random.random(A.domain_shape, dtype=cupy.float32)
    assert isinstance(A(x), cupy.ndarray)


def test_joseph_refuses_gpu_arrays():
    torch = pytest.importorskip("torch")
    A = projector(*SCANS["cone"])
    with pytest.raises(ConfigError, match="GPU"):
        A(torch.zeros(A.domain_shape, device="cuda"))
