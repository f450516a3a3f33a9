"""Unconditional samples of a prior: what it believes volumes look like."""

from collections.abc import Callable

import numpy as np
import torch

from volrecon.priors import Prior
from volrecon.sampling import NoiseKey, ddim, standard_normal
from volrecon.volume import Blocks, Partials, Slab, Space, Volume, sweep

START, RENOISE = 10, 11
"""Purposes of random numbers."""


def sample(
    prior: Prior,
    shape: tuple[int, int, int],
    sigmas: np.ndarray,
    space: Space,
    seed: int = 0,
    eta: float = 0.5,
    progress: Callable[[int, float], None] | None = None,
) -> Volume:
    """A volume drawn from a prior by DDIM, (z, y, x) in the linear unit.

    Args:
        shape: (z, y, x).
        sigmas: falling noise levels; the volume after the last is D's estimate.
        eta: 0 is deterministic after the start, 1 ancestral.
        progress: told of every step and its sigma.
    """
    key = NoiseKey(seed)
    x = space.empty(shape)
    for start, stop in space.blocks(shape):
        noise = standard_normal(key.at(0, START), start, (stop - start, *shape[1:]))
        x.write(start, float(sigmas[0]) * noise)
    for step, sigma in enumerate(sigmas):
        estimate = prior.denoise(x, float(sigma), key.at(step), space)
        if step + 1 < len(sigmas):
            _renoise(space, x, estimate, (float(sigma), float(sigmas[step + 1])), eta, key.at(step, RENOISE))
            estimate.release()
        else:
            x.release()
            x = estimate
        if progress is not None:
            progress(step + 1, float(sigma))
    return x


def _renoise(space: Space, x: Volume, estimate: Volume, levels: tuple[float, float], eta: float, key: NoiseKey) -> None:
    """Replace x by the next noise level's."""

    def step(slab: Slab, now: torch.Tensor, clean: torch.Tensor) -> tuple[Blocks, Partials]:
        noise = standard_normal(key, slab.start, (len(now), *x.shape[1:]))
        return (ddim(now, clean, noise, *levels, eta),), ()

    sweep(space, step, (x, estimate), (x,))
