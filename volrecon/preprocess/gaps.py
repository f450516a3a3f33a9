"""Values that are missing, from their neighbours along u."""

import numpy as np


def interpolated(values: np.ndarray) -> np.ndarray:
    """A copy of (..., u) whose NaNs lie on the line between their nearest neighbours along u.

    Beyond the first and last value they repeat it; a row of NaNs stays one.
    """
    out = values.copy()
    rows = out.reshape(-1, out.shape[-1])
    broken = np.flatnonzero(np.isnan(rows).any(axis=1))
    if broken.size == 0:
        return out
    part = rows[broken]
    known, columns = ~np.isnan(part), np.arange(part.shape[1])
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, columns, len(columns))[:, ::-1], axis=1)[:, ::-1]
    left, right = np.where(left < 0, right, left), np.where(right == len(columns), left, right)
    left, right = (np.clip(side, 0, len(columns) - 1) for side in (left, right))
    weight = ((columns - left) / np.maximum(right - left, 1)).astype(part.dtype)
    low, high = np.take_along_axis(part, left, 1), np.take_along_axis(part, right, 1)
    # Where both are the same value, known pixels keep it to the last bit.
    rows[broken] = np.where(known, part, low + weight * (high - low))
    return out
