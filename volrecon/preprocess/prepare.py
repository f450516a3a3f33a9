"""Preparing projections block by block: rows go in as the scanner wrote them and come out as line integrals."""

from collections.abc import Callable, Iterator

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats import Counts, Sliceable
from volrecon.geometry import ScanGeometry
from volrecon.preprocess.axis import AxisEstimate, find_axis
from volrecon.preprocess.counts import OpenBeam
from volrecon.preprocess.gaps import interpolated
from volrecon.preprocess.middle_plane import axis_column, moved_axis
from volrecon.preprocess.preparation import Preparation
from volrecon.preprocess.report import Report, Tally
from volrecon.preprocess.rings import FEWEST_VIEWS, without_rings
from volrecon.preprocess.window import Window
from volrecon.store.scans import BadPixels

READ_BYTES = 128 * 2**20
"""Of a file's values read in one piece: formats that store views are read once for every piece."""

BLOCK_BYTES = 16 * 2**20
"""Of float32 values worked on at a time; about ten arrays of that size exist at once."""


class Prepared:
    """Line integrals (v, angle, u), float32, made from a file's values as they are read; NaN where there is none.

    Args:
        projections: (v, angle, u), counts or line integrals of any number type; never changed.
        scan: their geometry.
        preparation: what to do.
        counts: flats, darks and white level of counts; None for line integrals.
        bad_pixels: "mask" leaves dead pixels without a value; "refuse" fills them from their neighbours along u.

    Raises:
        ConfigError: windows, empty columns or rings that do not fit the detector.
        DataError: no open beam, or too many dead pixels.
    """

    def __init__(
        self,
        projections: Sliceable,
        scan: ScanGeometry,
        preparation: Preparation,
        counts: Counts | None = None,
        bad_pixels: BadPixels = "refuse",
    ) -> None:
        self.projections, self.scan, self.preparation, self.bad_pixels = projections, scan, preparation, bad_pixels
        p = preparation
        self._counts = counts
        self.window = Window.of(scan.detector_shape, p.rows, p.columns, p.bin_vu)
        self.beam = OpenBeam.of(counts, scan.detector_shape) if counts else None
        self.geometry = self.window.geometry(scan)
        if self.beam and bad_pixels == "refuse":
            _check_rows(self.beam.dead[:, slice(*self.window.columns)], self.window)
        columns = scan.detector_shape[1]
        if any(stop > columns for _, stop in p.empty):
            raise ConfigError(f"the empty columns {p.empty} are not on a detector of {columns} columns")
        if p.rings and (scan.views < FEWEST_VIEWS or p.rings > self.window.shape[1]):
            raise ConfigError(
                f"rings = {p.rings} needs {FEWEST_VIEWS} views and as many columns; there are {scan.views} views and "
                f"{self.window.shape[1]} columns"
            )
        self._tally = Tally()
        self._axis: AxisEstimate | None = None
        self._moved: float | None = None
        if p.axis is not None:
            self._place_axis(p.axis)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.geometry.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def __getitem__(self, key: slice, /) -> np.ndarray:
        start, stop, step = key.indices(self.shape[0])
        if step != 1:
            raise IndexError(f"prepared projections are read in steps of 1, not {step}")
        stop = max(start, stop)
        return self._made(self.projections[self.window.detector_rows(start, stop)], start)[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows once, in blocks; `report` tells of them afterwards."""
        self._tally = Tally()
        _, views, columns = self.projections.shape
        row_size = views * columns * self.window.bin_vu[0]
        piece = max(1, READ_BYTES // (row_size * self.projections.dtype.itemsize))
        height = max(1, BLOCK_BYTES // (row_size * 4))
        for first in range(0, self.shape[0], piece):
            last = min(first + piece, self.shape[0])
            raw = self.projections[self.window.detector_rows(first, last)]
            for start in range(first, last, height):
                stop, binned = min(start + height, last), self.window.bin_vu[0]
                values, tally = self._made(raw[(start - first) * binned : (stop - first) * binned], start)
                self._tally += tally
                yield values

    @property
    def report(self) -> Report:
        """What was done to the values of `blocks`."""
        window, beam = self.window, self.beam
        dead = int(beam.dead[slice(*window.rows), slice(*window.columns)].sum()) if beam else 0
        shape = self.scan.detector_shape
        notes = beam.notes if beam else ()
        return Report(self.preparation, window, shape, notes, dead, self._tally, self._axis, self._moved)

    def _place_axis(self, asked: str | float) -> None:
        """Move the detector along u so that the axis is on the column asked for, or on the one that is found."""
        if isinstance(asked, str):
            # The ring filter and the search do not go together: it moves edges.
            bare = self.preparation.model_copy(update={"rings": None, "axis": None})
            plain = Prepared(self.projections, self.scan, bare, self._counts, self.bad_pixels)
            estimate = find_axis(plain, plain.geometry)
            column, self._axis = estimate.column, estimate.seen_through(self.window, self.scan.detector_shape[1])
        else:
            column = self.window.from_detector(asked)
        self._moved = (column - axis_column(self.geometry)) * self.window.bin_vu[1]
        self.geometry = moved_axis(self.geometry, column)

    def _made(self, stored: np.ndarray, start: int) -> tuple[np.ndarray, Tally]:
        """Rows from `start` on, made of the detector's rows as the file has them."""
        tally = Tally()
        rows = self.window.detector_rows(start, start + len(stored) // self.window.bin_vu[0])
        raw = np.ascontiguousarray(stored, dtype=np.float32)
        values = self._from_integrals(raw, tally) if self.beam is None else self._from_counts(raw, rows, tally)
        if self.preparation.rings and values.size:
            values = _ringless(values, self.preparation.rings, tally)
        tally.values, tally.not_finite = values.size, int((~np.isfinite(values)).sum())
        return values, tally

    def _from_integrals(self, raw: np.ndarray, tally: Tally) -> np.ndarray:
        if self.preparation.empty:
            raw = raw + np.log(self._level(lambda columns: np.exp(-raw[..., columns]), tally))
        v, u = self.window.bin_vu
        sums = self.window.sums(raw)
        return sums if v * u == 1 else sums / np.float32(v * u)

    def _from_counts(self, raw: np.ndarray, rows: slice, tally: Tally) -> np.ndarray:
        assert self.beam is not None
        dark, gain, dead = (part[rows][:, None] for part in (self.beam.dark, self.beam.gain, self.beam.dead))
        light = np.where(dead, np.float32(0), np.where(np.isfinite(raw), raw - dark, np.float32(np.nan)))
        if self.preparation.empty:
            live = np.where(dead, np.float32(np.nan), gain)
            light = light / self._level(lambda columns: light[..., columns] / live[..., columns], tally)
        open_beam = self.window.sums(gain)
        lit = open_beam > 0
        transmission = self.window.sums(light) / np.where(lit, open_beam, np.float32(np.nan))
        lowest = np.float32(self.preparation.lowest_transmission)
        tally.clipped = int((transmission < lowest).sum())
        values = -np.log(np.maximum(transmission, lowest))
        values[~np.isfinite(values)] = np.nan
        if self.bad_pixels == "refuse" and not lit.all():
            filled = np.where(lit, values, interpolated(values))
            tally.filled = int(np.isfinite(filled).sum() - np.isfinite(values).sum())
            return filled
        return values

    def _level(self, transmission: Callable[[slice], np.ndarray], tally: Tally) -> np.ndarray:
        """Mean transmission of each view and row in the empty columns, (rows, views, 1), or on the line between two."""
        means = [_mean_known(transmission(slice(*columns))) for columns in self.preparation.empty]
        for mean in means:
            tally.see_levels(mean)
            if (mean <= self.preparation.lowest_transmission).any():
                raise DataError(
                    f"the columns {self.preparation.empty} are not empty: their mean transmission is "
                    f"{np.nanmin(mean):.3g} in some view"
                )
        if len(means) == 1:
            return means[0]
        middles = [(start + stop - 1) / 2 for start, stop in self.preparation.empty]
        part = np.interp(np.arange(self.scan.detector_shape[1]), middles, [0, 1]).astype(np.float32)
        return means[0] * (1 - part) + means[1] * part


def _check_rows(dead: np.ndarray, window: Window) -> None:
    """Refuse rows in which no pixel lives: there are no neighbours along u to take values from."""
    rows = np.flatnonzero(dead[slice(*window.rows)].all(axis=1)) + window.rows[0]
    if rows.size:
        raise DataError(
            f"{rows.size} rows have no live pixel, first {rows[0]}; leave them out (--rows), or mask them "
            f"(--bad-pixels mask)"
        )


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Mean along u of what is known, (..., 1), NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1, keepdims=True)
    total = np.where(known, values, 0).sum(axis=-1, keepdims=True)
    mean: np.ndarray = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def _ringless(values: np.ndarray, width: int, tally: Tally) -> np.ndarray:
    """Every row's sinogram without stripes; what had no value still has none."""
    known = np.isfinite(values)
    # A view without any value becomes flat: one zero more in the medians over the views.
    whole = np.nan_to_num(interpolated(np.where(known, values, np.float32(np.nan))))
    out = np.stack([without_rings(sinogram, width) for sinogram in whole])
    tally.ring_squares = float(((out - whole)[known].astype(np.float64) ** 2).sum())
    return np.where(known, out, np.float32(np.nan))
