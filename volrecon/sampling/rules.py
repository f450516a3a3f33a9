"""One step of a sampler from noise level sigma to sigma', given D's estimate x0; variance-exploding variables."""

import math

import torch


def ddim(
    x: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor, sigma: float, following: float, eta: float
) -> torch.Tensor:
    """x' = x0 + c2 (x - x0)/sigma + c1 noise, c1 = eta sigma' sqrt(1 - sigma'^2/sigma^2), c2^2 = sigma'^2 - c1^2.

    Song et al. 2021 (DDIM, eq. 12) in VE variables: eta 0 is deterministic, 1 is ancestral sampling.
    """
    fresh = eta * following * math.sqrt(max(0.0, 1 - (following / sigma) ** 2))
    kept = math.sqrt(max(0.0, following**2 - fresh**2)) / sigma
    return x0 + kept * (x - x0) + fresh * noise
