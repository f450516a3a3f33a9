"""Flats and darks from files of their own."""

from pathlib import Path

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats import Counts, Hints, format_of

ROWS_AT_ONCE = 16


def read_counts(flat: Path | None, dark: Path | None, white: float | None) -> Counts | None:
    """Flats and darks from files of frames (frames, v, u) or of one frame (v, u), averaged; None if none are given.

    Raises:
        ConfigError: flats and a white level, or a file of a format without projections.
        DataError: a damaged file.
    """
    if flat is None and dark is None and white is None:
        return None
    if flat is not None and white is not None:
        raise ConfigError("the open beam is given twice, as flats and as a white level; give one")
    return Counts(mean_frame(flat) if flat else None, mean_frame(dark) if dark else None, white)


def agreed_counts(in_file: Counts | None, given: Counts | None) -> Counts | None:
    """What a file holds, with what was given in place of its own: either open beam replaces either."""
    if in_file is None or given is None:
        return given or in_file
    darks = in_file.darks if given.darks is None else given.darks
    if given.flats is None and given.white is None:
        return Counts(in_file.flats, darks, in_file.white)
    return Counts(given.flats, darks, given.white)


def mean_frame(path: Path) -> np.ndarray:
    """The mean of all frames in a file, (1, v, u) float32, read by blocks of rows."""
    reader = format_of(path).read_projections
    if reader is None:
        raise ConfigError(f"{path}: the format {format_of(path).name} holds no frames")
    try:
        frames = reader(path, Hints(axes="angle,v,u")).projections
    except DataError:
        # One frame, two axes: what would be a single sinogram (angle, u) is (v, u) here.
        return np.asarray(reader(path, Hints(axes="angle,u")).projections[0:1], dtype=np.float32)
    rows = range(0, frames.shape[0], ROWS_AT_ONCE)
    means = [frames[row : row + ROWS_AT_ONCE].mean(axis=1, dtype=np.float64) for row in rows]
    return np.concatenate(means)[None].astype(np.float32)
