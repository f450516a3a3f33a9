"""Position-aware patches of slices: PaDIS (Hu et al. 2024), on single slices or on groups of them."""

import torch

from volrecon import patches
from volrecon.priors.denoiser import Conditions, Denoiser
from volrecon.priors.prior import SHIFT, GroupedPrior
from volrecon.sampling import NoiseKey, uniform_integers
from volrecon.tiling import PatchGrid


class PatchPrior(GroupedPrior):
    """Patches that tile the zero-padded slices of a group without overlap, at a shift that changes every step.

    Args:
        denoiser: with positions.
        patch: side of a patch, as trained.
        patch_batch: patches denoised at once; it bounds memory and changes nothing else.
        other arguments: as for `GroupedPrior`; `gaps = (0,)` takes every slice alone, as published.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        patch: int,
        *,
        spacing: float = 1.0,
        gaps: tuple[int, ...] = (0,),
        patch_batch: int = 64,
    ) -> None:
        super().__init__(denoiser, spacing=spacing, gaps=gaps, batch=1)
        self.patch, self.patch_batch = patch, patch_batch

    @torch.no_grad()
    def denoise_groups(self, tiles: torch.Tensor, sigma: float, gap: float, key: NoiseKey) -> torch.Tensor:
        grid = PatchGrid((tiles.shape[2], tiles.shape[3]), self.patch)
        shift = self.shift(grid, key)
        where = patches.positions(grid, shift)
        return torch.stack([self._group(group, sigma, gap, grid, shift, where) for group in tiles])

    def shift(self, grid: PatchGrid, key: NoiseKey) -> tuple[int, int]:
        """Shift of the grid (rows, columns) at a step, uniform from 0 to below the padding."""
        down, across = grid.padding
        drawn = uniform_integers(key.at(key.step, SHIFT), 1, down * across)[0]
        return int(drawn // across), int(drawn % across)

    def _group(
        self,
        group: torch.Tensor,
        sigma: float,
        gap: float,
        grid: PatchGrid,
        shift: tuple[int, int],
        where: torch.Tensor,
    ) -> torch.Tensor:
        cut = patches.extract(group, grid, shift)
        parts = [slice(start, start + self.patch_batch) for start in range(0, len(cut), self.patch_batch)]
        pieces = [self.denoiser(cut[part], sigma, Conditions(gap, where[part])) for part in parts]
        return patches.assemble(torch.cat(pieces), grid, shift)
