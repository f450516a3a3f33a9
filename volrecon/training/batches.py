"""Batches of slice groups and patches, each a function of (seed, step): any worker, any order, any resume."""

import signal
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from volrecon.errors import VolreconError
from volrecon.tiling import PatchGrid
from volrecon.training.config import NoiseLevels, Training
from volrecon.training.prepare import Level

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers, one a purpose."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from; the linear unit.

    Attributes:
        clean: (batch, slices, size, size).
        noise: standard normal, the same shape; equal along the slices of a group that is one slice repeated, and 0
            beside a padded slice.
        sigma: (batch,).
        gap: (batch,), distance of neighbouring slices in pixels; 0 for one slice repeated.
        position: (batch, 2, size, size), y and x from -1 to 1 over the padded slice; None without positions.
    """

    clean: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor
    gap: torch.Tensor
    position: torch.Tensor | None

    def to(self, device: torch.device) -> "Batch":
        position = None if self.position is None else self.position.to(device)
        return Batch(self.clean.to(device), self.noise.to(device), self.sigma.to(device), self.gap.to(device), position)


@dataclass(frozen=True)
class Draw:
    """Draws samples from prepared levels as a training file says."""

    levels: tuple[Level, ...]
    training: Training

    def batch(self, rng: np.random.Generator, size: int, count: int) -> Batch:
        """`count` samples of patches of `size` pixels a side."""
        samples = [self._sample(rng, size) for _ in range(count)]
        clean = np.stack([sample.values for sample in samples])
        gap = np.array([sample.gap for sample in samples], np.float32)
        noise = rng.standard_normal(clean.shape, dtype=np.float32)
        noise[gap == 0] = noise[gap == 0][:, :1]
        sigma = draw_sigma(rng, self.training.noise, count)
        position = None
        if self.training.patches.padded:
            # A reconstruction by patches pads noisy slices with exact zeros.
            noise *= np.stack([sample.inside for sample in samples])[:, None]
            position = np.stack([sample.position for sample in samples])
        return Batch(
            torch.from_numpy(clean),
            torch.from_numpy(noise),
            torch.from_numpy(sigma),
            torch.from_numpy(gap),
            None if position is None else torch.from_numpy(position),
        )

    def _sample(self, rng: np.random.Generator, size: int) -> "_Sample":
        shares = np.array([level.share for level in self.levels])
        level = self.levels[rng.choice(len(self.levels), p=shares / shares.sum())]
        slices = self._slices(rng, level)
        corner = self._corner(rng, level, level.boxes[slices[len(slices) // 2]], size)
        values = np.stack([_patch(level, int(z), corner, size) for z in slices])
        gap = float(slices[-1] - slices[0]) / max(1, len(slices) - 1) * level.spacing
        values = values[::-1] if rng.random() < 0.5 else values
        across = rng.random() < 0.5
        values = values[..., ::-1] if across else values
        if self.training.patches.padded:
            inside, position = self._place(level, corner, size)
            if across:  # A patch of the mirrored slice lies on its other side.
                inside, position = inside[:, ::-1], np.stack([position[0], -position[1, :, ::-1]])
            return _Sample(values, gap, inside, position)
        values = values[:, ::-1] if rng.random() < 0.5 else values
        values = values.swapaxes(1, 2) if rng.random() < 0.5 else values
        return _Sample(values, gap, np.ones((size, size), bool), np.empty(0, np.float32))

    def _slices(self, rng: np.random.Generator, level: Level) -> np.ndarray:
        """Slice numbers of a group whose middle shows a body, where the volume has such; its gap fits the volume."""
        groups, k, depth = self.training.groups, self.training.groups.slices, level.array.shape[0]
        fits = np.array([(k - 1) * gap < depth for gap in groups.gaps])
        weights = np.where(fits, groups.weights, 0.0)
        gap = groups.gaps[rng.choice(len(groups.gaps), p=weights / weights.sum())] if fits.any() else 0
        firsts = np.arange(depth - (k - 1) * gap)
        shows = level.boxes[firsts + k // 2 * gap, 1] > 0
        return np.asarray(rng.choice(firsts[shows] if shows.any() else firsts) + gap * np.arange(k))

    def _padding(self, level: Level) -> tuple[int, int]:
        """Zeros that lie around a slice, as they do around it in a reconstruction by patches."""
        patches = self.training.patches
        return PatchGrid(_plane(level), max(patches.sizes)).padding if patches.padded else (0, 0)

    def _corner(self, rng: np.random.Generator, level: Level, box: np.ndarray, size: int) -> tuple[int, int]:
        """First (row, column) of a patch, in the slice's own numbers; mostly its centre lies in the body."""
        in_body = box[1] > 0 and rng.random() < self.training.patches.body
        corner = []
        for axis, (length, margin) in enumerate(zip(_plane(level), self._padding(level), strict=True)):
            last = max(-margin, length + margin - size)
            low, high = box[2 * axis : 2 * axis + 2] - size // 2 if in_body else (-margin, last + 1)
            corner.append(int(np.clip(rng.integers(low, high), -margin, last)))
        return corner[0], corner[1]

    def _place(self, level: Level, corner: tuple[int, int], size: int) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels (size, size) of a patch lie in the slice, and y and x (2, size, size) over the padded slice."""
        grid = PatchGrid(_plane(level), max(self.training.patches.sizes))
        where = [first + margin + np.arange(size) for first, margin in zip(corner, grid.padding, strict=True)]
        position = np.meshgrid(*(p[at] for p, at in zip(grid.positions, where, strict=True)), indexing="ij")
        within = (
            (at >= margin) & (at < margin + n) for at, margin, n in zip(where, grid.padding, grid.shape, strict=True)
        )
        return np.logical_and.outer(*within), np.stack(position)


@dataclass(frozen=True)
class _Sample:
    """A group (slices, size, size), its gap in pixels, which pixels (size, size) lie in the slice, where they lie."""

    values: np.ndarray
    gap: float
    inside: np.ndarray
    position: np.ndarray


def draw_sigma(rng: np.random.Generator, noise: NoiseLevels, count: int) -> np.ndarray:
    """Noise levels (count,), float32."""
    normal = np.exp(np.log(noise.median) + noise.spread * rng.standard_normal(count))
    even = np.exp(rng.uniform(np.log(noise.low), np.log(noise.high), count))
    sigma = np.where(rng.random(count) < noise.uniform, even, normal)
    return np.clip(sigma, noise.low, noise.high).astype(np.float32)


def training_batch(draw: Draw, step: int, rank: int = 0) -> Batch:
    """The batch of one step on one of several ranks; its patch size is the same on all of them."""
    patches = draw.training.patches
    shares = np.array(patches.probabilities)
    seed = draw.training.seed
    size = patches.sizes[keyed(seed, TRAINING, step, 0).choice(len(shares), p=shares / shares.sum())]
    return draw.batch(keyed(seed, TRAINING, step, 1 + rank), size, max(1, patches.pixels // size**2))


class _Steps(Dataset[Batch | VolreconError]):
    """Steps as a dataset, so that loader workers can prepare them ahead."""

    def __init__(self, draw: Draw, rank: int) -> None:
        self.draw, self.rank = draw, rank

    def __getitem__(self, step: int) -> Batch | VolreconError:
        try:
            return training_batch(self.draw, step, self.rank)
        except VolreconError as error:  # raised in a worker, it would arrive with a traceback for a message
            return error


def batches(draw: Draw, first: int, last: int, workers: int, rank: int = 0) -> Generator[Batch, None, None]:
    """The batches of steps [first, last), prepared ahead by `workers` processes (0: in this one).

    Close it to end the workers at once.
    """
    loader: Any = DataLoader(
        _Steps(draw, rank),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        worker_init_fn=_undisturbed,
        generator=torch.Generator(),  # else the loader draws from the caller's
    )
    for batch in loader:
        if isinstance(batch, VolreconError):
            raise batch
        yield batch


def _undisturbed(worker: int) -> None:
    """Signals to all processes of a terminal or a job are for the training, which then ends its workers."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)


def keyed(seed: int, purpose: int, step: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, stream, step, purpose]))


def _plane(level: Level) -> tuple[int, int]:
    return level.array.shape[1], level.array.shape[2]


def _patch(level: Level, z: int, corner: tuple[int, int], size: int) -> np.ndarray:
    """(size, size) of a slice, zero where the patch lies beside it."""
    plane = level.array[z : z + 1][0]
    out = np.zeros((size, size), np.float32)
    (r0, r1), (c0, c1) = (
        np.clip([first, first + size], 0, length) for first, length in zip(corner, plane.shape, strict=True)
    )
    out[r0 - corner[0] : r1 - corner[0], c0 - corner[1] : c1 - corner[1]] = plane[r0:r1, c0:c1]
    return out
