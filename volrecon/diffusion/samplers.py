"""Samplers: how a noisy volume goes from one noise level to the next, given what a prior and the data say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from pydantic import Field

from volrecon.sampling import (
    NoiseKey,
    NoiseSource,
    annealed_langevin,
    churned_level,
    corrector,
    ddim_mix_weights,
    ddim_weights,
    euler,
    heun,
    langevin_steps,
    predictor,
    raised,
    renoised,
)
from volrecon.strict_toml import Strict
from volrecon.volume import Slab, Space, Volume, slice_dots, sweep

RENOISE, CHURN, CORRECT = 11, 12, 13
"""Purposes of random numbers."""


@dataclass(frozen=True)
class Estimate:
    """What is believed of the volume without noise.

    Attributes:
        x0: the prior's estimate D(x).
        fitted: after the data step; x0 itself where the data act elsewhere.
        push: what guidance adds to the next iterate, or None.
    """

    x0: Volume
    fitted: Volume
    push: Volume | None = None

    def release(self) -> None:
        for volume in {self.x0, self.fitted, *([self.push] if self.push else [])}:
            volume.release()


@dataclass(frozen=True)
class Chain:
    """What a sampler may ask for at one step.

    Attributes:
        estimate: of a noisy volume at a noise level; counts as one pass of the prior. The key chooses the partition.
        fit: the data step on a noisy volume, for methods whose data act there; gives its argument back elsewhere.
        noise, key, space: see there.
        count: noise levels of the whole schedule.
    """

    estimate: Callable[[Volume, float, NoiseKey], Estimate]
    fit: Callable[[Volume, float], Volume]
    noise: NoiseSource
    key: NoiseKey
    space: Space
    count: int


class Sampler(Protocol):
    """One step of a sampler."""

    def passes(self, levels: int) -> int:
        """Passes of the prior over a schedule of so many levels."""

    def step(self, chain: Chain, x: Volume, sigma: float, following: float) -> Volume:
        """A new volume at the following level; at 0 the estimate itself. x is left as it is."""


class _Noisy(Strict):
    """`noise`: "independent" slices, or "slice-correlated" ones (ISCS)."""

    noise: Literal["independent", "slice-correlated"] = "independent"


class Ddim(_Noisy):
    """DDIM with the eta of Song et al. 2021: 0 is deterministic, 1 ancestral (DDPM)."""

    kind: Literal["ddim"]
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0

    def passes(self, levels: int) -> int:
        return levels

    def step(self, chain: Chain, x: Volume, sigma: float, following: float) -> Volume:
        return _renoised(chain, x, sigma, following, ddim_weights(sigma, following, self.eta))


class DdimMix(_Noisy):
    """The DDIM of DDS and DiffusionBlend: `mix`, which they call eta, is the part of fresh noise in every step."""

    kind: Literal["ddim-mix"]
    mix: Annotated[float, Field(ge=0, le=1)] = 0.85

    def passes(self, levels: int) -> int:
        return levels

    def step(self, chain: Chain, x: Volume, sigma: float, following: float) -> Volume:
        return _renoised(chain, x, sigma, following, ddim_mix_weights(sigma, following, self.mix))


class Heun(_Noisy):
    """EDM's second order sampler (Karras et al. 2022, algorithm 2), with churn."""

    kind: Literal["heun"]
    churn: Annotated[float, Field(ge=0, le=1000)] = 0.0

    def passes(self, levels: int) -> int:
        return 2 * levels - 1

    def step(self, chain: Chain, x: Volume, sigma: float, following: float) -> Volume:
        higher = churned_level(sigma, chain.count, self.churn)
        churned = _made(chain, lambda x, z: raised(x, z, sigma, higher), [x], key=chain.key.at(chain.key.step, CHURN))
        first = chain.estimate(churned, higher, chain.key)
        ahead = _made(
            chain, lambda x, x0: euler(x, x0, higher, following), [churned, first.fitted], push=first.push
        )  # fmt: skip
        first.release()
        if following == 0:
            churned.release()
            return _fitted(chain, ahead, following)
        second = chain.estimate(ahead, following, chain.key)
        volumes = [churned, ahead, second.fitted]
        out = _made(chain, lambda x, ahead, x0: heun(x, ahead, x0, higher, following), volumes, push=second.push)
        second.release()
        for volume in (churned, ahead):
            volume.release()
        return _fitted(chain, out, following)


class Langevin(_Noisy):
    """Annealed Langevin: `inner` steps of x + step/2 (D - x) + sqrt(step) sigma z at every level."""

    kind: Literal["langevin"]
    step_size: Annotated[float, Field(gt=0, lt=2)] = 0.5
    inner: Annotated[int, Field(ge=1, le=1000)] = 10

    def passes(self, levels: int) -> int:
        return self.inner * levels

    def step(self, chain: Chain, x: Volume, sigma: float, following: float) -> Volume:
        now, first = x, chain.key.step * self.inner
        for k in range(self.inner):
            own = replace(chain, key=chain.key.at(first + k))
            if following == 0 and k + 1 == self.inner:
                after = _renoised(own, now, sigma, 0.0, (0.0, 0.0))
            else:
                after = self._move(own, now, sigma)
            if now is not x:
                now.release()
            now = after
        return now

    def _move(self, chain: Chain, x: Volume, sigma: float) -> Volume:
        estimate = chain.estimate(x, sigma, chain.key)

        def rule(x: torch.Tensor, x0: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return annealed_langevin(x, x0, z, sigma, self.step_size)

        key = chain.key.at(chain.key.step, RENOISE)
        out = _made(chain, rule, [x, estimate.fitted], key=key, push=estimate.push)
        estimate.release()
        return _fitted(chain, out, sigma)


class PredictorCorrector(_Noisy):
    """Reverse diffusion, then a Langevin step at the level reached (Song et al. 2021, algorithm 2)."""

    kind: Literal["predictor-corrector"]
    snr: Annotated[float, Field(gt=0, le=1)] = 0.16

    def passes(self, levels: int) -> int:
        return 2 * levels - 1

    def step(self, chain: Chain, x: Volume, sigma: float, following: float) -> Volume:
        if following == 0:
            return _renoised(chain, x, sigma, following, (0.0, 0.0))
        first = chain.estimate(x, sigma, chain.key)

        def rule(x: torch.Tensor, x0: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return predictor(x, x0, z, sigma, following)

        key = chain.key.at(chain.key.step, RENOISE)
        moved = _fitted(chain, _made(chain, rule, [x, first.fitted], key=key, push=first.push), following)
        first.release()
        second = chain.estimate(moved, following, chain.key)
        out = self._corrected(chain, moved, second, following)
        second.release()
        moved.release()
        return _fitted(chain, out, following)

    def _corrected(self, chain: Chain, x: Volume, estimate: Estimate, sigma: float) -> Volume:
        """Langevin with a step a slice, from the norms of its noise and of its score."""
        key = chain.key.at(chain.key.step, CORRECT)
        noise_squares, score_squares = np.zeros(x.shape[0]), np.zeros(x.shape[0])

        def measure(slab: Slab, x: torch.Tensor, x0: torch.Tensor) -> tuple[list, list]:
            z, score = chain.noise(key, slab.start, _shape(x)), (x0 - x) / sigma**2
            noise_squares[slab.start : slab.stop] = slice_dots(z, z)
            score_squares[slab.start : slab.stop] = slice_dots(score, score)
            return [], []

        sweep(chain.space, measure, [x, estimate.fitted])
        steps = langevin_steps(np.sqrt(noise_squares), np.sqrt(score_squares), self.snr)
        out = chain.space.empty(x.shape)

        def move(slab: Slab, x: torch.Tensor, x0: torch.Tensor, *push: torch.Tensor) -> tuple[list, list]:
            z = chain.noise(key, slab.start, _shape(x))
            new = corrector(x, x0, z, sigma, steps[slab.start : slab.stop])
            return [new + push[0] if push else new], []

        sweep(chain.space, move, [x, estimate.fitted, *([estimate.push] if estimate.push else [])], [out])
        return out


def _renoised(chain: Chain, x: Volume, sigma: float, following: float, weights: tuple[float, float]) -> Volume:
    """One estimate, then fitted + kept (x - x0) + fresh z, with guidance added."""
    estimate = chain.estimate(x, sigma, chain.key)

    def rule(x: torch.Tensor, x0: torch.Tensor, fitted: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return renoised(x, x0, z, *weights, corrected=fitted)

    key = chain.key.at(chain.key.step, RENOISE)
    out = _made(chain, rule, [x, estimate.x0, estimate.fitted], key=key, push=estimate.push)
    estimate.release()
    return _fitted(chain, out, following)


def _made(
    chain: Chain,
    rule: Callable[..., torch.Tensor],
    volumes: list[Volume],
    key: NoiseKey | None = None,
    push: Volume | None = None,
) -> Volume:
    """A new volume: rule(*blocks), and unit noise last where a key is given; plus `push`."""
    out = chain.space.empty(volumes[0].shape)

    def work(slab: Slab, *blocks: torch.Tensor) -> tuple[list, list]:
        own = blocks[: len(volumes)]
        z = [chain.noise(key, slab.start, _shape(own[0]))] if key is not None else []
        new = rule(*own, *z)
        return [new + blocks[-1] if push is not None else new], []

    sweep(chain.space, work, [*volumes, *([push] if push is not None else [])], [out])
    return out


def _shape(block: torch.Tensor) -> tuple[int, int, int]:
    slices, rows, columns = block.shape
    return slices, rows, columns


def _fitted(chain: Chain, x: Volume, sigma: float) -> Volume:
    """x after a data step on the iterate itself, where the method has one."""
    out = chain.fit(x, sigma)
    if out is not x:
        x.release()
    return out
