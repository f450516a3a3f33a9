"""A prior of a whole volume, made of a denoiser for tiles of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from volrecon.ascending import AscendingReader, AscendingWriter
from volrecon.errors import ConfigError, DataError, DivergedError
from volrecon.priors.denoiser import Denoiser
from volrecon.priors.partitions import Blending, Partition, alternating
from volrecon.sampling import NoiseKey, uniform_integers
from volrecon.volume import Readable, Space, Volume

OFFSET, SHIFT, PLANES = 1, 2, 3
"""Purposes of random numbers."""

LARGEST = 1e6
"""What a denoised value may be in the linear unit, where bone is about 1."""


class Prior(ABC):
    """D of a volume: D(x) = sum of G' W D(G x) over the tiles of a partition that changes from step to step."""

    @abstractmethod
    def denoise(self, x: Volume, sigma: float, key: NoiseKey, space: Space) -> Volume:
        """The posterior mean of a volume, (z, y, x) in the linear unit, as a new volume in `space`.

        Args:
            x: x0 + sigma noise.
            sigma: noise level in the linear unit.
            key: of this step; it chooses the partition, the same for any batch and memory tier.

        Raises:
            DataError: the denoiser changes the shape or type of a tile.
            DivergedError: it makes values that are not finite, or beyond `LARGEST`.
        """

    @abstractmethod
    def vjp(self, x: Volume, sigma: float, v: Readable, key: NoiseKey, space: Space) -> Volume:
        """J'v, J the Jacobian at x of `denoise` with the same key, as a new volume in `space`.

        J'v = sum of G' J_D' W G v: D is run again with autograd, tile batch by tile batch, and no graph is larger.

        Args:
            v: (z, y, x); each of its blocks is read once.
        """


class GroupedPrior(Prior):
    """A prior that takes slices in groups; subclasses say how groups are denoised.

    Adjacent groups with a random offset and groups of slices further apart take turns, after DiffusionBlend++ (Song
    et al. 2024): the offset and the jumps hide the seams.

    Args:
        denoiser: of groups of `denoiser.slices`.
        spacing: distance of neighbouring slices in pixels (dz/dx).
        gaps: distances of slices within a group that the network knows; 0 stands for copies of one slice.
        batch: groups denoised at once; it bounds memory and changes nothing else.
        blending: where groups overlap, the mean of them, or the one written last, as published.

    Attributes:
        name: what messages call the prior.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        spacing: float = 1.0,
        gaps: tuple[int, ...] = (1,),
        batch: int = 4,
        blending: Blending = "mean",
    ) -> None:
        if not 0 < spacing < float("inf") or batch < 1 or not gaps or min(gaps) < 0:
            raise ConfigError(
                f"slices {spacing} pixels apart, gaps {gaps}, {batch} groups at once: need a distance above 0, gaps of "
                f"0 or more, and at least one group"
            )
        self.denoiser, self.spacing, self.gaps, self.batch, self.blending = denoiser, spacing, gaps, batch, blending
        self.name = type(self).__name__

    def denoise(self, x: Volume, sigma: float, key: NoiseKey, space: Space) -> Volume:
        partition = self.partition(x.shape[0], key)
        source, out = AscendingReader(x, space.height(x.shape)), AscendingWriter(space.empty(x.shape), partition.counts)
        for groups, weights in self._batches(partition, x, space):
            tiles, gap, numbers = source.gather(groups), partition.gap * self.spacing, groups[:, 0].tolist()
            with torch.no_grad():
                found = self.denoise_groups(tiles, sigma, gap, key, numbers)
            self._check(found, tiles, sigma, key, LARGEST)
            out.add(groups, weights * found)
        return out.volume

    def vjp(self, x: Volume, sigma: float, v: Readable, key: NoiseKey, space: Space) -> Volume:
        partition = self.partition(x.shape[0], key)
        source, out = AscendingReader(x, space.height(x.shape)), AscendingWriter(space.empty(x.shape), partition.counts)
        cotangents = AscendingReader(v, space.height(x.shape))
        for groups, weights in self._batches(partition, x, space):
            tiles, gap, numbers = source.gather(groups), partition.gap * self.spacing, groups[:, 0].tolist()
            found = self.groups_vjp(tiles, sigma, gap, key, weights * cotangents.gather(groups), numbers)
            self._check(found, tiles, sigma, key, torch.finfo(torch.float32).max)
            out.add(groups, found)
        return out.volume

    def _batches(self, partition: Partition, x: Volume, space: Space) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        count = -(-len(partition.groups) // self.batch)
        return space.tiles(x.shape, partition.batches(self.batch), count)

    @abstractmethod
    def denoise_groups(
        self, tiles: torch.Tensor, sigma: float, gap: float, key: NoiseKey, numbers: Sequence[int]
    ) -> torch.Tensor:
        """D of whole slices in groups: (groups, slices, rows, columns) -> the same shape.

        Differentiable; `denoise` calls it without a graph, `groups_vjp` with one.

        Args:
            gap: distance of neighbours in a group, in pixels.
            key: of the step; with `numbers` it says what is drawn for a group, whatever the batch.
            numbers: the first slice of each group.
        """

    def groups_vjp(
        self,
        tiles: torch.Tensor,
        sigma: float,
        gap: float,
        key: NoiseKey,
        cotangent: torch.Tensor,
        numbers: Sequence[int],
    ) -> torch.Tensor:
        """J' cotangent, J the Jacobian of `denoise_groups` at `tiles`; all of one shape.

        Raises:
            ConfigError: the denoiser cannot be differentiated.
        """
        with torch.enable_grad():
            inputs = tiles.detach().requires_grad_()
            found = self.denoise_groups(inputs, sigma, gap, key, numbers)
        # With respect to the input alone: the network's parameters collect nothing.
        gradient = torch.autograd.grad(found, inputs, cotangent, allow_unused=True)[0] if found.requires_grad else None
        if gradient is None:
            raise ConfigError(
                f"prior {self.name}: its denoiser ({type(self.denoiser).__name__}) has no gradient; guidance through "
                f"the denoiser needs one of torch operations, without no_grad or numpy inside"
            )
        return gradient

    def partition(self, slices: int, key: NoiseKey) -> Partition:
        """The groups of a step."""
        offset = int(uniform_integers(key.at(key.step, OFFSET), 1, self.denoiser.slices)[0])
        return alternating(slices, self.denoiser.slices, self.gaps, key.step, offset, self.blending)

    def _check(self, found: torch.Tensor, tiles: torch.Tensor, sigma: float, key: NoiseKey, largest: float) -> None:
        where = f"prior {self.name}, step {key.step}, sigma {sigma:g}"
        if found.shape != tiles.shape or found.dtype != tiles.dtype:
            raise DataError(
                f"{where}: the denoiser makes {tuple(found.shape)} {found.dtype} of {tuple(tiles.shape)} "
                f"{tiles.dtype}; it must keep both"
            )
        low, high = (float(end) for end in torch.aminmax(found))
        if not (low >= -largest and high <= largest):  # NaN compares as false
            blame = "check the weights, and the noise levels that they were trained for"
            if not bool(tiles.isfinite().all()):
                blame = "the volume it was given is not finite either: an earlier step went wrong"
            raise DivergedError(f"{where}: the denoiser makes values from {low:g} to {high:g}; {blame}")
