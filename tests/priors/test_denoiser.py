"""EDM preconditioning against a Gaussian whose optimal denoiser is known."""

import pytest
import torch
from gaussian import Gaussian
from torch import nn

from volrecon.priors import Conditions, Preconditioned
from volrecon.priors.denoiser import loss_weight, native_precision, per_sample

SIGMAS = torch.tensor([0.002, 0.05, 0.2, 1.0, 40.0])
X = 0.5 + 0.3 * torch.randn(5, 2, 4, 3, generator=torch.Generator().manual_seed(0))


class Zero(nn.Module):
    def forward(self, x, noise, gap):
        return torch.zeros_like(x)


class Recorder(nn.Module):
    """Keeps what it was given; gives the slices back."""

    def forward(self, x, noise, gap):
        self.seen = x, noise, gap
        return x[:, :2]


def preconditioned(network, positions=False, sigma_data=0.2, centre=0.5, precision=torch.float32):
    return Preconditioned(
        network, slices=2, positions=positions, sigma_data=sigma_data, centre=centre, precision=precision
    )


def test_a_network_that_says_nothing_leaves_the_gaussians_denoiser():
    found = preconditioned(Zero())(X, SIGMAS, Conditions())
    torch.testing.assert_close(found, Gaussian().denoised(X, SIGMAS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"sigma_data": 0.25}, {"centre": 0.45}])
def test_another_gaussian_has_another_denoiser(wrong):
    found = preconditioned(Zero(), **wrong)(X, SIGMAS, Conditions())
    assert (found - Gaussian().denoised(X, SIGMAS)).abs().max() > 0.01


def test_one_sigma_is_every_samples():
    D = preconditioned(Recorder())
    assert torch.equal(D(X, 0.3, Conditions()), D(X, torch.full((5,), 0.3), Conditions()))
    assert per_sample(2, X).tolist() == [2.0] * 5


def test_what_the_network_sees():
    """Slices of unit variance, positions unscaled, ln(sigma)/4, the gap."""
    network = Recorder()
    position = torch.rand(5, 2, 4, 3)
    gap = torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0])
    preconditioned(network, positions=True)(X, SIGMAS, Conditions(gap, position))
    inputs, noise, told = network.seen
    scale = (SIGMAS**2 + 0.04).sqrt()[:, None, None, None]
    torch.testing.assert_close(inputs[:, :2], (X - 0.5) / scale)
    assert torch.equal(inputs[:, 2:], position)
    torch.testing.assert_close(noise, SIGMAS.log() / 4)
    assert torch.equal(told, gap)


def test_the_networks_output_is_scaled_by_c_out():
    D, inside = preconditioned(Recorder()), preconditioned(Zero())
    s = SIGMAS[:, None, None, None]
    c_out, c_in = s * 0.2 / (s**2 + 0.04).sqrt(), 1 / (s**2 + 0.04).sqrt()
    torch.testing.assert_close(
        D(X, SIGMAS, Conditions()) - inside(X, SIGMAS, Conditions()), c_out * c_in * (X - 0.5), rtol=1e-4, atol=1e-6
    )


def test_positions_must_be_given():
    with pytest.raises(ValueError, match=r"conditions\.position"):
        preconditioned(Recorder(), positions=True)(X, 0.1, Conditions())


def test_loss_weight_undoes_c_out():
    sigma = torch.logspace(-3, 2, 30, dtype=torch.float64)
    c_out = sigma * 0.3 / (sigma**2 + 0.3**2).sqrt()
    torch.testing.assert_close(loss_weight(sigma, 0.3) * c_out**2, torch.ones_like(sigma))


def test_an_untrained_network_has_a_loss_of_one_at_every_level():
    generator = torch.Generator().manual_seed(1)
    clean = 0.5 + 0.2 * torch.randn(5, 2, 60, 60, generator=generator)
    noisy = clean + SIGMAS[:, None, None, None] * torch.randn(clean.shape, generator=generator)
    error = (preconditioned(Zero())(noisy, SIGMAS, Conditions()) - clean).square().mean(dim=(1, 2, 3))
    assert loss_weight(SIGMAS, 0.2) * error == pytest.approx([1] * 5, abs=5 * (2 / 7200) ** 0.5)


def test_precision_is_the_networks_alone():
    torch.manual_seed(0)
    network = _Conv()
    full, half = (preconditioned(network, precision=p) for p in (torch.float32, torch.bfloat16))
    found = half(X, SIGMAS, Conditions())
    assert network.inside == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, full(X, SIGMAS, Conditions()), rtol=0.05, atol=0.02)
    # At small sigma D is x but for c_out F: rounding of F must not reach x.
    assert (found[0] - X[0]).abs().max() < 0.02
    assert network.inside == torch.float32


class _Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x, noise, gap):
        out = self.conv(x)
        self.inside = out.dtype
        return out


def test_native_precision_is_one_that_runs():
    assert native_precision() in (torch.bfloat16, torch.float32)
    assert native_precision("cpu") == native_precision(torch.device("cpu"))
