"""A training run as a TOML file; `configs/training/` has examples with every key explained."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from volrecon.priors.networks import NetworkConfig
from volrecon.strict_toml import Count, Counts3, Length, Lengths3, Strict, key_paths, load_toml, validated

Sizes = Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=16)]
Lengths = Annotated[tuple[Length, ...], Field(strict=False, min_length=1, max_length=16)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
KEY_RANGE = re.compile(r"(.+)\[(\d{1,6}):(\d{1,6})\]")


class Source(Strict):
    """One file of CT volumes, HU or 1/mm, in any format that `volrecon import` reads.

    `keys` names arrays in a file of several; "hu[0:44]" stands for hu[0] to hu[43]. `held_out` are for validation.
    """

    file: str
    origin: str
    licence: str
    keys: Names = ()
    held_out: Names = ()
    weight: Length = 1.0
    water_per_mm: Length | None = None

    def expanded(self, names: tuple[str, ...]) -> tuple[str, ...]:
        out: list[str] = []
        for name in names:
            match = KEY_RANGE.fullmatch(name)
            if match and int(match[2]) >= int(match[3]):
                raise ValueError(f"the range {name} is empty; the number after the colon is the first left out")
            out += [f"{match[1]}[{k}]" for k in range(int(match[2]), int(match[3]))] if match else [name]
        return tuple(out)


class Phantoms(Strict):
    """Procedural patients (`volrecon.phantoms.anatomy`) with seeds from `first_seed` on."""

    count: Count
    shape: Counts3
    voxel_mm: Lengths3
    first_seed: Annotated[int, Field(ge=0, le=2**31)] = 1000
    weight: Length = 1.0


class Data(Strict):
    """What is learned from; a file of its own, so that several priors share it.

    Attributes:
        voxel_mm: pixel sizes the volumes are brought to; none is made finer than it is by more than 15%.
        clip: highest value kept, in the linear unit (attenuation over that of +1000 HU).
    """

    sources: Annotated[tuple[Source, ...], Field(strict=False)]
    voxel_mm: Lengths
    clip: Length = 2.0
    phantoms: Phantoms | None = None

    @model_validator(mode="after")
    def _no_volume_is_both(self) -> Self:
        trained = [(s.file, key) for s in self.sources for key in s.expanded(s.keys) or ("",) * (not s.held_out)]
        held_out = {(s.file, key) for s in self.sources for key in s.expanded(s.held_out)}
        both = sorted(f"{file}:{key}" for file, key in held_out.intersection(trained))
        if both:
            raise ValueError(f"{', '.join(both)[:200]}: trained on and held out; name each volume once")
        if not trained and self.phantoms is None:
            raise ValueError("there is nothing to train on: no source has a volume that is not held out")
        return self


class Groups(Strict):
    """Groups of `slices` slices.

    Attributes:
        gaps: distances of neighbouring slices of a group; 0 is the same slice `slices` times.
        weights: how often each gap is drawn.
    """

    slices: Annotated[int, Field(ge=1, le=15)] = 3
    gaps: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(strict=False, min_length=1)] = (1,)
    weights: Lengths = (1.0,)

    @model_validator(mode="after")
    def _one_weight_a_gap(self) -> Self:
        if len(self.gaps) != len(self.weights):
            raise ValueError(f"{len(self.gaps)} gaps but {len(self.weights)} weights")
        if self.slices == 1 and self.gaps != (0,):
            raise ValueError(f"a single slice has no neighbours: gaps must be [0], found {list(self.gaps)}")
        return self


class Patches(Strict):
    """Square patches, one size a batch; a batch has `pixels` pixels a slice in all.

    With `padded`, slices lie in zeros as in a `PatchGrid` of the largest size, and the network sees positions.
    """

    sizes: Sizes
    probabilities: Lengths
    pixels: Count
    padded: bool = False
    body: Fraction = 0.9

    @model_validator(mode="after")
    def _one_probability_a_size(self) -> Self:
        if len(self.sizes) != len(self.probabilities):
            raise ValueError(f"{len(self.sizes)} sizes but {len(self.probabilities)} probabilities")
        return self


class NoiseLevels(Strict):
    """ln sigma ~ N(ln median, spread^2), or with probability `uniform` uniform in ln sigma; within [low, high]."""

    median: Length = 0.1
    spread: Length = 1.3
    low: Length = 0.002
    high: Length = 40.0
    uniform: Fraction = 0.1

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"low {self.low:g}, median {self.median:g}, high {self.high:g} are not in this order")
        return self


class Optimiser(Strict):
    """AdamW with a linear warm-up and a cosine to zero over the budget; an average of the weights is what is kept.

    `average` is the exponent of the power-law average of Karras et al. 2024: about 1/average of the run counts.
    """

    learning_rate: Length = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    warm_up: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    clip_norm: Length = 1.0
    average: Annotated[float, Field(gt=0, le=1e4)] = 16.0


class Budget(Strict):
    """When training ends: after so many steps (repeatable to the byte) or minutes, not both."""

    steps: Count | None = None
    minutes: Length | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either steps or minutes")
        return self


class Validation(Strict):
    """PSNR of denoised held-out volumes every so many steps, at fixed noise levels with fixed noise."""

    sigmas: Lengths = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
    crops: Count = 24
    size: Count = 96
    every: Count = 500


class Training(Strict):
    """Everything that decides what a prior becomes."""

    name: str
    about: str
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    data: Data
    network: NetworkConfig
    groups: Groups
    patches: Patches
    noise: NoiseLevels = NoiseLevels()
    optimiser: Optimiser = Optimiser()
    budget: Budget
    validation: Validation = Validation()

    @model_validator(mode="after")
    def _crops_have_positions(self) -> Self:
        if self.patches.padded and self.validation.size > max(self.patches.sizes):
            most = max(self.patches.sizes)
            raise ValueError(f"validation.size is {self.validation.size}; with padded patches it may be {most} at most")
        return self


def load_training(path: Path) -> Training:
    """A training.toml; its `data` names another file, looked for beside it.

    Raises:
        ConfigError: all problems of the file, each with its key path.
    """
    tables = load_toml(path)
    if isinstance(tables.get("data"), str):
        tables["data"] = load_toml(path.parent / tables["data"])
    return validated(path, Training, tables, key_paths(Training))
