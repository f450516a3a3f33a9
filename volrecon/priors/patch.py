"""Position-aware patches of slices: PaDIS (Hu et al. 2024) and its rivals, on single slices or on groups of them."""

from collections.abc import Callable, Iterator, Sequence

import torch

from volrecon import patches
from volrecon.errors import ConfigError
from volrecon.priors.denoiser import Conditions, Denoiser
from volrecon.priors.prior import SHIFT, GroupedPrior
from volrecon.sampling import NoiseKey, uniform_integers
from volrecon.tiling import PatchGrid, PatchLayout, patch_layout


class PatchPrior(GroupedPrior):
    """Patches of the zero-padded slices of a group, each denoised on its own and blended back.

    Args:
        denoiser: of groups; one with positions is told where each pixel lies in the padded slice.
        patch: side of a patch, as trained.
        mode: of `tiling.MODES`: "padis" shifts the patches from step to step and from group to group.
        overlap: pixels that neighbouring patches share in the modes that let them overlap.
        patch_batch: patches denoised at once; it bounds memory and changes nothing else.
        other arguments: as for `GroupedPrior`; `gaps = (0,)` takes every slice alone, as published.

    Raises:
        ConfigError: no such mode; an overlap of a whole patch; patches, or batches of them, of less than 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        patch: int,
        *,
        mode: str = "padis",
        overlap: int = 8,
        spacing: float = 1.0,
        gaps: tuple[int, ...] = (0,),
        patch_batch: int = 64,
    ) -> None:
        super().__init__(denoiser, spacing=spacing, gaps=gaps, batch=1)
        if patch_batch < 1:
            raise ConfigError(f"patches are denoised {patch_batch} at once; it must be at least 1")
        patch_layout(PatchGrid((1, 1), patch), mode, overlap=overlap)  # is there such a mode?
        self.patch, self.mode, self.overlap, self.patch_batch = patch, mode, overlap, patch_batch

    def denoise_groups(
        self, tiles: torch.Tensor, sigma: float, gap: float, key: NoiseKey, numbers: Sequence[int]
    ) -> torch.Tensor:
        out = []
        for group, layout in self._layouts(tiles, key, numbers):
            pieces = [self._denoiser(layout, part, sigma, gap)(cut) for part, cut in self._cut(group, layout)]
            out.append(patches.blend(torch.cat(pieces), layout))
        return torch.stack(out)

    def groups_vjp(
        self,
        tiles: torch.Tensor,
        sigma: float,
        gap: float,
        key: NoiseKey,
        cotangent: torch.Tensor,
        numbers: Sequence[int],
    ) -> torch.Tensor:
        """As `GroupedPrior.groups_vjp`, with the graph of one batch of patches at a time."""
        out = []
        for (group, layout), v in zip(self._layouts(tiles.detach(), key, numbers), cotangent, strict=True):
            pieces = [
                self._pulled_back(self._denoiser(layout, part, sigma, gap), cut, patches.spread(v, layout, part))
                for part, cut in self._cut(group, layout)
            ]
            out.append(patches.scatter(torch.cat(pieces), layout))
        return torch.stack(out)

    def shift(self, grid: PatchGrid, key: NoiseKey, number: int) -> tuple[int, int]:
        """Shift (rows, columns) of the patches of a group at a step, uniform from 0 to below the padding.

        Args:
            number: the group's first slice.
        """
        down, across = grid.padding
        seed = int(uniform_integers(key.at(key.step, SHIFT), 1, 2**32)[0])
        drawn = uniform_integers(NoiseKey(seed, number, SHIFT), 1, down * across)[0]
        return int(drawn // across), int(drawn % across)

    def _layouts(
        self, tiles: torch.Tensor, key: NoiseKey, numbers: Sequence[int]
    ) -> Iterator[tuple[torch.Tensor, PatchLayout]]:
        """Each group with its patches."""
        grid = PatchGrid((tiles.shape[2], tiles.shape[3]), self.patch)
        for group, number in zip(tiles, numbers, strict=True):
            yield group, patch_layout(grid, self.mode, self.shift(grid, key, number), self.overlap)

    def _cut(self, group: torch.Tensor, layout: PatchLayout) -> Iterator[tuple[range, torch.Tensor]]:
        """The patches of a group in batches."""
        for start in layout.all[:: self.patch_batch]:
            part = layout.all[start : start + self.patch_batch]
            yield part, patches.extract(group, layout, part)

    def _denoiser(
        self, layout: PatchLayout, part: range, sigma: float, gap: float
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """D of some patches, told where they lie."""

        def denoised(cut: torch.Tensor) -> torch.Tensor:
            where = patches.positions(layout, part, cut.device) if self.denoiser.positions else None
            return self.denoiser(cut, sigma, Conditions(gap, where))

        return denoised

    def _pulled_back(
        self, function: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, cotangent: torch.Tensor
    ) -> torch.Tensor:
        """J' cotangent, J the Jacobian of a function at `inputs`; parameters collect nothing."""
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            found = function(inputs)
        if not found.requires_grad:
            raise ConfigError(
                f"prior {self.name}: its denoiser ({type(self.denoiser).__name__}) has no gradient; guidance needs one"
            )
        (gradient,) = torch.autograd.grad(found, inputs, cotangent)
        return gradient
