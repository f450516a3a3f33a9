"""Two priors on perpendicular planes of a volume: TPDM (Lee et al. 2023, arXiv 2303.08440)."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from volrecon.errors import ConfigError, DataError, DivergedError, PriorWarning
from volrecon.geometry import VolumeGeometry
from volrecon.priors.card import Card
from volrecon.priors.fitness import check_voxels
from volrecon.priors.prior import PLANES, Prior
from volrecon.sampling import NoiseKey, uniform_integers
from volrecon.transpose import transposed
from volrecon.volume import Readable, Space, Volume

Normal = Literal["y", "x"]
AXES: dict[Normal, tuple[int, int, int]] = {"y": (1, 0, 2), "x": (2, 0, 1)}
"""The volume's axes, those of a stack of perpendicular planes: (y, z, x) and (x, z, y)."""

ONE = 2**32


class PlanesPrior(Prior):
    """A prior of axial slices and one of coronal or sagittal planes, which take turns.

    At an auxiliary step the volume is transposed so that the perpendicular planes are its slices, denoised by their
    prior, and transposed back. A whole number K makes every K-th step auxiliary (steps K-1, 2K-1, ...), any other a
    step with probability 1/K, as published. `axial` may be a PlanesPrior itself: so all three directions take turns.

    Args:
        axial: of (z, y, x).
        perpendicular: of (y, z, x) or (x, z, y), possibly with the same denoiser; its `spacing` is that of
            `stacked` grids.
        every: K, at least 1.
        normal: the axis that the perpendicular planes are stacked along: "y" coronal (z, x), "x" sagittal (z, y).
    """

    def __init__(self, axial: Prior, perpendicular: Prior, *, every: float = 2.0, normal: Normal = "y") -> None:
        if not 1 <= every < float("inf"):
            raise ConfigError(f"every {every}-th step cannot be perpendicular; K is at least 1")
        if normal not in AXES:
            raise ConfigError(f"planes are stacked along 'y' (coronal) or 'x' (sagittal), not {normal!r}")
        self.axial, self.perpendicular, self.every, self.axes = axial, perpendicular, every, AXES[normal]

    def denoise(self, x: Volume, sigma: float, key: NoiseKey, space: Space) -> Volume:
        def denoised(prior: Prior, own: NoiseKey, x: Volume) -> Volume:
            return prior.denoise(x, sigma, own, space)

        return self._in_turn(denoised, (x,), key, space)

    def vjp(self, x: Volume, sigma: float, v: Readable, key: NoiseKey, space: Space) -> Volume:
        # A transposition is orthogonal: its adjoint takes it back.
        def pulled_back(prior: Prior, own: NoiseKey, x: Volume, v: Volume) -> Volume:
            return prior.vjp(x, sigma, v, own, space)

        return self._in_turn(pulled_back, (x, v), key, space)

    def turn(self, key: NoiseKey) -> tuple[bool, NoiseKey]:
        """Whether a step is auxiliary, and the key its prior gets.

        Where turns are regular, each prior counts its own steps: with K = 2 one would otherwise see the even steps
        only, and never denoise jump groups.
        """
        if self.every != int(self.every):
            # One number a direction: of two nested priors neither says what the other does.
            drawn = uniform_integers(key.at(key.step, PLANES), 2, ONE)[self.axes[0] - 1]
            return int(drawn) * self.every < ONE, key
        K = int(self.every)
        auxiliary, before = key.step % K == K - 1, key.step // K
        return auxiliary, replace(key, step=before if auxiliary else key.step - before)

    def _in_turn(
        self, work: Callable[..., Volume], volumes: tuple[Readable, ...], key: NoiseKey, space: Space
    ) -> Volume:
        auxiliary, own = self.turn(key)
        try:
            if not auxiliary:
                return work(self.axial, own, *volumes)
            stacks = [transposed(volume, self.axes, space) for volume in volumes]
            found = work(self.perpendicular, own, *stacks)
        except (DataError, DivergedError) as error:
            kind = "perpendicular" if auxiliary else "axial"
            raise type(error)(f"step {key.step}, {kind} planes (which count their own steps): {error}") from error
        for stack in stacks:
            stack.release()
        back = transposed(found, (self.axes.index(0), self.axes.index(1), self.axes.index(2)), space)
        found.release()
        return back


def stacked(grid: VolumeGeometry, normal: Normal) -> VolumeGeometry:
    """The grid of (y, z, x) or (x, z, y), as a prior of the perpendicular planes sees it."""
    shape, voxel = (tuple(np.take(sizes, AXES[normal]).tolist()) for sizes in (grid.shape, grid.voxel_zyx_mm))
    return VolumeGeometry(shape, voxel)


def check_planes(card: Card, grid: VolumeGeometry, normal: Normal, force: bool = False) -> None:
    """Whether a prior trained on square pixels may be used on perpendicular planes, whose pixels are dz by dx or dy.

    They are not resampled: that would blur the volume at every step. So long as both sides can be pixel sizes that the
    prior was trained on, everything in the plane is of a size that it knows.

    Raises:
        ConfigError: one side is longer than the other by more than the ratio of the largest to the smallest trained
            pixel, or as `check_voxels` says; not with `force`.
    """
    seen = stacked(grid, normal)
    down, across = seen.voxel_zyx_mm[1:]
    low, high = card.voxel_mm
    stretch = max(down / across, across / down)
    if stretch > 1.01 * high / low:
        text = (
            f"planes along {normal} have pixels of {down:g} x {across:g} mm, one side {stretch:.2f} times the other; "
            f"prior {card.name} was trained on pixels of {low:g} to {high:g} mm, a ratio of {high / low:.2f}"
        )
        if not force:
            raise ConfigError(f"{text}. Choose slices as far apart as pixels are wide, another method, or force it.")
        warnings.warn(text, PriorWarning, stacklevel=2)
    check_voxels(card, seen, force)
