"""Counter-based noise: Philox4x32-10 (Salmon et al. 2011) and Box-Muller, a function of seed, step and voxel.

No generator is carried along: the same voxel gets the same number whatever the slab, batch, order or memory tier.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numba import njit, prange

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
LOW = np.uint64(0xFFFFFFFF)
ROUNDS = 10


@dataclass(frozen=True)
class NoiseKey:
    """What a stream of random numbers is keyed by.

    Attributes:
        seed: 0 to 2^64 - 1.
        step: of the sampler.
        purpose: 0 to 255, one a use within a step.
        sample: 0 to 2^24 - 1, which of several volumes.
    """

    seed: int
    step: int = 0
    purpose: int = 0
    sample: int = 0

    def at(self, step: int, purpose: int = 0) -> "NoiseKey":
        """The key of another step."""
        return replace(self, step=step, purpose=purpose)

    @property
    def words(self) -> tuple[int, int, int, int]:
        """Key words 0 and 1, counter words 2 and 3."""
        seed = self.seed % 2**64
        return seed % 2**32, seed >> 32, self.step % 2**32, (self.purpose % 256) + 256 * (self.sample % 2**24)


def standard_normal(key: NoiseKey, first: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Normal numbers for slices `first` on: float32 of `shape` (slices, rows, columns).

    Counter words: voxel // 4 in the slice, slice, step, purpose and sample; lane voxel % 4.
    """
    out = np.empty((shape[0], shape[1] * shape[2]), np.float32)
    _normals(out, first, *(np.uint32(word) for word in key.words))
    return torch.from_numpy(out.reshape(shape))


def uniform_integers(key: NoiseKey, count: int, below: int) -> np.ndarray:
    """`count` integers of 0 to below - 1, by multiplication and shift; biased by at most below / 2^32."""
    words = np.array([_philox(np.uint32(i), np.uint32(0), *_halves(key))[0] for i in range(count)], np.uint64)
    return np.asarray((words * np.uint64(below)) >> np.uint64(32), dtype=np.int64)


def _halves(key: NoiseKey) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    low, high, step, purpose = (np.uint32(word) for word in key.words)
    return step, purpose, low, high


@njit(inline="always")
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Ten rounds on four counter words with two key words; four uint32."""
    for _ in range(ROUNDS):
        a = MULTIPLIERS[0] * np.uint64(c0)
        b = MULTIPLIERS[1] * np.uint64(c2)
        c0, c1, c2, c3 = (
            np.uint32((b >> np.uint64(32)) ^ np.uint64(c1) ^ np.uint64(k0)),
            np.uint32(b & LOW),
            np.uint32((a >> np.uint64(32)) ^ np.uint64(c3) ^ np.uint64(k1)),
            np.uint32(a & LOW),
        )
        k0 = np.uint32(k0 + WEYL[0])
        k1 = np.uint32(k1 + WEYL[1])
    return c0, c1, c2, c3


@njit(parallel=True, cache=True)
def _normals(out, first, k0, k1, step, purpose):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    slices, voxels = out.shape
    for z in prange(slices):
        for quad in range((voxels + 3) // 4):
            w = _philox(np.uint32(quad), np.uint32(first + z), step, purpose, k0, k1)
            for pair in range(2):
                # (word + 1/2) / 2^32 lies strictly between 0 and 1.
                u = (np.float64(w[2 * pair]) + 0.5) / 4294967296.0
                angle = (np.float64(w[2 * pair + 1]) + 0.5) * (2 * np.pi / 4294967296.0)
                radius = np.sqrt(-2.0 * np.log(u))
                at = 4 * quad + 2 * pair
                if at < voxels:
                    out[z, at] = radius * np.cos(angle)
                if at + 1 < voxels:
                    out[z, at + 1] = radius * np.sin(angle)
