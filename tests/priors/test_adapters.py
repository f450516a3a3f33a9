"""Other people's networks, written exactly for a Gaussian, come out as its optimal denoiser."""

import pytest
import torch
from gaussian import Gaussian

from volrecon.errors import ConfigError
from volrecon.priors import (
    CallableDenoiser,
    Conditions,
    EpsDenoiser,
    ScoreDenoiser,
    ValueRange,
    linear_alphas_bar,
)

RANGES = [ValueRange(), ValueRange(2.0, -1.0), ValueRange(0.25, 3.0), ValueRange(2000.0, -1000.0)]
SIGMAS = torch.tensor([0.011, 0.05, 0.2, 1.0, 20.0, 70.0])
X = 0.5 + 0.3 * torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))


def with_variance(network):
    """Twice the channels: what OpenAI's networks call learned sigma."""

    def both(v, t):
        eps = network(v, t)
        return torch.cat([eps, 100 + eps], dim=1)

    return both


def eps_denoiser(gaussian):
    return EpsDenoiser(gaussian.eps(linear_alphas_bar()), linear_alphas_bar(), slices=3, values=gaussian.values)


def eps_and_variance_denoiser(gaussian):
    network = with_variance(gaussian.eps(linear_alphas_bar()))
    return EpsDenoiser(network, linear_alphas_bar(), slices=3, values=gaussian.values)


def score_denoiser(gaussian):
    return ScoreDenoiser(gaussian.score, slices=3, values=gaussian.values)


def callable_denoiser(gaussian):
    return CallableDenoiser(gaussian.own_denoised, slices=3, values=gaussian.values)


ADAPTERS = [eps_denoiser, eps_and_variance_denoiser, score_denoiser, callable_denoiser]


@pytest.mark.parametrize("make", ADAPTERS)
@pytest.mark.parametrize("values", RANGES, ids=str)
def test_every_adapter_gives_the_optimal_denoiser(make, values):
    gaussian = Gaussian(values=values)
    sigmas = SIGMAS if make in (score_denoiser, callable_denoiser) else inside(values)
    noisy = X + sigmas[:, None, None, None] * NOISE
    D = make(gaussian)
    errors = (D(noisy, sigmas, Conditions()) - gaussian.denoised(noisy, sigmas)).abs().amax(dim=(1, 2, 3))
    # float32 knows x = x0 + sigma z to 1e-7 sigma.
    assert (errors < 1e-5 * sigmas.clamp(min=1)).all()
    for sigma in sigmas.tolist():
        noisy, expected = X + sigma * NOISE, gaussian.denoised(X + sigma * NOISE, torch.full((6,), sigma))
        torch.testing.assert_close(D(noisy, sigma, Conditions()), expected, rtol=0, atol=1e-5 * max(1.0, sigma))


def inside(values: ValueRange) -> torch.Tensor:
    """Levels that the schedule reaches, sigma 0.01 to 157 in the network's own values."""
    return torch.tensor([0.011, 0.05, 0.2, 1.0, 20.0, 150.0]) / values.scale


@pytest.mark.parametrize("make", ADAPTERS)
def test_a_forgotten_range_is_seen(make):
    """The same networks without their range: the test above can fail."""
    gaussian = Gaussian(values=ValueRange(2.0, -1.0))
    D = make(gaussian)
    D.values = ValueRange()
    assert (D(X, 0.2, Conditions()) - gaussian.denoised(X, torch.full((6,), 0.2))).abs().max() > 0.1


TABLE = [(0, 0.0100), (20, 0.0794), (100, 0.342), (200, 0.724), (300, 1.240), (500, 3.443), (980, 130.1), (999, 157.4)]


@pytest.mark.parametrize(("t", "sigma"), TABLE)
def test_times_of_the_published_schedule(t, sigma):
    """DDPM's linear schedule: t(sigma), to the digits of the table; log sigma rises by 0.0017 to 0.3 a step."""
    D = eps_denoiser(Gaussian())
    assert float(D.log_sigmas[t].exp()) == pytest.approx(sigma, rel=2e-3)
    assert float(D.times(torch.tensor([sigma]))) == pytest.approx(t, abs=0.25)
    assert float(D.times(D.log_sigmas[t].exp()[None])) == pytest.approx(t, abs=1e-3)


def test_times_are_interpolated_in_log_sigma_and_end_with_the_schedule():
    D = eps_denoiser(Gaussian())
    low, high = D.log_sigmas[300], D.log_sigmas[301]
    assert float(D.times((0.75 * low + 0.25 * high).exp()[None])) == pytest.approx(300.25, abs=1e-3)
    assert D.times(torch.tensor([1e-6, 1e6])).tolist() == pytest.approx([0, 999])


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [0.5],
        [0.9, 0.9],
        [0.5, 0.9],
        [1.0, 0.5],
        [0.9, 0.0],
        [0.9, -0.1],
        [0.9, float("nan")],
        [1.5, 0.5],
        [[0.9, 0.5]],
    ],
    ids=str,
)
def test_schedules_that_do_not_fall_are_refused(wrong):
    with pytest.raises(ConfigError, match="alphas_bar must fall"):
        EpsDenoiser(lambda v, t: v, torch.tensor(wrong), slices=3)


def test_alphas_bar_of_ddpm():
    abar = linear_alphas_bar()
    assert abar.dtype == torch.float64
    assert len(abar) == 1000
    assert float(abar[0]) == pytest.approx(1 - 1e-4)
    assert float(abar[999]) == pytest.approx(4.036e-5, rel=1e-3)


@pytest.mark.parametrize("scale", [0.0, -2.0, float("inf"), float("nan")])
def test_values_must_grow_with_attenuation(scale):
    with pytest.raises(ConfigError, match="must grow with attenuation"):
        ValueRange(scale)


def test_value_range_there_and_back():
    values = ValueRange(2.0, -1.0)
    assert values.to_network(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1.0, 0.0, 1.0]
    torch.testing.assert_close(values.to_linear(values.to_network(X)), X)


@pytest.mark.parametrize(
    "D",
    [
        EpsDenoiser(lambda v, t: v[:, :1], linear_alphas_bar(), slices=3),
        ScoreDenoiser(lambda v, s: v[:, :1], slices=3),
        CallableDenoiser(lambda v, s: v[..., :1], slices=3),
        ScoreDenoiser(with_variance(lambda v, s: v), slices=3),
    ],
    ids=["eps", "score", "callable", "too many channels"],
)
def test_N3_outputs_of_another_shape_are_refused(D):
    """One channel would otherwise be spread over all slices without a word."""
    with pytest.raises(ConfigError, match=r"of \(6, 3, 4, 5\); it must keep the shape"):
        D(X, 0.1, Conditions())
