"""How well a denoiser does on held-out volumes, at fixed noise levels, with fixed noise."""

import math

import torch

from volrecon.priors.denoiser import Conditions, Denoiser
from volrecon.training.batches import VALIDATION, Batch, Draw, keyed


def validation_batch(draw: Draw) -> Batch:
    """The crops that every validation of a training run uses."""
    wanted = draw.training.validation
    return draw.batch(keyed(draw.training.seed, VALIDATION, 0, 0), wanted.size, wanted.crops)


@torch.no_grad()
def denoising_psnr(denoiser: Denoiser, batch: Batch, sigmas: tuple[float, ...]) -> dict[str, float]:
    """PSNR in dB of all crops together at each sigma, data range 1 in the linear unit."""
    scores = {}
    for sigma in sigmas:
        error = 0.0
        for k in range(len(batch.clean)):
            clean = batch.clean[k : k + 1]
            position = None if batch.position is None else batch.position[k : k + 1]
            noisy = clean + sigma * batch.noise[k : k + 1]
            denoised = denoiser(noisy, sigma, Conditions(batch.gap[k : k + 1], position))
            error += float((denoised - clean).square().mean(dtype=torch.float64))
        scores[f"{sigma:g}"] = -10 * math.log10(error / len(batch.clean))
    return scores
