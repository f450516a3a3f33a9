"""Noise is a function of seed, step, purpose, sample and voxel: known answers, statistics, and nobody else's state."""

import numpy as np
import pytest
import torch

from volrecon.sampling import NoiseKey, standard_normal, uniform_integers
from volrecon.sampling.noise import _philox

KEY = NoiseKey(seed=12345678901234567890, step=7, purpose=3, sample=2)

ANSWERS = [
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
"""Philox4x32-10: counter, key, output, from Random123's kat_vectors."""


@pytest.mark.parametrize(("counter", "key", "answer"), ANSWERS)
def test_known_answers(counter, key, answer):
    words = _philox(*(np.uint32(word) for word in (*counter, *key)))
    assert " ".join(f"{int(word):08x}" for word in words) == answer


def test_normals_are_box_muller_of_the_stated_counters():
    """Key: seed. Counter: voxel // 4, slice, step, purpose + 256 sample. Lanes: two pairs of cosine and sine."""
    found = standard_normal(KEY, 5, (2, 3, 5)).numpy().reshape(2, 15)
    seed = KEY.seed
    for z in range(2):
        for quad in range(4):
            counter = (quad, 5 + z, 7, 3 + 256 * 2, seed % 2**32, seed >> 32)
            u = [(int(word) + 0.5) / 2**32 for word in _philox(*map(np.uint32, counter))]
            expected = [
                np.sqrt(-2 * np.log(u[2 * pair])) * turn(2 * np.pi * u[2 * pair + 1])
                for pair in range(2)
                for turn in (np.cos, np.sin)
            ]
            lanes = found[z, 4 * quad : 4 * quad + 4]
            np.testing.assert_allclose(lanes, expected[: len(lanes)], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (2, 3, 3), (5, 7, 2), (4, 5, 13)])
def test_slabs_are_pieces_of_the_whole(shape):
    whole = standard_normal(KEY, 10, shape)
    assert whole.shape == shape
    assert whole.dtype == torch.float32
    assert torch.isfinite(whole).all()
    for start in range(shape[0]):
        part = standard_normal(KEY, 10 + start, (shape[0] - start, *shape[1:]))
        assert torch.equal(part, whole[start:])


def test_rows_of_another_length_are_other_voxels_of_one_stream():
    assert torch.equal(
        standard_normal(KEY, 0, (2, 4, 6)).reshape(2, 24), standard_normal(KEY, 0, (2, 8, 3)).reshape(2, 24)
    )


def test_different_keys_give_independent_numbers():
    keys = [
        NoiseKey(1),
        NoiseKey(2),
        NoiseKey(1 + 2**32),
        NoiseKey(1, step=1),
        NoiseKey(1, purpose=1),
        NoiseKey(1, sample=1),
    ]
    noise = np.stack([standard_normal(key, 0, (1, 40, 50)).numpy().ravel() for key in keys])
    noise = np.concatenate([noise, standard_normal(keys[0], 1, (1, 40, 50)).numpy().reshape(1, -1)])
    correlation = np.corrcoef(noise) - np.eye(len(noise))
    assert abs(correlation).max() < 5 / np.sqrt(noise.shape[1])


def test_at_keeps_seed_and_sample():
    assert KEY.at(9, 4) == NoiseKey(KEY.seed, 9, 4, KEY.sample)
    assert KEY.at(9).purpose == 0


def test_normal_moments():
    """Mean, variance, skewness, kurtosis and tails within five standard errors."""
    z = standard_normal(NoiseKey(3), 0, (8, 100, 125)).numpy().astype(np.float64).ravel()
    n = z.size
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert (z**power).mean() == pytest.approx(moment, abs=5 * np.sqrt(variance / n))
    for level, share in [(1.0, 0.158655), (2.0, 0.022750), (3.0, 0.001350)]:
        for tail in (z > level, z < -level):
            assert tail.mean() == pytest.approx(share, abs=5 * np.sqrt(share / n))
    lag = (z[1:] * z[:-1]).mean()
    assert abs(lag) < 5 / np.sqrt(n)


@pytest.mark.parametrize("below", [1, 2, 7, 576, 2**31])
def test_uniform_integers_lie_in_range(below):
    drawn = uniform_integers(NoiseKey(4), 200, below)
    assert drawn.dtype == np.int64
    assert drawn.min() >= 0
    assert drawn.max() < below
    if below <= 7:
        assert set(drawn) == set(range(below))
    else:
        assert drawn.mean() == pytest.approx(below / 2, abs=5 * below / np.sqrt(12 * 200))


def test_uniform_integers_depend_on_the_key_alone():
    draws = [
        tuple(uniform_integers(key, 8, 1000))
        for key in (NoiseKey(1), NoiseKey(2), NoiseKey(1, step=1), NoiseKey(1, purpose=1), NoiseKey(1, sample=1))
    ]
    assert len(set(draws)) == len(draws)
    assert tuple(uniform_integers(NoiseKey(1), 3, 1000)) == draws[0][:3]


def test_R3_the_callers_random_numbers_are_untouched():
    torch.manual_seed(0)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = standard_normal(KEY, 0, (2, 3, 4))
    uniform_integers(KEY, 2, 10)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    torch.manual_seed(99)
    torch.rand(5)
    assert torch.equal(standard_normal(KEY, 0, (2, 3, 4)), first)
