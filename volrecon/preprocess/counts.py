"""Detector counts, flats and darks as the light that reaches every pixel."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from volrecon.errors import DataError
from volrecon.formats import Counts

NEIGHBOURS = 11
"""Columns whose median a pixel's response to the open beam is compared with."""

DEAD_FACTOR = 2.0
"""A pixel whose response is above or below that of its neighbours by more than this is dead."""

MOST_DEAD = 0.05


@dataclass(frozen=True)
class OpenBeam:
    """What every pixel reads without an object.

    Attributes:
        dark: (v, u) float32, without a beam.
        gain: (v, u) float32, what the open beam adds to that; 0 in dead pixels.
        dead: (v, u) bool.
        notes: how both were had.
    """

    dark: np.ndarray
    gain: np.ndarray
    dead: np.ndarray
    notes: tuple[str, ...]

    @classmethod
    def of(cls, counts: Counts, detector_shape: tuple[int, int]) -> "OpenBeam":
        """From flats (or a white level) and darks.

        Raises:
            DataError: no flats and no white level; other shapes; more than 5% of the pixels are dead.
        """
        dark, dark_note = _mean("dark", counts.darks, detector_shape, 0.0)
        if counts.flats is None and counts.white is None:
            raise DataError(
                "the values are detector counts, but nothing says what the open beam reads: give flats (--flat FILE) "
                "or the count of the open beam (--white N), and darks (--dark FILE) if there are any"
            )
        flat, flat_note = _mean("flat", counts.flats, detector_shape, counts.white)
        gain = flat - dark
        known = np.isfinite(gain) & (gain > 0)
        usual = _usual(np.where(known, gain, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            response = gain / usual
            dead = ~known | ~((response >= 1 / DEAD_FACTOR) & (response <= DEAD_FACTOR))
        if dead.mean() > MOST_DEAD:
            raise DataError(
                f"{int(dead.sum())} of {dead.size} pixels are dead: the flat is not above the dark, or is off from its "
                f"neighbours' by a factor of {DEAD_FACTOR:g}. At most {MOST_DEAD:.0%} may be; are flat and dark "
                f"swapped? (flat: median {np.nanmedian(flat):.5g}, dark: {np.nanmedian(dark):.5g})"
            )
        gain[dead] = 0
        dark[~np.isfinite(dark)] = 0
        return cls(dark, gain, dead, (flat_note, dark_note))


def _mean(
    name: str, frames: np.ndarray | None, detector_shape: tuple[int, int], level: float | None
) -> tuple[np.ndarray, str]:
    """Mean frame (v, u), float32, or one level everywhere; and a line about it."""
    if frames is None:
        assert level is not None
        return np.full(detector_shape, level, np.float32), f"{name}: {level:g} in every pixel"
    if frames.ndim != 3 or frames.shape[1:] != detector_shape or len(frames) == 0:
        raise DataError(f"the {name}s have shape {frames.shape} (frames, v, u), the detector {detector_shape} (v, u)")
    mean = frames.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean, f"{name}: mean of {len(frames)} frame(s), median {np.nanmedian(mean):.5g}"


def _usual(gain: np.ndarray) -> np.ndarray:
    """Median response of the live neighbours along u, which are 1 where there are none."""
    width = min(NEIGHBOURS, gain.shape[1])
    usual = median_filter(gain, size=(1, width), mode="reflect")
    # Beside a gap of dead pixels wider than half the window, the row's own median stands in.
    live = np.where(gain > 0, gain, np.nan)
    rows = np.array([np.nanmedian(row) if np.isfinite(row).any() else 1.0 for row in live], np.float32)
    filled: np.ndarray = np.where(usual > 0, usual, rows[:, None])
    return filled
