"""Data steps as a recipe names them: what the projections do to an estimate, or to the noisy volume itself.

Each keeps between steps what its `start` makes; weights are relative to the operator of norm 1, in the linear unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field

from volrecon.datasteps import (
    Inverse,
    filtered_residual,
    gamma_of_noise,
    noise_energy,
    null_part,
    proximal,
    range_replaced,
    relaxed,
    squared_steps,
    unit_steps,
)
from volrecon.priors import Prior
from volrecon.sampling import NoiseKey
from volrecon.solvers.admm_ztv import admm_sweep
from volrecon.solvers.coupling import AlongZ, Difference, Isotropic
from volrecon.solvers.fbp import FBP
from volrecon.solvers.fdk import FDK
from volrecon.solvers.filtered import Filtered
from volrecon.solvers.normal import data_residual
from volrecon.solvers.problem import LeastSquares, Measurement
from volrecon.solvers.sirt import inverse_sums, sirt_step
from volrecon.strict_toml import Strict
from volrecon.volume import Volume, sweep

Iterations = Annotated[int, Field(ge=1, le=1000)]
Push = tuple[Volume, float | None]


@dataclass(frozen=True)
class Setting:
    """What stays the same for a data step through a run.

    Attributes:
        problem: y and A of norm 1.
        measurement: of the run.
        prior: for guidance through the denoiser.
        kept: volumes that a data step made once, by name.
        numbers: likewise numbers.
    """

    problem: LeastSquares
    measurement: Measurement
    prior: Prior
    kept: Mapping[str, Volume]
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """After a data step.

    Attributes:
        x: new, or the volume that was given.
        volumes, scalars: what the step keeps for its next time; part of the State.
        squared_residual: ||y - Ax||^2 of what it made, where it is known.
    """

    x: Volume
    volumes: Mapping[str, Volume]
    scalars: Mapping[str, float]
    squared_residual: float | None = None


class DataStep(Strict):
    """Base: does nothing. A subclass overrides what it needs."""

    def constants(self, problem: LeastSquares, measurement: Measurement) -> tuple[dict[str, Volume], dict[str, float]]:
        """Volumes and numbers that stay the same through a run."""
        return {}, {}

    def start(self, setting: Setting) -> dict[str, Volume]:
        """Volumes of the State before the first step."""
        return {}

    def on_estimate(self, setting: Setting, x0: Volume, before: Outcome) -> Outcome:
        """The estimate of the volume without noise, corrected; x0 is left as it is."""
        return Outcome(x0, before.volumes, before.scalars)

    def push(self, setting: Setting, x: Volume, x0: Volume, sigma: float, key: NoiseKey) -> Push | None:
        """What guidance adds to the next iterate, and ||y - A x0||^2 if it is known; None without guidance."""
        return None

    def on_iterate(self, setting: Setting, x: Volume, before: Outcome) -> Outcome:
        """The noisy volume, corrected; x is left as it is."""
        return Outcome(x, before.volumes, before.scalars)


class Proximal(DataStep):
    """argmin gamma/2 ||y - Ax||^2 + 1/2 ||x - x0||^2 by a few CG iterations from the estimate (DDS).

    Attributes:
        gamma: weight of the data; "noise" chooses it from the scan's noise model. From 1e6 on it is least squares,
            where few iterations alone keep the prior's estimate.
        iterations: of CG; each takes a projection and a backprojection.
    """

    kind: Literal["proximal"]
    gamma: Annotated[float, Field(gt=0, le=1e9)] | Literal["noise"] = 1e4
    iterations: Iterations = 5

    def constants(self, problem: LeastSquares, measurement: Measurement) -> tuple[dict[str, Volume], dict[str, float]]:
        return {}, {"energy": noise_energy(measurement, problem)} if self.gamma == "noise" else {}

    def on_estimate(self, setting: Setting, x0: Volume, before: Outcome) -> Outcome:
        gamma = before.scalars.get("gamma", 1e3) if self.gamma == "noise" else self.gamma
        step = proximal(setting.problem, x0, gamma=gamma, iterations=self.iterations)
        scalars = dict(before.scalars)
        if self.gamma == "noise":  # for the next step, whose estimate hardly differs
            scalars["gamma"] = gamma_of_noise(step, gamma, setting.numbers["energy"])
        return Outcome(step.x, before.volumes, scalars, step.squared_residual[1])


class Admm(DataStep):
    """One sweep of ADMM for total variation between slices, or in 3D, from the estimate (DDS, DiffusionBlend), or from
    the noisy volume (DiffusionMBIR). Split and dual live on from step to step.

    Attributes:
        along: "z", or "xyz" for 3D total variation.
        on: what it corrects.
        lam, rho: weight of the variation and penalty; lam/rho is the threshold on differences.
        iterations: of CG in a sweep.
    """

    kind: Literal["admm"]
    along: Literal["z", "xyz"] = "z"
    on: Literal["estimate", "iterate"] = "estimate"
    lam: Annotated[float, Field(ge=0, le=1e3)] = 1e-4
    rho: Annotated[float, Field(gt=0, le=1e6)] = 0.025
    iterations: Iterations = 5

    def start(self, setting: Setting) -> dict[str, Volume]:
        space, shape = setting.problem.space, setting.problem.A.domain_shape
        return {"s": space.zeros(self._difference(setting).shape(shape))}

    def on_estimate(self, setting: Setting, x0: Volume, before: Outcome) -> Outcome:
        return self._sweep(setting, x0, before) if self.on == "estimate" else super().on_estimate(setting, x0, before)

    def on_iterate(self, setting: Setting, x: Volume, before: Outcome) -> Outcome:
        return self._sweep(setting, x, before) if self.on == "iterate" else super().on_iterate(setting, x, before)

    def _sweep(self, setting: Setting, x: Volume, before: Outcome) -> Outcome:
        split = admm_sweep(
            setting.problem, x, before.volumes["s"], self._difference(setting),
            lam=self.lam, rho=self.rho, iterations=self.iterations,
        )  # fmt: skip
        return Outcome(split.x, {**before.volumes, "s": split.s}, before.scalars, split.squared_residual[1])

    def _difference(self, setting: Setting) -> Difference:
        z, y, x = setting.problem.A.operator.volume_geometry.voxel_zyx_mm
        return AlongZ(z / x) if self.along == "z" else Isotropic((z / x, y / x, 1.0))


class Guidance(DataStep):
    """Diffusion posterior sampling: the data's gradient through the denoiser moves the next iterate (DPS, PaDIS).

    Attributes:
        form: "squared" steps zeta times the gradient of 1/2 ||y - A D||^2, below 2; "unit" divides by ||y - A D||.
        zeta: step.
    """

    kind: Literal["dps"]
    form: Literal["squared", "unit"] = "squared"
    zeta: Annotated[float, Field(gt=0, le=1e6)] = 1.9

    def push(self, setting: Setting, x: Volume, x0: Volume, sigma: float, key: NoiseKey) -> Push | None:
        problem, space = setting.problem, setting.problem.space
        left = data_residual(problem, x0)
        steps = squared_steps(problem, self.zeta) if self.form == "squared" else unit_steps(problem, self.zeta, left)
        g = setting.prior.vjp(x, sigma, problem.A.T(left.r), key, space)
        left.r.release()
        wide = torch.from_numpy(steps).float()[:, None, None]
        sweep(space, lambda slab, g: ([wide[slab.start : slab.stop] * g], []), [g], [g])
        return g, left.squared


class _Filtering(DataStep):
    """Base of the steps that use filtered backprojection as A^+, divided by its gain where that is above 1."""

    def constants(self, problem: LeastSquares, measurement: Measurement) -> tuple[dict[str, Volume], dict[str, float]]:
        return {}, {"relaxation": relaxed(problem, self._plain(measurement)).relaxation}

    def _inverse(self, setting: Setting) -> Inverse:
        plain = self._plain(setting.measurement)
        return Inverse(plain.method, plain.measurement, setting.numbers["relaxation"])

    @staticmethod
    def _plain(measurement: Measurement) -> Inverse:
        method: Filtered = FDK() if measurement.scan.beam == "cone" else FBP()
        return Inverse(method, measurement)


class RangeNull(_Filtering):
    """x0 + A^+(y - A x0): what the data determine from the data, the rest from the prior (DDNM)."""

    kind: Literal["ddnm"]

    def on_estimate(self, setting: Setting, x0: Volume, before: Outcome) -> Outcome:
        fitted = range_replaced(setting.problem, self._inverse(setting), x0)
        return Outcome(fitted, before.volumes, before.scalars)


class Manifold(_Filtering):
    """MCG: guidance by the filtered residual through the denoiser, off what is measured, then a Kaczmarz step.

    Attributes:
        weight: of the gradient of ||A^+(y - A D)||, in the run's unit.
        relaxation: of the Kaczmarz step, in (0, 2).
    """

    kind: Literal["mcg"]
    weight: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    relaxation: Annotated[float, Field(gt=0, lt=2)] = 1.0

    def constants(self, problem: LeastSquares, measurement: Measurement) -> tuple[dict[str, Volume], dict[str, float]]:
        R, C = inverse_sums(problem.A)
        return {"R": R, "C": C}, super().constants(problem, measurement)[1]

    def push(self, setting: Setting, x: Volume, x0: Volume, sigma: float, key: NoiseKey) -> Push | None:
        space = setting.problem.space
        direction, square = filtered_residual(setting.problem, self._inverse(setting), x0)
        pulled = setting.prior.vjp(x, sigma, direction, key, space)
        g = null_part(setting.problem, self._inverse(setting), pulled)
        for volume in (direction, pulled):
            volume.release()
        step = self.weight / math.sqrt(square) if square else 0.0
        sweep(space, lambda slab, g: ([step * g], []), [g], [g])
        return g, None

    def on_iterate(self, setting: Setting, x: Volume, before: Outcome) -> Outcome:
        step = sirt_step(setting.problem, x, setting.kept["R"], setting.kept["C"], self.relaxation)
        return Outcome(step.x, before.volumes, before.scalars, step.squared_residual)


class Kaczmarz(DataStep):
    """x + w C A'R (y - Ax), all rays at once, on the estimate.

    Attributes:
        relaxation: w in (0, 2).
        repeats: how often a step does it.
    """

    kind: Literal["kaczmarz"]
    relaxation: Annotated[float, Field(gt=0, lt=2)] = 1.0
    repeats: Iterations = 1

    def constants(self, problem: LeastSquares, measurement: Measurement) -> tuple[dict[str, Volume], dict[str, float]]:
        R, C = inverse_sums(problem.A)
        return {"R": R, "C": C}, {}

    def on_estimate(self, setting: Setting, x0: Volume, before: Outcome) -> Outcome:
        now, squared = x0, None
        for _ in range(self.repeats):
            step = sirt_step(setting.problem, now, setting.kept["R"], setting.kept["C"], self.relaxation)
            if now is not x0:
                now.release()
            now, squared = step.x, step.squared_residual
        return Outcome(now, before.volumes, before.scalars, squared)
