"""How a volume is cut for the denoiser, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry
from volrecon.priors import (
    GroupedPrior,
    NeighbourPrior,
    PlanesPrior,
    Prior,
    SliceGroupPrior,
    TrainedPrior,
    check_planes,
    prior_of,
    stacked,
)
from volrecon.priors.partitions import Blending
from volrecon.strict_toml import Strict


class Tiles(Strict):
    """A partition of the volume.

    Attributes:
        kind: "groups" of slices that partition it, adjacent and further apart in turn (DiffusionBlend++), or patches of
            them where the prior knows positions; "neighbours", each slice from those around it (DiffusionBlend);
            "slices" on their own; "planes", perpendicular ones in turn, each on its own (TPDM).
        gaps: distances in a group; default those the prior was trained with, without copies.
        blending: of overlapping groups.
        every: of "planes": every how many steps the perpendicular ones.
        normal: of "planes": the axis that the perpendicular ones are stacked along.
        batch: groups denoised at once; it bounds memory.
    """

    kind: Literal["groups", "neighbours", "slices", "planes"] = "groups"
    gaps: tuple[int, ...] | None = Field(default=None, strict=False)
    blending: Blending = "mean"
    every: Annotated[float, Field(ge=1, le=1000)] = 2.0
    normal: Literal["y", "x"] = "y"
    batch: Annotated[int, Field(ge=1, le=1024)] = 4

    def check(self, trained: TrainedPrior, volume: VolumeGeometry, force: bool) -> None:
        """Whether the prior can serve the volume so.

        Raises:
            ConfigError: it cannot.
        """
        if self.kind == "planes":
            check_planes(trained.card, volume, self.normal, force)
        self.prior(trained, volume)

    def prior(self, trained: TrainedPrior, volume: VolumeGeometry) -> Prior:
        if self.kind != "planes":
            return self._grouped(trained, volume)
        return PlanesPrior(
            self._grouped(trained, volume),
            self._grouped(trained, stacked(volume, self.normal)),
            every=self.every,
            normal=self.normal,
        )

    def _grouped(self, trained: TrainedPrior, volume: VolumeGeometry) -> GroupedPrior:
        card, spacing = trained.card, volume.voxel_zyx_mm[0] / volume.voxel_zyx_mm[2]
        gaps = (0,) if self.kind in ("slices", "planes") else self.gaps or tuple(g for g in card.gaps if g) or (0,)
        if not set(gaps) <= set(card.gaps):
            raise ConfigError(
                f"prior {card.name} was trained with gaps {card.gaps}; tiles of gaps {gaps} are asked for"
            )
        if card.patch is not None:
            return prior_of(trained, spacing=spacing, gaps=gaps)
        kind = NeighbourPrior if self.kind == "neighbours" else SliceGroupPrior
        prior = kind(trained.denoiser, spacing=spacing, gaps=gaps, batch=self.batch, blending=self.blending)
        prior.name = card.name
        return prior
