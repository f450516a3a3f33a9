"""Where the noise of a volume comes from: slices of their own, or slices that turn into each other."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from volrecon.sampling.noise import NoiseKey, standard_normal

NoiseSource = Callable[[NoiseKey, int, tuple[int, int, int]], torch.Tensor]
"""noise(key, first, shape): unit normal numbers of the slices from `first` on, float32 (slices, rows, columns).

A slab gets the same numbers, whichever slab of the volume it is.
"""


@dataclass(frozen=True)
class SliceCorrelated:
    """Noise that turns from that of the first slice into that of the last (ISCS, arXiv 2602.04162).

    z_i = (sin((1 - t) w) a + sin(t w) b)/sin w, t = i/(n - 1), where a and b are the independent noises of slices 0
    and n - 1 and w is the angle between them. Every slice on its own is nearly white, w being nearly a right angle;
    neighbours hardly differ.

    Attributes:
        slices: n, of the volume.
    """

    slices: int

    def __call__(self, key: NoiseKey, first: int, shape: tuple[int, int, int]) -> torch.Tensor:
        a, b = (standard_normal(key, end, (1, *shape[1:])) for end in (0, self.slices - 1))
        t = np.arange(first, first + shape[0]) / max(self.slices - 1, 1)
        at_first, at_last = _slerp(_angle(a.numpy(), b.numpy()), t)
        return at_first * a + at_last * b


def noise_source(name: str, slices: int) -> NoiseSource:
    """A source by its name in `NOISES`, for a volume of so many slices."""
    return NOISES[name](slices)


NOISES: dict[str, Callable[[int], NoiseSource]] = {
    "independent": lambda slices: standard_normal,
    "slice-correlated": SliceCorrelated,
}


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    ab, aa, bb = (float((p.astype(np.float64) * q).sum()) for p, q in ((a, b), (a, a), (b, b)))
    return float(np.arccos(np.clip(ab / (aa * bb) ** 0.5, -1, 1)))


def _slerp(angle: float, t: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The parts of both ends, (slices, 1, 1); of parallel ends, as in a volume of one slice, along a straight line."""
    weights = np.stack([np.sin((1 - t) * angle), np.sin(t * angle)]) / max(np.sin(angle), 1e-300)
    if np.sin(angle) < 1e-6:
        weights = np.stack([1 - t, t])
    first, last = torch.from_numpy(weights.astype(np.float32))[:, :, None, None]
    return first, last
