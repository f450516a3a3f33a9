"""A window of the detector: the pixels that are kept, and how many of them are averaged into one."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry
from volrecon.noise import Noise

Interval = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Rows [start, stop) and columns [start, stop) of a detector, in blocks of `bin_vu` pixels.

    Both lengths are whole numbers of blocks; `Window.of` cuts what is left over at the end.
    """

    rows: Interval
    columns: Interval
    bin_vu: tuple[int, int] = (1, 1)

    @classmethod
    def of(
        cls,
        detector_shape: tuple[int, int],
        rows: Interval | None = None,
        columns: Interval | None = None,
        bin_vu: tuple[int, int] = (1, 1),
    ) -> Self:
        """A window of a detector (v, u); None is all of it.

        Raises:
            ConfigError: not inside the detector, or smaller than one block.
        """
        kept = []
        asked = (rows, columns)
        for name, interval, count, factor in zip(("rows", "columns"), asked, detector_shape, bin_vu, strict=True):
            start, stop = interval or (0, count)
            if not 0 <= start < stop <= count:
                raise ConfigError(f"{name} {start}:{stop} are not inside a detector of {count} {name}")
            if not 1 <= factor <= stop - start:
                raise ConfigError(f"{stop - start} {name} cannot be averaged in blocks of {factor}")
            kept.append((start, start + (stop - start) // factor * factor))
        return cls(kept[0], kept[1], bin_vu)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (v, u) of the window."""
        (top, bottom), (left, right), (v, u) = self.rows, self.columns, self.bin_vu
        return (bottom - top) // v, (right - left) // u

    def detector_rows(self, start: int, stop: int) -> slice:
        """The detector's rows that the window's rows [start, stop) are made of."""
        return slice(self.rows[0] + start * self.bin_vu[0], self.rows[0] + stop * self.bin_vu[0])

    def sums(self, block: np.ndarray) -> np.ndarray:
        """Sums over the blocks of pixels of `detector_rows`, all columns given: (rows, ..., u) of any axes between."""
        inside = block[..., slice(*self.columns)]
        if self.bin_vu == (1, 1):
            return inside
        (v, u), columns = self.bin_vu, self.shape[1]
        parts = inside.reshape(len(block) // v, v, *block.shape[1:-1], columns, u)
        summed: np.ndarray = parts.sum(axis=(1, -1))
        return summed

    def geometry(self, scan: ScanGeometry) -> ScanGeometry:
        """The scan that the window's pixels see, exactly: every one has its centre where its block has."""
        rows = scan.crop_rows(*self.rows)
        vectors = rows.vectors.copy()
        vectors[:, 3:6] += (sum(self.columns) - scan.detector_shape[1]) / 2 * scan.u
        vectors[:, 6:9] *= self.bin_vu[1]
        vectors[:, 9:12] *= self.bin_vu[0]
        return ScanGeometry(scan.beam, self.shape, vectors)

    def noise(self, noise: Noise) -> Noise:
        """The noise of averaged pixels: photons add up, a Gaussian's deviation falls with their root."""
        count = self.bin_vu[0] * self.bin_vu[1]
        root = float(np.sqrt(count))
        return replace(
            noise,
            photons=noise.photons * count,
            electronic=noise.electronic * root,
            sigma_y=noise.sigma_y / root,
        )

    def to_detector(self, column: float) -> float:
        """A column of the window as one of the detector."""
        return self.columns[0] + (column + 0.5) * self.bin_vu[1] - 0.5

    def from_detector(self, column: float) -> float:
        """A column of the detector as one of the window."""
        return (column - self.columns[0] + 0.5) / self.bin_vu[1] - 0.5
