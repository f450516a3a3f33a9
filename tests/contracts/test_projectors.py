"""One suite for every projector backend and geometry: whatever is in BACKENDS is tested here."""

import itertools

import numpy as np
import pytest
import torch

from tests.contracts.scans import SCANS
from volrecon.errors import ConfigError, DataError
from volrecon.projectors import BACKENDS, backend_class, dot_test, projector
from volrecon.projectors.autograd import differentiable
from volrecon.projectors.operator import Operator

MATCHED = 1e-6


def served(backend, name):
    try:
        backend_class(backend).check(*SCANS[name])
    except ConfigError:
        return False
    return True


CASES = [case for case in itertools.product(BACKENDS, SCANS) if served(*case)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def A(request):
    backend, name = request.param
    return projector(*SCANS[name], backend)


def test_joseph_serves_every_geometry_and_astra_the_stacks():
    assert {name for backend, name in CASES if backend == "joseph"} == set(SCANS)
    stacks = {"fan stack", "fan, one slice", "parallel stack"}
    assert {name for backend, name in CASES if backend == "astra"} == stacks


def random_pair(A, seed=0):
    rng = np.random.Generator(np.random.Philox(seed))
    x = rng.random(A.domain_shape, dtype=np.float32)
    y = rng.random(A.range_shape, dtype=np.float32)
    return x, y


def test_backprojection_is_the_transpose(A):
    if not A.matched:
        pytest.skip("the pair is not matched; tests/gpu records by how much")
    errors = [dot_test(A, seed) for seed in range(20)]
    assert max(errors) < MATCHED, errors


def test_a_wrong_transpose_fails_the_dot_test(A):
    class Wrong(type(A)):
        def _adjoint(self, y, x):
            super()._adjoint(y, x)
            x *= np.float32(1.001)

    broken = Wrong(A.volume_geometry, A.scan_geometry)
    assert max(dot_test(broken, seed) for seed in range(20)) > MATCHED


def test_linear(A):
    x, _ = random_pair(A)
    other, _ = random_pair(A, 1)
    together = A(2 * x - 3 * other)
    apart = 2 * A(x) - 3 * A(other)
    assert np.allclose(together, apart, atol=2e-6 * np.abs(apart).max() * 5, rtol=0)


@pytest.mark.parametrize("height", [1, 5])
def test_slabs_add_up_to_the_whole(A, height):
    x, y = random_pair(A)
    total = np.zeros(A.range_shape, np.float32)
    slabs = []
    for start in range(0, A.domain_shape[0], height):
        part = A.restrict(slices=slice(start, start + height))
        assert part.range_shape[0] == part.rows.stop - part.rows.start
        total[part.rows] += part(x[start : start + height])
        slabs.append(part.T(np.ascontiguousarray(y[part.rows])))
    whole = A(x)
    assert np.allclose(total, whole, atol=1e-5 * whole.max(), rtol=0)
    assert np.allclose(np.concatenate(slabs), A.T(y), atol=1e-5 * A.T(y).max(), rtol=0)


def test_view_blocks_add_up_to_the_whole(A):
    x, y = random_pair(A)
    views = A.scan_geometry.views
    blocks = [slice(start, min(start + 5, views)) for start in range(0, views, 5)]
    parts = [A.restrict(views=block) for block in blocks]
    together = np.concatenate([part(x) for part in parts], axis=1)
    assert np.allclose(together, A(x), atol=1e-5 * together.max(), rtol=0)
    back = sum(part.T(np.ascontiguousarray(y[:, block])) for part, block in zip(parts, blocks, strict=True))
    assert np.allclose(back, A.T(y), atol=1e-5 * back.max(), rtol=0)


def test_restriction_keeps_the_norm_of_the_whole(A):
    assert A.restrict(slices=slice(0, 1)).norm() == A.norm()


def test_norm_is_the_largest_singular_value(A):
    x, y = random_pair(A)
    bound = A.norm() * (1 + 2e-3)
    assert np.linalg.norm(A(x)) <= bound * np.linalg.norm(x)
    assert np.linalg.norm(A.T(y)) <= bound * np.linalg.norm(y)
    leading = np.ones(A.domain_shape, np.float32)
    for _ in range(150):
        leading = A.T(A(leading))
        leading /= np.linalg.norm(leading)
    assert np.linalg.norm(A(leading)) == pytest.approx(A.norm(), rel=2e-3)


def test_same_library_out(A):
    x, y = random_pair(A)
    assert isinstance(A(x), np.ndarray)
    projected = A(torch.from_numpy(x))
    assert isinstance(projected, torch.Tensor)
    assert np.array_equal(projected.numpy(), A(x))
    assert isinstance(A.T(torch.from_numpy(y)), torch.Tensor)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        np.asfortranarray,
        lambda x: x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    ],
    ids=["float64", "big-endian", "fortran", "negative strides", "strided"],
)
def test_D4_any_real_array_counts_as_its_float32_copy(A, convert):
    x, _ = random_pair(A)
    given = convert(x)
    before = given.copy()
    assert np.array_equal(A(given), A(x))
    assert np.array_equal(given, before)


def test_D4_read_only_and_integer_arrays(A):
    x = np.ones(A.domain_shape, np.int16)
    x.setflags(write=False)
    assert np.array_equal(A(x), A(x.astype(np.float32)))


def test_out_is_filled_and_checked(A):
    x, _ = random_pair(A)
    out = np.full(A.range_shape, np.nan, np.float32)
    assert A(x, out=out) is out
    assert np.array_equal(out, A(x))
    with pytest.raises(DataError, match="float32"):
        A(x, out=np.empty(A.range_shape))
    with pytest.raises(DataError, match="shape"):
        A(x, out=np.empty((1, 1, 1), np.float32))


def test_wrong_shapes_are_named(A):
    with pytest.raises(DataError, match="shape"):
        A(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(DataError, match="complex"):
        A(np.zeros(A.domain_shape, np.complex64))
    with pytest.raises(ConfigError, match="differentiable"):
        A(torch.zeros(A.domain_shape, requires_grad=True))


def test_gradient_is_the_backprojection(A):
    x, y = random_pair(A)
    tensor = torch.from_numpy(x).requires_grad_()
    residual = differentiable(A)(tensor) - torch.from_numpy(y)
    (residual**2).sum().backward()
    expected = 2 * A.T(A(x) - y)
    assert np.allclose(tensor.grad.numpy(), expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_N8_huge_and_tiny_values(A):
    x, _ = random_pair(A)
    whole = A(x).astype(np.float64)
    for scale in (1e-30, 1e8):
        scaled = A((x * np.float32(scale)).astype(np.float32)).astype(np.float64)
        assert np.isfinite(scaled).all()
        assert np.allclose(scaled / scale, whole, rtol=1e-4, atol=1e-4 * whole.max())


def test_transposing_twice_is_the_operator(A):
    assert A.T.T is A


def test_a_backend_added_by_one_line_is_found(monkeypatch):
    """A newcomer's backend: one class, one entry in BACKENDS."""

    class Sums(Operator):
        """Sums over y, whatever the geometry: a toy with an exact transpose."""

        @classmethod
        def check(cls, volume, scan):
            pass

        def _forward(self, x, y):
            y[:] = x.sum()

        def _adjoint(self, y, x):
            x[:] = y.sum()

    monkeypatch.setattr("tests.contracts.test_projectors.Sums", Sums, raising=False)
    monkeypatch.setitem(BACKENDS, "sums", "tests.contracts.test_projectors:Sums")
    assert backend_class("sums") is Sums
    assert dot_test(projector(*SCANS["cone"], "sums")) < MATCHED


def test_unknown_backend_lists_the_known():
    with pytest.raises(ConfigError, match="joseph"):
        projector(*SCANS["cone"], "josef")
