"""Noise levels of a sampler, falling, in the linear unit.

A schedule holds the levels at which the denoiser is asked, all above 0. The end without noise is not among them: after
the last level a sampler steps to 0, where its rules leave the estimate (`level_pairs`).
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from volrecon.errors import ConfigError

FIRST_BETA, LAST_BETA, TIMES = 1e-4, 0.02, 1000
"""DDPM's linear schedule (Ho et al. 2020)."""


def karras(high: float, low: float, count: int, power: float = 7.0) -> np.ndarray:
    """sigma_i = (high^(1/p) + i/(n-1) (low^(1/p) - high^(1/p)))^p (Karras et al. 2022, eq. 5), float64 (count,)."""
    _check(high, low, count)
    ramp = np.linspace(0, 1, count)
    return np.asarray((high ** (1 / power) + ramp * (low ** (1 / power) - high ** (1 / power))) ** power)


def geometric(high: float, low: float, count: int) -> np.ndarray:
    """sigma_i = high (low/high)^(i/(n-1)), float64 (count,)."""
    _check(high, low, count)
    return np.asarray(high * (low / high) ** np.linspace(0, 1, count))


def vp_linear(high: float, low: float, count: int) -> np.ndarray:
    """Levels of DDPM's linear schedule at times evenly spaced between those of high and low, float64 (count,).

    sigma = sqrt((1 - abar)/abar), abar_t = prod (1 - beta), beta = 1e-4..0.02 in 1000 times; between times log sigma
    is linear. n steps of the published respacing, times s (n-1), ..., s, 0 with s = 1000/n, are those from
    `vp_level(s (n-1))` to `vp_level(0)`. The published levels belong to data in the network's own range: in the
    linear unit a range of [-1, 1] halves them.

    Raises:
        ConfigError: levels beyond the schedule's 0.01 to 157.4.
    """
    _check(high, low, count)
    known = _vp_levels()
    slack = 1 + 1e-9
    if not known[0] / slack <= low <= high <= known[-1] * slack:
        raise ConfigError(f"levels {high} to {low} lie beyond the VP schedule's {known[-1]:.6g} to {known[0]:.6g}")
    times = np.arange(TIMES)
    first, last = np.interp(np.log([high, low]), np.log(known), times)
    return np.asarray(np.exp(np.interp(np.linspace(first, last, count), times, np.log(known))))


def vp_level(time: float) -> float:
    """sigma at a time 0 to 999 of DDPM's linear schedule.

    Raises:
        ConfigError: another time.
    """
    if not 0 <= time <= TIMES - 1:
        raise ConfigError(f"time {time} lies beyond the schedule's 0 to {TIMES - 1}")
    return float(np.exp(np.interp(time, np.arange(TIMES), np.log(_vp_levels()))))


SCHEDULES: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "karras": karras,
    "geometric": geometric,
    "vp-linear": vp_linear,
}
"""By name: (high, low, count) -> levels from high to low, both included; a count of 1 is high alone."""


def truncated(sigmas: np.ndarray, start: float) -> np.ndarray:
    """A schedule that begins at `start`: start itself, then every lower level (CCDF, Chung et al. 2022).

    Raises:
        ConfigError: a start that does not lie within the schedule.
    """
    if not sigmas[-1] <= start <= sigmas[0]:
        raise ConfigError(f"the start {start} does not lie within the schedule's {sigmas[0]:g} to {sigmas[-1]:g}")
    return np.concatenate([[start], sigmas[sigmas < start]])


def level_pairs(sigmas: np.ndarray) -> list[tuple[float, float]]:
    """(sigma, sigma') of every step; the last goes to 0."""
    return list(pairwise([*sigmas.tolist(), 0.0]))


def _vp_levels() -> np.ndarray:
    """sigma at every time, rising, float64 (1000,)."""
    abar = np.cumprod(1 - np.linspace(FIRST_BETA, LAST_BETA, TIMES))
    return np.sqrt((1 - abar) / abar)


def _check(high: float, low: float, count: int) -> None:
    if not 0 < low <= high < float("inf") or count < 1:
        raise ConfigError(f"{count} noise levels from {high} down to {low}: need high >= low > 0 and at least one")
