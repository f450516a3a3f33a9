"""One step of a sampler from noise level sigma to sigma', given D's estimate x0; variance-exploding variables.

Rules act on slabs (slices, y, x), voxel by voxel; the step's numbers are scalars, or one a slice, (slices, 1, 1). z is
unit noise. Where a data step has corrected x0, the noise that x still carries is measured from D's own estimate
(`corrected` is the former, `x0` the latter); pass the corrected one as x0 to measure it from there. sigma' may be 0.
"""

import math

import numpy as np
import torch

Tensor = torch.Tensor


def renoised(
    x: Tensor, x0: Tensor, noise: Tensor, kept: float, fresh: float, corrected: Tensor | None = None
) -> Tensor:
    """x' = x0 + kept (x - x0) + fresh z, of the weights of `ddim_weights` or `ddim_mix_weights`."""
    return (x0 if corrected is None else corrected) + kept * (x - x0) + fresh * noise


def ddim_weights(sigma: float, following: float, eta: float) -> tuple[float, float]:
    """(kept, fresh) = (c2/sigma, c1), c1 = eta sigma' sqrt(1 - sigma'^2/sigma^2), c2^2 = sigma'^2 - c1^2.

    Song et al. 2021 (DDIM, eq. 12) in VE variables: eta 0 is deterministic, 1 is ancestral sampling (DDPM).
    """
    fresh = eta * following * math.sqrt(max(0.0, 1 - (following / sigma) ** 2))
    return math.sqrt(max(0.0, following**2 - fresh**2)) / sigma, fresh


def ddim_mix_weights(sigma: float, following: float, mix: float) -> tuple[float, float]:
    """(kept, fresh) = (sigma'/sigma sqrt(1 - mix^2), sigma' mix).

    Of DDS (Chung et al. 2024) and DiffusionBlend, which call `mix` eta: the part of fresh noise, whatever the step's
    length. It is not the eta of `ddim_weights`, whose fresh noise falls with the step.
    """
    return following / sigma * math.sqrt(max(0.0, 1 - mix**2)), following * mix


def ddim(
    x: Tensor, x0: Tensor, noise: Tensor, sigma: float, following: float, eta: float, corrected: Tensor | None = None
) -> Tensor:
    """A step with `ddim_weights`."""
    return renoised(x, x0, noise, *ddim_weights(sigma, following, eta), corrected)


def ancestral(
    x: Tensor, x0: Tensor, noise: Tensor, sigma: float, following: float, corrected: Tensor | None = None
) -> Tensor:
    """DDPM's step (Ho et al. 2020): `ddim` with eta 1."""
    return ddim(x, x0, noise, sigma, following, 1.0, corrected)


def ddim_mix(
    x: Tensor, x0: Tensor, noise: Tensor, sigma: float, following: float, mix: float, corrected: Tensor | None = None
) -> Tensor:
    """A step with `ddim_mix_weights`."""
    return renoised(x, x0, noise, *ddim_mix_weights(sigma, following, mix), corrected)


def predictor(x: Tensor, x0: Tensor, noise: Tensor, sigma: float, following: float) -> Tensor:
    """x' = x + (sigma^2 - sigma'^2) s + sqrt(sigma^2 - sigma'^2) z, s = (x0 - x)/sigma^2 (reverse diffusion, VE).

    Song et al. 2021 (score SDE). A step to 0 leaves noise of the size of sigma: end with the estimate.
    """
    removed = sigma**2 - following**2
    return x + (removed / sigma**2) * (x0 - x) + math.sqrt(removed) * noise


def corrector(x: Tensor, x0: Tensor, noise: Tensor, sigma: float, steps: Tensor) -> Tensor:
    """x + e s + sqrt(2 e) z, s = (x0 - x)/sigma^2: Langevin at one noise level, e from `langevin_steps`."""
    return x + steps * (x0 - x) / sigma**2 + (2 * steps).sqrt() * noise


def langevin_steps(noise_norms: np.ndarray, score_norms: np.ndarray, snr: float) -> Tensor:
    """e = 2 (snr ||z||/||s||)^2 of every slice (Song et al. 2021, score SDE), float32 (slices, 1, 1).

    From the norms of z and s by slice, (slices,): the published mean over a batch depends on the batch. 0 where s is.
    """
    return _by_slice(2 * _ratio(snr * noise_norms, score_norms) ** 2)


def linear_langevin_steps(noise_norms: np.ndarray, score_norms: np.ndarray, snr: float) -> Tensor:
    """e = 2 snr ||z||/||s|| of every slice: the rule of PaDIS' predictor-corrector (Hu et al. 2024)."""
    return _by_slice(2 * _ratio(snr * noise_norms, score_norms))


def annealed_langevin(x: Tensor, x0: Tensor, noise: Tensor, sigma: float, step: float) -> Tensor:
    """x + c/2 (x0 - x) + sqrt(c) sigma z: Langevin with alpha = c sigma^2 (Song and Ermon 2019; PaDIS has c 0.5).

    The last step of all takes no noise: give zeros as z.
    """
    return x + (step / 2) * (x0 - x) + (math.sqrt(step) * sigma) * noise


def euler(x: Tensor, x0: Tensor, sigma: float, following: float) -> Tensor:
    """x + (sigma' - sigma) (x - x0)/sigma: the flow's first order, and where `heun` looks a second time."""
    return x0 + (following / sigma) * (x - x0)


def heun(x: Tensor, ahead: Tensor, x0_ahead: Tensor, sigma: float, following: float) -> Tensor:
    """x + (sigma' - sigma) (d + d')/2, d' = (ahead - x0')/sigma' (Karras et al. 2022, algorithm 1).

    `ahead` is Euler's point and x0' its estimate at sigma' > 0; x + (sigma' - sigma) d/2 is the middle of x and
    `ahead`, so D's first estimate is no longer needed.
    """
    return 0.5 * (x + ahead) + (0.5 * (following - sigma) / following) * (ahead - x0_ahead)


def churned_level(sigma: float, count: int, churn: float, low: float = 0.0, high: float = math.inf) -> float:
    """The level (1 + g) sigma to which churn raises it, g = min(churn/count, sqrt(2) - 1) between low and high, else 0.

    Args:
        count: steps of the sampler.
    """
    return sigma * (1 + min(churn / count, math.sqrt(2) - 1)) if low <= sigma <= high else sigma


def raised(x: Tensor, noise: Tensor, sigma: float, higher: float, scale: float = 1.0) -> Tensor:
    """x with noise added from sigma to a higher level: x + scale sqrt(higher^2 - sigma^2) z.

    From sigma 0 it starts a sampler at any volume; `scale` is the S_noise of EDM's churn.
    """
    return x + (scale * math.sqrt(higher**2 - sigma**2)) * noise


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(b), where=b > 0)


def _by_slice(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None, None]
