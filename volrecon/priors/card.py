"""What a prior says of itself: how to build it, what numbers it takes, and where it comes from."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from volrecon.priors.networks import NetworkConfig
from volrecon.strict_toml import Length, Number, Strict


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{pair[0]:g} to {pair[1]:g} is no range: the lower end comes first")
    return pair


Range = Annotated[tuple[Number, Number], Field(strict=False), AfterValidator(_rising)]
LengthRange = Annotated[tuple[Length, Length], Field(strict=False), AfterValidator(_rising)]


class DataOrigin(Strict):
    """One source of the training data."""

    file: str
    origin: str
    licence: str


class Card(Strict):
    """The metadata of a weights file.

    Attributes:
        slices: slices of a group, k.
        patch: side of the largest patch of a network that takes positions; None for networks without positions.
        unit_per_mm: attenuation in 1/mm that is 1 in the linear unit, for water of `water_per_mm`.
        value_range: lowest and highest value of the training data in the linear unit.
        centre, sigma_data: mean and standard deviation of the training data.
        soft_tissue: the commonest value between fat and bone, in the linear unit.
        voxel_mm: smallest and largest pixel of the training data.
        gaps: distances of slices within a group, in slices; 0 is one slice k times.
        gap_pixels: smallest and largest such distance in pixels, 0 aside.
        noise: smallest and largest sigma seen.
        steps: optimiser steps.
        psnr: of denoised held-out volumes in dB, data range 1 linear unit, by sigma.
    """

    card_version: Literal[1] = 1
    name: str
    about: str
    network: NetworkConfig
    slices: Annotated[int, Field(ge=1, le=64)]
    patch: Annotated[int, Field(ge=1, le=4096)] | None = None
    unit_per_mm: Length
    water_per_mm: Length
    value_range: Range
    centre: Number
    sigma_data: Length
    soft_tissue: Length
    voxel_mm: LengthRange
    gaps: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    gap_pixels: Range
    noise: LengthRange
    steps: Annotated[int, Field(ge=0)]
    psnr: dict[str, float]
    data: Annotated[tuple[DataOrigin, ...], Field(strict=False)]
    phantoms: Annotated[int, Field(ge=0)]
    command: str
    commit: str

    @property
    def positions(self) -> bool:
        return self.patch is not None
