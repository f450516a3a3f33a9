"""Noise levels of a sampler, falling, in the linear unit."""

import numpy as np

from volrecon.errors import ConfigError


def karras(high: float, low: float, count: int, power: float = 7.0) -> np.ndarray:
    """sigma_i = (high^(1/p) + i/(n-1) (low^(1/p) - high^(1/p)))^p (Karras et al. 2022, eq. 5), float64 (count,)."""
    _check(high, low, count)
    ramp = np.linspace(0, 1, count)
    return np.asarray((high ** (1 / power) + ramp * (low ** (1 / power) - high ** (1 / power))) ** power)


def geometric(high: float, low: float, count: int) -> np.ndarray:
    """sigma_i = high (low/high)^(i/(n-1)), float64 (count,)."""
    _check(high, low, count)
    return np.asarray(high * (low / high) ** np.linspace(0, 1, count))


def _check(high: float, low: float, count: int) -> None:
    if not 0 < low <= high < float("inf") or count < 1:
        raise ConfigError(f"{count} noise levels from {high} down to {low}: need high >= low > 0 and at least one")
