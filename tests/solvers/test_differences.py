"""The gradient of a slab, its transpose, and the ball that total variation clips to."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.solvers.differences import clip_to_ball, gradient, gradient_transpose
from volrecon.volume import Slab

shapes = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 5))
spacings = st.sampled_from([(1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.5, 3.0, 1.0)])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def by_numpy(x: np.ndarray, spacing) -> np.ndarray:
    out = np.zeros((x.shape[0], 3, *x.shape[1:]), np.float32)
    out[:-1, 0] = np.diff(x, axis=0) / spacing[0]
    out[:, 1, :-1] = np.diff(x, axis=1) / spacing[1]
    out[:, 2, :, :-1] = np.diff(x, axis=2) / spacing[2]
    return out


def slabs(slices: int, height: int):
    for start in range(0, slices, height):
        stop = min(start + height, slices)
        yield Slab(start, stop, int(start > 0), int(stop < slices))


def split_gradient(x: torch.Tensor, height: int, spacing) -> torch.Tensor:
    parts = []
    for s in slabs(len(x), height):
        with_halo = gradient(s, x[s.start - s.below : s.stop + s.above], spacing)
        assert len(with_halo) == s.below + s.stop - s.start
        parts.append(with_halo[s.below :])
    return torch.cat(parts)


def split_transpose(v: torch.Tensor, height: int, spacing) -> torch.Tensor:
    return torch.cat([gradient_transpose(s, v[s.start - s.below : s.stop], spacing) for s in slabs(len(v), height)])


@settings(max_examples=60, deadline=None)
@given(shape=shapes, height=st.integers(1, 8), spacing=spacings)
def test_slabs_of_any_height_give_the_whole(shape, height, spacing):
    x = random(*shape)
    np.testing.assert_allclose(split_gradient(x, height, spacing), by_numpy(x.numpy(), spacing), atol=1e-6)
    v = split_gradient(random(*shape, seed=1), height, spacing)
    assert torch.equal(split_transpose(v, height, spacing), split_transpose(v, len(x), spacing))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, height=st.integers(1, 8), spacing=spacings)
def test_the_transpose_is_the_adjoint(shape, height, spacing):
    x, v = random(*shape), random(shape[0], 3, *shape[1:], seed=1)
    v[-1, 0], v[:, 1, -1], v[:, 2, :, -1] = 0, 0, 0
    Dx, Dv = split_gradient(x, height, spacing).double(), split_transpose(v, height, spacing).double()
    left, right = float((Dx * v).sum()), float((x * Dv).sum())
    assert abs(left - right) <= 1e-6 * float(Dx.norm() * v.double().norm()) + 1e-12


def test_the_transpose_takes_nothing_from_the_ends_in_plane():
    v = random(3, 3, 4, 5)
    clean = v.clone()
    clean[:, 1, -1], clean[:, 2, :, -1] = 0, 0
    whole = Slab(0, 3)
    assert torch.equal(gradient_transpose(whole, v, (1.0,) * 3), gradient_transpose(whole, clean, (1.0,) * 3))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (0.5, 3.0, 1.0)])
def test_the_stated_bound_of_the_norm(spacing):
    shape = (6, 6, 6)
    D = np.stack([by_numpy(e.reshape(shape), spacing).ravel() for e in np.eye(216, dtype=np.float32)], axis=1)
    norm = np.linalg.norm(D, 2) ** 2
    bound = 4 * sum(1 / h**2 for h in spacing)
    assert 0.9 * bound < norm <= bound


def test_arguments_are_left_alone():
    x, v = random(3, 4, 5), random(3, 3, 4, 5)
    held = x.clone(), v.clone()
    gradient(Slab(0, 3), x, (2.0, 1.0, 1.0))
    gradient_transpose(Slab(0, 3), v, (2.0, 1.0, 1.0))
    clip_to_ball(v, 0.3)
    assert torch.equal(x, held[0])
    assert torch.equal(v, held[1])


@settings(max_examples=40, deadline=None)
@given(radius=st.sampled_from([1e-6, 0.1, 1.0, 10.0]), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_clipping_is_the_projection_onto_the_ball(radius, scale):
    s, other = random(2, 3, 4, 5) * scale, random(2, 3, 4, 5, seed=1) * scale
    clipped, length = clip_to_ball(s, radius), torch.linalg.norm(s, dim=1, keepdim=True)
    assert (torch.linalg.norm(clipped, dim=1) <= radius * (1 + 1e-5)).all()
    inside = (length <= radius).expand_as(s)
    torch.testing.assert_close(clipped[inside], s[inside])
    # s - clip(s) is the shrinkage of soft thresholding.
    shrunk = s * torch.clamp(1 - radius / length.clamp(min=1e-30), min=0)
    torch.testing.assert_close(s - clipped, shrunk, atol=1e-5 * scale, rtol=1e-4)
    torch.testing.assert_close(clip_to_ball(clipped, radius), clipped)
    moved = torch.linalg.norm(clip_to_ball(other, radius) - clipped, dim=1)
    assert (moved <= torch.linalg.norm(other - s, dim=1) * (1 + 1e-5) + 1e-6 * scale).all()


def test_a_ball_of_no_radius():
    assert not clip_to_ball(random(2, 3, 4, 5), 0.0).any()
    assert torch.equal(clip_to_ball(torch.zeros(2, 3, 4, 5), 1.0), torch.zeros(2, 3, 4, 5))
