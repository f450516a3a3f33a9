"""How a volume is cut into groups of slices, and with what weight each output of a group counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from volrecon.errors import ConfigError
from volrecon.tiling import adjacent_groups, jump_groups

Blending = Literal["mean", "last"]
"""Of a slice in several groups: the mean of their outputs, or the output of the group that is evaluated last."""


@dataclass(frozen=True, eq=False)
class Partition:
    """D(x) = sum of G' W D(G x) over groups G of slices.

    Attributes:
        groups: slice numbers, (groups, k); the smallest of a group never falls from group to group.
        weights: W, float32 (groups, k); those of a slice sum to 1.
        gap: distance of neighbours within a group, in slices; 0 is one slice k times.
    """

    groups: np.ndarray
    weights: np.ndarray
    gap: int

    @property
    def counts(self) -> np.ndarray:
        """How often each slice is in a group, (slices,)."""
        return np.bincount(self.groups.ravel())

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """`size` groups at a time, with their weights as (groups, k, 1, 1)."""
        for start in range(0, len(self.groups), size):
            some = slice(start, start + size)
            yield self.groups[some], torch.from_numpy(self.weights[some])[:, :, None, None]


def blended(groups: np.ndarray, gap: int, blending: Blending, late: np.ndarray | None = None) -> Partition:
    """Groups with the weights of a blending; `late` says which of them are evaluated after the others (groups,)."""
    flat = groups.ravel()
    if blending == "mean":
        weights = 1 / np.bincount(flat)[flat]
    else:
        first = np.zeros(len(groups)) if late is None else late
        places = np.arange(flat.size).reshape(groups.shape)[np.argsort(first, kind="stable")].ravel()
        last = np.zeros(flat.max() + 1, np.int64)
        last[flat[places]] = places  # of repeated indices the last value stays
        weights = np.zeros(flat.size)
        weights[last] = 1
    return Partition(groups, weights.astype(np.float32).reshape(groups.shape), gap)


def neighbours(slices: int, k: int, gap: int) -> Partition:
    """Every slice from the k slices around it, edges repeated; only the middle output counts: DiffusionBlend.

    Args:
        gap: what the network is told: 1, or 0 for the copies that a single slice has for neighbours.

    Raises:
        ConfigError: k is even.
    """
    if k % 2 == 0:
        raise ConfigError(f"groups of {k} slices have no middle; DiffusionBlend needs a network of an odd number")
    groups = np.arange(slices)[:, None] + np.arange(k) - k // 2
    weights = np.zeros((slices, k), np.float32)
    weights[:, k // 2] = 1
    return Partition(groups.clip(0, slices - 1), weights, gap)


def alternating(
    slices: int, k: int, gaps: tuple[int, ...], step: int, offset: int, blending: Blending = "mean"
) -> Partition:
    """Adjacent groups at even steps, groups with the larger gaps in turn at odd ones: DiffusionBlend++.

    With "last", adjacent groups that are moved inwards at either end give way to the others, as in the published code;
    jump groups to those after them.

    Args:
        gaps: what may be used, in slices; without one above 1 there are no jumps; (0,) takes every slice alone.
        offset: of the adjacent groups, 0 to k-1.

    Raises:
        ConfigError: no gap fits this many slices.
    """
    if gaps == (0,) or (slices == 1 and 0 in gaps):
        return blended(np.repeat(np.arange(slices)[:, None], k, axis=1), 0, blending)
    jumps = [gap for gap in gaps if gap > 1 and slices >= k * gap]
    if jumps and (step % 2 or 1 not in gaps):
        gap = jumps[step // 2 % len(jumps)]
        return blended(jump_groups(slices, k, gap), gap, blending)
    if 1 not in gaps:
        raise ConfigError(f"{slices} slices are too few for groups of {k} with gaps {gaps}; neighbours need gap 1")
    groups = adjacent_groups(slices, k, offset)
    return blended(groups, 1, blending, late=groups[:, 0] % k == offset)
