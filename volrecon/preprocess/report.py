"""What a preparation did to the values, counted while it is done."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from volrecon.preprocess.axis import AxisEstimate
from volrecon.preprocess.preparation import Preparation
from volrecon.preprocess.window import Window


@dataclass
class Tally:
    """Of one block of rows, or of all.

    Attributes:
        values: how many were made.
        clipped: raised to the lowest transmission.
        filled: of dead pixels, replaced from their neighbours along u.
        not_finite: still without a value.
        levels: transmission in the empty columns: lowest, sum, highest and how many.
        ring_squares: sum of the squares of what the ring filter changed.
    """

    values: int = 0
    clipped: int = 0
    filled: int = 0
    not_finite: int = 0
    levels: tuple[float, float, float, int] = (np.inf, 0.0, -np.inf, 0)
    ring_squares: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        (low, total, high, count), (low2, total2, high2, count2) = self.levels, other.levels
        return Tally(
            self.values + other.values,
            self.clipped + other.clipped,
            self.filled + other.filled,
            self.not_finite + other.not_finite,
            (min(low, low2), total + total2, max(high, high2), count + count2),
            self.ring_squares + other.ring_squares,
        )

    def see_levels(self, levels: np.ndarray) -> None:
        """Take note of the empty columns' transmission."""
        known = levels[np.isfinite(levels)]
        if known.size:
            self.levels = (float(known.min()), float(known.sum(dtype=np.float64)), float(known.max()), known.size)


@dataclass(frozen=True)
class Report:
    """Everything that was replaced or moved, for people (`lines`) and for the scan's provenance (`record`).

    Attributes:
        preparation: what was asked for.
        window: the part of the detector that is left of `detector_shape` (v, u).
        open_beam: how flat and dark were had; empty for line integrals.
        dead_pixels: of the detector, in the window.
        tally: what happened to the values.
        axis: what a search found.
        moved_px: columns by which the axis was moved.
    """

    preparation: Preparation
    window: Window
    detector_shape: tuple[int, int]
    open_beam: tuple[str, ...]
    dead_pixels: int
    tally: Tally
    axis: AxisEstimate | None = None
    moved_px: float | None = None

    @property
    def record(self) -> dict[str, Any]:
        """Plain JSON numbers."""
        asked, tally = self.preparation, self.tally
        found: dict[str, Any] = {"values": tally.values, "not_finite": tally.not_finite}
        if self.open_beam:
            found |= {
                "lowest_transmission": asked.lowest_transmission,
                "clipped": tally.clipped,
                "dead_pixels": self.dead_pixels,
                "filled": tally.filled,
            }
        low, total, high, count = tally.levels
        if count:
            found["empty_transmission"] = [round(level, 6) for level in (low, total / count, high)]
        if asked.rings:
            found["rings_rms_change"] = round(self._ring_change, 8)
        if self.window.shape != self.detector_shape:
            found |= {"kept_rows": list(self.window.rows), "kept_columns": list(self.window.columns)}
        if self.axis:
            found["axis"] = self.axis.record
        if self.moved_px is not None:
            found["axis_moved_px"] = round(self.moved_px, 6)
        return {"asked": asked.changed(), "done": found}

    @property
    def lines(self) -> tuple[str, ...]:
        """One line a step, each with its numbers."""
        parts = (self._values(), self._empty(), self._window(), self._rings(), self._axis())
        return tuple(line for part in parts for line in part)

    @property
    def _ring_change(self) -> float:
        return float(np.sqrt(self.tally.ring_squares / max(self.tally.values, 1)))

    def _values(self) -> list[str]:
        if not self.open_beam:
            return []
        tally, lowest = self.tally, self.preparation.lowest_transmission
        share = tally.clipped / max(tally.values, 1)
        return [
            f"-log((counts - dark) / (flat - dark)); {'; '.join(self.open_beam)}",
            f"{tally.clipped} of {tally.values} values ({share:.3%}) below transmission {lowest:g} were raised to it",
            f"{self.dead_pixels} dead pixels: {tally.filled} values from their neighbours along u",
        ]

    def _empty(self) -> list[str]:
        low, total, high, count = self.tally.levels
        if not count:
            return []
        columns = " and ".join(f"{start}:{stop}" for start, stop in self.preparation.empty)
        return [f"transmission in empty columns {columns}: {low:.4g} to {high:.4g}, mean {total / count:.4g}: now 1"]

    def _window(self) -> list[str]:
        if self.window.shape == self.detector_shape:
            return []
        (top, bottom), (left, right) = self.window.rows, self.window.columns
        v, u = self.window.bin_vu
        return [
            f"rows {top}:{bottom} and columns {left}:{right} of {self.detector_shape} (v, u), averaged {v} x {u}: "
            f"{self.window.shape}"
        ]

    def _axis(self) -> list[str]:
        found = list(self.axis.lines) if self.axis else []
        if self.moved_px is None:
            return found
        return [
            *found,
            f"detector moved along u, so that the axis is seen {self.moved_px:+.3f} pixels from where it was",
        ]

    def _rings(self) -> list[str]:
        if not self.preparation.rings:
            return []
        return [f"rings: stripes within {self.preparation.rings} columns taken out, {self._ring_change:.3g} (rms)"]
