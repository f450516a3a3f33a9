"""Data N(mean, deviation^2), every voxel on its own: the denoiser is known, and so is every network that knows it."""

from dataclasses import dataclass

import torch

from volrecon.priors import ValueRange


def wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


LINEAR = ValueRange()


@dataclass(frozen=True)
class Gaussian:
    """Its optimal denoiser in the linear unit, and networks in their own values v = scale x + offset."""

    mean: float = 0.5
    deviation: float = 0.2
    values: ValueRange = LINEAR

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance, noise = self.deviation**2, wide(sigma) ** 2
        return (variance * x + noise * self.mean) / (variance + noise)

    def own_denoised(self, v: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mean, variance, noise = self._own(sigma)
        return (variance * v + noise * mean) / (variance + noise)

    def score(self, v: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mean, variance, noise = self._own(sigma)
        return (mean - v) / (variance + noise)

    def eps(self, alphas_bar: torch.Tensor):
        """E[eps | v_t] of v_t = sqrt(abar) v + sqrt(1 - abar) eps, at real times t, log sigma linear in between."""
        abar = alphas_bar.double()
        log_sigma = 0.5 * ((1 - abar) / abar).log()

        def network(v_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            low = t.double().floor().long().clamp(0, len(abar) - 2)
            sigma = torch.lerp(log_sigma[low], log_sigma[low + 1], t.double() - low).exp()
            mean, variance, noise = self._own(sigma)
            return ((v_t * (1 + noise).sqrt() - mean) * noise.sqrt() / (variance + noise)).float()

        return network

    def _own(self, sigma: torch.Tensor) -> tuple[float, float, torch.Tensor]:
        """Mean, variance and the noise's variance in the network's own values."""
        scale, offset = self.values.scale, self.values.offset
        return scale * self.mean + offset, (scale * self.deviation) ** 2, wide(sigma) ** 2
