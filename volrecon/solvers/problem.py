"""What every method is given, and the State it takes from step to step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import torch
from pydantic import Field

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry, VolumeGeometry, coverage
from volrecon.noise import Noise
from volrecon.projectors import projector
from volrecon.projectors.streamed import StreamedOperator
from volrecon.strict_toml import Strict
from volrecon.volume import Readable, Slab, Space, Volume, slice_dots, sweep


@dataclass(frozen=True)
class Measurement:
    """Projections and where they come from; the input of every method.

    Attributes:
        projections: line integrals (v, angle, u); NaN marks a pixel that was masked.
        space: where volumes of the run live.
        unit_per_mm: attenuation that is 1 inside the run.
        backend: name of the projector.
        known: numbers that took long to compute, by name; what is missing is computed and put there.
    """

    projections: Readable
    scan: ScanGeometry
    volume: VolumeGeometry
    space: Space
    unit_per_mm: float
    noise: Noise = field(default_factory=Noise)
    backend: str = "auto"
    known: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """All that lives from step to step: named volumes and scalars. The engine commits exactly this.

    "x" is the reconstruction in the run's unit; `step` counts the steps done. `filled` names volumes that are still
    being written: only their slices [0, n) count, and n grows by whole chunks.
    """

    step: int
    volumes: Mapping[str, Volume]
    scalars: Mapping[str, float] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Volume:
        return self.volumes[name]


@dataclass(frozen=True)
class Info:
    """What a step tells: `residual` is ||y - Ax|| / ||y|| in the weighted norm, `change` ||x' - x|| / ||x'||.

    SIRT tells the residual of the x it started from: that of the new one would cost another projection. `sigma` is the
    noise level a diffusion method was at.
    """

    residual: float | None = None
    change: float | None = None
    sigma: float | None = None


Problem = TypeVar("Problem")


class Method(Strict, ABC, Generic[Problem]):
    """A recipe's algorithm with its numbers: `prepare` once, then `init` and `step` to the end.

    Fields are the recipe's keys; unknown keys, wrong types and numbers out of range are refused.
    """

    kind: ClassVar[Literal["direct", "iterative"]]

    @abstractmethod
    def check(self, scan: ScanGeometry, volume: VolumeGeometry, backend: str) -> None:
        """Raise a ConfigError where this method or the projector cannot serve the geometry; computes nothing."""

    @abstractmethod
    def prepare(self, measurement: Measurement) -> Problem:
        """What stays the same through all steps; the same again when a run resumes."""

    @abstractmethod
    def init(self, problem: Problem) -> State: ...

    @abstractmethod
    def step(self, problem: Problem, state: State) -> tuple[State, Info]:
        """The next state; the volumes of `state` are left as they are."""

    @abstractmethod
    def steps(self, problem: Problem) -> int:
        """How many steps there are at most."""

    def inputs(self) -> dict[str, str]:
        """sha256 of every file besides the scan that the result depends on, by what it is."""
        return {}

    def finished(self, info: Info) -> bool:
        """Whether the method has converged before its last step."""
        return False


@dataclass(frozen=True)
class LeastSquares:
    """min ||y - Ax||^2 with A of norm 1 in the run's unit: every weight of a recipe is scale-free.

    Methods without weights may leave the norm out (`least_squares`).

    Attributes:
        A: sqrt(W) A unit / norm.
        y: sqrt(W) y / norm.
        squared_norm: ||y||^2.
    """

    A: StreamedOperator
    y: Volume
    space: Space
    squared_norm: float

    def relative(self, squared_residual: float) -> float:
        return (max(squared_residual, 0.0) / self.squared_norm) ** 0.5 if self.squared_norm else 0.0


def least_squares(
    measurement: Measurement, weights: Literal["noise", "none"], norm: float | None = None
) -> LeastSquares:
    """The weighted, normalised problem of a measurement; masked pixels weigh nothing.

    Args:
        norm: to divide by instead of the operator's, which takes eight projections and backprojections to find.

    Raises:
        ConfigError: the projector cannot serve the geometry, or no ray meets the volume.
    """
    m = measurement
    coverage(m.volume, m.scan)
    A = StreamedOperator(projector(m.volume, m.scan, m.backend), m.space, m.unit_per_mm)
    root = _root_weights(m, weights)
    A = replace(A, root_weights=root)
    if norm is None:
        norm = m.known["norm"] if "norm" in m.known else m.known.setdefault("norm", A.norm())
    A = replace(A, scale=A.scale / norm)
    y = m.space.empty(m.scan.shape)

    def weigh(slab: Slab, block: torch.Tensor, *w: torch.Tensor) -> tuple[list[torch.Tensor], list[Any]]:
        out = torch.nan_to_num(block, nan=0.0) / norm
        out = out * w[0] if w else out
        return [out], [slice_dots(out, out)]

    (squared_norm,) = sweep(m.space, weigh, [m.projections, *([root] if root else [])], [y])
    return LeastSquares(A, y, m.space, squared_norm)


def _root_weights(m: Measurement, weights: Literal["noise", "none"]) -> Volume | None:
    """sqrt(W) as a volume, or None where every pixel weighs 1."""

    def count(slab: Slab, block: torch.Tensor) -> tuple[list[torch.Tensor], list[Any]]:
        return [], [torch.isnan(block).flatten(1).sum(1).double().numpy()]

    (masked,) = sweep(m.space, count, [m.projections])
    if masked == math.prod(m.scan.shape):
        raise ConfigError(f"all {masked:.0f} pixels of the projections are masked; no ray is left to fit")
    if not masked and (weights == "none" or m.noise.kind != "poisson"):
        return None
    root = m.space.empty(m.scan.shape)

    def weigh(slab: Slab, block: torch.Tensor) -> tuple[list[torch.Tensor], list[Any]]:
        w = m.noise.root_weights(torch.nan_to_num(block, nan=0.0)) if weights == "noise" else None
        seen = (~torch.isnan(block)).float()
        return [seen if w is None else seen * w], []

    sweep(m.space, weigh, [m.projections], [root])
    return root


class Iterative(Method[LeastSquares]):
    """Base of the methods that fit the projections step by step.

    Attributes:
        iterations: steps at most.
        weights: "noise" weighs each ray by its variance where the scan knows its noise; "none" weighs all alike.
        tolerance: stop when ||x' - x|| / ||x'|| falls below it; 0 runs all iterations.
        scale_free: whether the iterates are the same for any multiple of A, so that its norm need not be known.
    """

    kind = "iterative"
    scale_free: ClassVar[bool] = False
    iterations: int
    weights: Literal["noise", "none"] = "noise"
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def check(self, scan: ScanGeometry, volume: VolumeGeometry, backend: str) -> None:
        projector(volume, scan, backend)

    def prepare(self, measurement: Measurement) -> LeastSquares:
        return least_squares(measurement, self.weights, norm=1.0 if self.scale_free else None)

    def steps(self, problem: LeastSquares) -> int:
        return self.iterations

    def inputs(self) -> dict[str, str]:
        """sha256 of every file besides the scan that the result depends on, by what it is."""
        return {}

    def finished(self, info: Info) -> bool:
        return info.change is not None and info.change < self.tolerance
