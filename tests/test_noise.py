"""Noise of line integrals: its moments, its keys, and the weights that follow from it."""

import numpy as np
import pytest
import torch

from volrecon.errors import ConfigError
from volrecon.noise import MOST_PHOTONS, Noise

POISSON, READOUT, GAUSSIAN = Noise("poisson", 1e4), Noise("poisson", 1e3, 20.0), Noise("gaussian", sigma_y=0.05)


@pytest.mark.parametrize("noise", [POISSON, READOUT, GAUSSIAN], ids=["poisson", "readout", "gaussian"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_moments(noise, y):
    drawn = noise.sampled(np.full((400, 500), y), 3, 1).astype(np.float64)
    counts = noise.photons * np.exp(-y)
    variance = noise.sigma_y**2 or (counts + noise.electronic**2) / counts**2
    assert drawn.var() == pytest.approx(variance, rel=0.03)
    assert drawn.mean() == pytest.approx(
        y + (0 if noise.sigma_y else variance / 2), abs=4 * np.sqrt(variance / drawn.size)
    )


@pytest.mark.parametrize("noise", [POISSON, READOUT, GAUSSIAN], ids=["poisson", "readout", "gaussian"])
def test_keyed_by_seed_and_row_alone(noise):
    y = np.random.default_rng(0).random((6, 4, 9))
    drawn = [noise.sampled(y[k], k, 5) for k in range(6)]
    assert np.array_equal(noise.sampled(y[3], 3, 5), drawn[3])
    assert not np.array_equal(noise.sampled(y[3], 3, 6), drawn[3])
    assert not np.array_equal(noise.sampled(y[3], 4, 5), drawn[3])
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    noise.sampled(y[0], 0, 5)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_without_noise():
    y = np.random.default_rng(0).random((4, 9))
    assert np.array_equal(Noise().sampled(y, 0, 0), y.astype(np.float32))
    assert Noise().root_weights(torch.ones(2)) is None
    assert GAUSSIAN.root_weights(torch.ones(2)) is None


@pytest.mark.parametrize("noise", [POISSON, READOUT], ids=["poisson", "readout"])
def test_weights_are_inverse_variances_relative_to_air(noise):
    y = torch.linspace(0, 8, 50)
    counts = noise.photons * np.exp(-y.double().numpy())
    variance = (counts + noise.electronic**2) / counts**2
    np.testing.assert_allclose(noise.root_weights(y).numpy() ** 2, variance[0] / variance, rtol=1e-4)


def test_weights_stay_in_bounds():
    wild = torch.tensor([-5.0, 0.0, 40.0, 1e30, float("inf")])
    for noise in (POISSON, READOUT, Noise("poisson", 1.0, 100.0)):
        weights = noise.root_weights(wild)
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()
        assert (weights <= 1 + 1e-6).all()


@pytest.mark.parametrize("noise", [Noise(), POISSON, READOUT, GAUSSIAN])
def test_round_trip(noise):
    assert Noise.from_dict(noise.to_dict()) == noise


@pytest.mark.parametrize(
    "numbers",
    [
        {"kind": "poisson"},
        {"kind": "poisson", "photons": 0.5},
        {"kind": "poisson", "photons": MOST_PHOTONS * 10},
        {"kind": "poisson", "photons": np.inf},
        {"kind": "poisson", "photons": 10, "electronic": -1},
        {"kind": "gaussian"},
        {"kind": "gaussian", "sigma_y": np.nan},
    ],
    ids=str,
)
def test_noise_that_cannot_be(numbers):
    with pytest.raises(ConfigError, match=r"photons|sigma_y|parameters"):
        Noise(**numbers)


def test_the_most_photons_can_be_drawn():
    assert np.isfinite(Noise("poisson", MOST_PHOTONS).sampled(np.zeros((2, 3)), 0, 0)).all()


@pytest.mark.parametrize("data", [{}, {"kind": "poisson"}, 3, {"kind": "none", "photons": "many"}])
def test_not_a_noise_model(data):
    with pytest.raises(ConfigError, match="not a noise model"):
        Noise.from_dict(data)
