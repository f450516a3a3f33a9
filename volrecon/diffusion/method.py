"""The diffusion method: prior x sampler x data step, one noise level a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from volrecon.diffusion.data import (
    Admm,
    Guidance,
    Kaczmarz,
    Manifold,
    Outcome,
    Proximal,
    RangeNull,
    Setting,
)
from volrecon.diffusion.samplers import (
    Chain,
    Ddim,
    DdimMix,
    Estimate,
    Heun,
    Langevin,
    PredictorCorrector,
)
from volrecon.diffusion.tiles import Tiles
from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.priors import Prior, TrainedPrior, check_voxels, load_prior
from volrecon.projectors import projector
from volrecon.sampling import SCHEDULES, NoiseKey, NoiseSource, level_pairs, noise_source, raised, truncated
from volrecon.solvers import METHODS, Info, Measurement, Method, State
from volrecon.solvers.problem import LeastSquares, least_squares
from volrecon.strict_toml import Strict
from volrecon.volume import Volume, sweep

START = 10
"""Purpose of random numbers."""

Sampler = Annotated[Ddim | DdimMix | Heun | Langevin | PredictorCorrector, Field(discriminator="kind")]
Data = Annotated[Proximal | Admm | Guidance | RangeNull | Manifold | Kaczmarz, Field(discriminator="kind")]


class Levels(Strict):
    """Noise levels in the linear unit, falling from `high` to `low` in `steps`; after the last comes 0."""

    schedule: Literal["karras", "geometric", "vp-linear"] = "karras"
    high: Annotated[float, Field(gt=0, le=1e4)] = 20.0
    low: Annotated[float, Field(gt=0, le=1e4)] = 0.005
    steps: Annotated[int, Field(ge=1, le=100_000)] = 50

    def sigmas(self, start: float | None) -> np.ndarray:
        levels = SCHEDULES[self.schedule](self.high, self.low, self.steps)
        return levels if start is None else truncated(levels, start)


class Start(Strict):
    """Where the chain begins: at another method's volume, noised to the level `sigma` (CCDF).

    Attributes:
        method: "fdk", "fbp", "sirt", "cgls" or "tv".
        iterations: of an iterative one; default its own.
    """

    method: Literal["fdk", "fbp", "sirt", "cgls", "tv"]
    sigma: Annotated[float, Field(gt=0, le=1e4)]
    iterations: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class DiffusionProblem:
    """What stays the same through all steps."""

    setting: Setting
    prior: Prior
    noise: NoiseSource
    levels: list[tuple[float, float]]
    key: NoiseKey

    @property
    def problem(self) -> LeastSquares:
        return self.setting.problem


class Diffusion(Method[DiffusionProblem]):
    """A volume drawn from a prior while the projections hold it.

    Attributes:
        prior: "builtin:NAME" or a weights file.
        sha256: of the weights; another file is refused.
        force: use the prior on voxels it was not trained for.
        tiles: how the volume is cut for the denoiser.
        levels: noise levels.
        start: default noise of the highest level.
        sampler, data: see there.
        weights: "noise" weighs each ray by its variance where the scan knows its noise; "none" weighs all alike.
        seed: of all noise.
    """

    kind = "iterative"
    prior: str = "builtin:ct"
    sha256: str | None = None
    force: bool = False
    tiles: Tiles = Tiles()
    levels: Levels = Levels()
    start: Start | None = None
    sampler: Sampler = Ddim(kind="ddim")
    data: Data = Proximal(kind="proximal")
    weights: Literal["noise", "none"] = "noise"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def check(self, scan: ScanGeometry, volume: VolumeGeometry, backend: str) -> None:
        projector(volume, scan, backend)
        if self.start is not None:
            self.levels.sigmas(self.start.sigma)
            METHODS[self.start.method]().check(scan, volume, backend)
        trained = self._trained()
        check_voxels(trained.card, volume, self.force)
        self.tiles.check(trained, volume, self.force)

    def prepare(self, measurement: Measurement) -> DiffusionProblem:
        problem = least_squares(measurement, self.weights)
        prior = self.tiles.prior(self._trained(), measurement.volume)
        kept, numbers = self.data.constants(problem, measurement)
        setting = Setting(problem, measurement, prior, kept, numbers)
        sigmas = self.levels.sigmas(self.start.sigma if self.start else None)
        noise = noise_source(self.sampler.noise, measurement.volume.shape[0])
        return DiffusionProblem(setting, prior, noise, level_pairs(sigmas), NoiseKey(self.seed))

    def init(self, problem: DiffusionProblem) -> State:
        space, shape, key = problem.problem.space, problem.problem.A.domain_shape, problem.key.at(0, START)
        begin = self._begin(problem.setting.measurement) if self.start else space.zeros(shape)
        sigma = problem.levels[0][0]
        x = space.empty(shape)
        sweep(
            space,
            lambda slab, b: ([raised(b, problem.noise(key, slab.start, tuple(b.shape)), 0.0, sigma)], []),
            [begin],
            [x],
        )
        begin.release()
        return State(0, {"x": x, **self.data.start(problem.setting)})

    def step(self, problem: DiffusionProblem, state: State) -> tuple[State, Info]:
        sigma, following = problem.levels[state.step]
        turn = _Turn(self, problem, state)
        key = problem.key.at(state.step)
        chain = Chain(turn.estimate, turn.fit, problem.noise, key, problem.problem.space, len(problem.levels))
        x = self.sampler.step(chain, state["x"], sigma, following)
        info = Info(turn.residual, None, sigma)
        return State(state.step + 1, {**turn.kept.volumes, "x": x}, turn.kept.scalars), info

    def steps(self, problem: DiffusionProblem) -> int:
        return len(problem.levels)

    def inputs(self) -> dict[str, str]:
        return {"prior": self._trained().sha256}

    def _trained(self) -> TrainedPrior:
        name = self.prior if self.prior.startswith("builtin:") else Path(self.prior)
        return load_prior(name, sha256=self.sha256)

    def _begin(self, measurement: Measurement) -> Volume:
        """Another method's volume."""
        assert self.start is not None
        kind = METHODS[self.start.method]
        if self.start.iterations is not None and "iterations" not in kind.model_fields:
            raise ConfigError(f"start.iterations is given, but {self.start.method} has none")
        numbers = {} if self.start.iterations is None else {"iterations": self.start.iterations}
        method: Method[Any] = kind(**numbers)
        problem = method.prepare(replace(measurement, known={}))
        state = method.init(problem)
        for _ in range(method.steps(problem)):
            state, _ = method.step(problem, state)
        return state["x"]


class _Turn:
    """One step's dealings with prior and data: what they keep, and the last residual."""

    def __init__(self, method: Diffusion, problem: DiffusionProblem, state: State) -> None:
        self.method, self.problem = method, problem
        volumes = {name: volume for name, volume in state.volumes.items() if name != "x"}
        self._first = set(volumes.values())
        self.kept = Outcome(state["x"], volumes, state.scalars)
        self.squared: float | None = None

    @property
    def residual(self) -> float | None:
        return None if self.squared is None else self.problem.problem.relative(self.squared)

    def estimate(self, x: Volume, sigma: float, key: NoiseKey) -> Estimate:
        problem, setting, data = self.problem.problem, self.problem.setting, self.method.data
        x0 = self.problem.prior.denoise(x, sigma, key, problem.space)
        outcome = data.on_estimate(setting, x0, self.kept)
        self._keep(outcome)
        pushed = data.push(setting, x, x0, sigma, key)
        if pushed is not None and pushed[1] is not None:
            self.squared = pushed[1]
        return Estimate(x0, outcome.x, pushed[0] if pushed else None)

    def fit(self, x: Volume, sigma: float) -> Volume:
        outcome = self.method.data.on_iterate(self.problem.setting, x, self.kept)
        self._keep(outcome)
        return outcome.x

    def _keep(self, outcome: Outcome) -> None:
        """Take over what a data step keeps; what it replaces goes, unless the State before the step holds it."""
        for old in set(self.kept.volumes.values()) - set(outcome.volumes.values()) - self._first:
            old.release()
        self.kept = outcome
        if outcome.squared_residual is not None:
            self.squared = outcome.squared_residual
