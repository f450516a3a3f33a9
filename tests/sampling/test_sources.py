"""Slice-correlated noise: its ends, what is between them, and the same numbers for any slab."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.sampling import NOISES, NoiseKey, SliceCorrelated, noise_source, standard_normal

KEY = NoiseKey(seed=11, step=5, purpose=2, sample=1)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))


@pytest.mark.parametrize("name", NOISES)
@settings(deadline=None, max_examples=30)
@given(shape=shapes, cut=st.integers(0, 8))
def test_slabs_are_pieces_of_the_whole(name, shape, cut):
    source, cut = noise_source(name, shape[0]), min(cut, shape[0] - 1)
    whole = source(KEY, 0, shape)
    assert (whole.dtype, tuple(whole.shape)) == (torch.float32, shape)
    assert torch.isfinite(whole).all()
    parts = [source(KEY, 0, (cut, *shape[1:])), source(KEY, cut, (shape[0] - cut, *shape[1:]))]
    assert torch.equal(torch.cat(parts), whole)


def test_independent_noise_is_the_standard_one():
    assert torch.equal(noise_source("independent", 7)(KEY, 2, (3, 4, 5)), standard_normal(KEY, 2, (3, 4, 5)))


def test_the_ends_are_independent_slices():
    found, own = SliceCorrelated(8)(KEY, 0, (8, 20, 30)), standard_normal(KEY, 0, (8, 20, 30))
    torch.testing.assert_close(found[[0, -1]], own[[0, -1]])


def test_between_the_ends_it_turns_at_a_constant_rate():
    """Slerp in the plane of both ends: equal angles between neighbours, up to the ends' lengths."""
    z = SliceCorrelated(9)(KEY, 0, (9, 40, 50)).double().flatten(1).numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    a, b = unit[0], unit[-1]
    inside = unit - np.outer(unit @ a, a)
    across = (b - (b @ a) * a) / np.linalg.norm(b - (b @ a) * a)
    np.testing.assert_allclose(inside, np.outer(unit @ across, across), atol=1e-6)
    angles = np.arccos(np.clip((unit[1:] * unit[:-1]).sum(1), -1, 1))
    np.testing.assert_allclose(angles, np.arccos(a @ b) / 8, rtol=0.03)


def test_every_slice_is_white():
    """Variance 1 and no correlation of neighbouring pixels, within five standard errors."""
    z = SliceCorrelated(11)(KEY, 0, (11, 100, 120)).double().numpy()
    n = z[0].size
    np.testing.assert_allclose((z**2).mean(axis=(1, 2)), 1, atol=5 * np.sqrt(2 / n) + 2 / np.sqrt(n))
    for lag in ((z[:, 1:] * z[:, :-1]).mean(axis=(1, 2)), (z[:, :, 1:] * z[:, :, :-1]).mean(axis=(1, 2))):
        assert np.abs(lag).max() < 5 / np.sqrt(n)


def test_neighbours_hardly_differ():
    z = SliceCorrelated(64)(KEY, 0, (64, 32, 32))
    own = standard_normal(KEY, 0, (64, 32, 32))
    assert float((z[1:] - z[:-1]).std()) < 0.05 < float((own[1:] - own[:-1]).std())


def test_another_key_is_other_noise():
    source = SliceCorrelated(5)
    first, other = (source(key, 0, (5, 40, 50)).flatten().numpy() for key in (KEY, KEY.at(6, 2)))
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.1


@pytest.mark.parametrize("slices", [1, 2])
def test_volumes_of_hardly_any_slice(slices):
    found = SliceCorrelated(slices)(KEY, 0, (slices, 6, 7))
    torch.testing.assert_close(found, standard_normal(KEY, 0, (slices, 6, 7)))
