"""Networks that other people trained, as Denoisers: eps-prediction (VP, DDPM), scores (VE), any callable.

Each network has its own values v = scale x + offset; a network on [-1, 1] of data in [0, 1] has scale 2, offset -1.
Noise levels scale with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from volrecon.errors import ConfigError
from volrecon.priors.denoiser import Conditions, Denoiser, per_sample

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""network(values (batch, slices, rows, columns), time or sigma (batch,)) -> the same shape, or twice the channels."""


@dataclass(frozen=True)
class ValueRange:
    """v = scale x + offset, from the linear unit x to a network's own values."""

    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"scale is {self.scale}; a network's values must grow with attenuation")

    def to_network(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x + self.offset

    def to_linear(self, v: torch.Tensor) -> torch.Tensor:
        return (v - self.offset) / self.scale


class EpsDenoiser(Denoiser):
    """A DDPM or VP network that predicts the noise of v_t = sqrt(abar) v + sqrt(1 - abar) eps at discrete times t.

    D = v - sigma eps(v/sqrt(1 + sigma^2), t(sigma)), sigma = sqrt((1 - abar)/abar); t is interpolated in log sigma
    and clipped to the schedule. Of an output of twice the channels (learned variance) the first half is eps.

    Args:
        network: eps(v_t, t), t (batch,) as real numbers.
        alphas_bar: abar_t of the schedule, falling, (times,).
        slices: channels of a sample.
        values: the network's own range.
    """

    def __init__(
        self, network: Network, alphas_bar: torch.Tensor, *, slices: int, values: ValueRange = ValueRange()
    ) -> None:
        abar = torch.as_tensor(alphas_bar, dtype=torch.float64)
        rising = (0.5 * ((1 - abar) / abar).log()).to(torch.float32)
        if abar.ndim != 1 or len(abar) < 2 or not bool(rising.isfinite().all() and (rising.diff() > 0).all()):
            raise ConfigError("alphas_bar must fall from below 1 towards 0, one value a time step")
        self.network, self.slices, self.values, self.log_sigmas = network, slices, values, rising

    def times(self, sigma: torch.Tensor) -> torch.Tensor:
        """t at which the schedule has these noise levels (batch,), between its integers."""
        known = self.log_sigmas.to(sigma.device)
        wanted = sigma.log().clamp(known[0], known[-1])
        above = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
        low, high = known[above - 1], known[above]
        return (above - 1) + (wanted - low) / (high - low)

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor, conditions: Conditions) -> torch.Tensor:
        v = self.values.to_network(x)
        s = per_sample(sigma, x) * self.values.scale
        wide = s[:, None, None, None]
        eps = self.network(v * (1 + wide**2).rsqrt(), self.times(s))[:, : self.slices]
        return self.values.to_linear(v - wide * _like(v, eps))


class ScoreDenoiser(Denoiser):
    """A variance-exploding network that predicts the score: D = v + sigma^2 score(v, sigma)."""

    def __init__(self, network: Network, *, slices: int, values: ValueRange = ValueRange()) -> None:
        self.network, self.slices, self.values = network, slices, values

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor, conditions: Conditions) -> torch.Tensor:
        v = self.values.to_network(x)
        s = per_sample(sigma, x) * self.values.scale
        return self.values.to_linear(v + s[:, None, None, None] ** 2 * _like(v, self.network(v, s)))


class CallableDenoiser(Denoiser):
    """Any function (v, sigma (batch,)) -> v0 in its own values: a plug-and-play denoiser, a closed form."""

    def __init__(self, function: Network, *, slices: int, values: ValueRange = ValueRange()) -> None:
        self.function, self.slices, self.values = function, slices, values

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor, conditions: Conditions) -> torch.Tensor:
        v = self.values.to_network(x)
        s = per_sample(sigma, x) * self.values.scale
        return self.values.to_linear(_like(v, self.function(v, s)))


def linear_alphas_bar(times: int = 1000, first: float = 1e-4, last: float = 0.02) -> torch.Tensor:
    """abar_t of DDPM's linear schedule (Ho et al. 2020), float64 (times,)."""
    return torch.cumprod(1 - torch.linspace(first, last, times, dtype=torch.float64), 0)


def _like(v: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """What a network made of v; another shape would be spread over v without a word."""
    if found.shape != v.shape:
        raise ConfigError(f"the network makes {tuple(found.shape)} of {tuple(v.shape)}; it must keep the shape")
    return found
