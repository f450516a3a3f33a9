"""Counts of a small smooth object with known line integrals, shared by the tests of preprocessing."""

import json

import numpy as np

from volrecon.formats import Counts
from volrecon.geometry import parallel
from volrecon.preprocess import Preparation, Prepared

SCAN = parallel(detector_shape=(6, 40), pixel_mm=1.0, angles=np.arange(20) * np.pi / 20)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def smooth() -> np.ndarray:
    """Line integrals (v, angle, u) that are 0 in the first and last five columns."""
    v, angle, u = np.ogrid[0:6, 0:20, 0:40]
    bump = np.sin(np.pi * np.clip((u - 4.5) / 30, 0, 1)) ** 2
    return (bump * (1 + 0.1 * v + 0.2 * np.cos(angle / 3))).astype(np.float32)


DARK = 90 + 5 * np.random.default_rng(1).random((6, 40))
GAIN = 40_000 + 5_000 * np.random.default_rng(2).random((6, 40))


def counts_of(y: np.ndarray) -> np.ndarray:
    return DARK[:, None] + GAIN[:, None] * np.exp(-y.astype(np.float64))


def open_beam(**changed) -> Counts:
    return Counts(**{"flats": (DARK + GAIN)[None], "darks": DARK[None], **changed})


def prepared(values: np.ndarray, counts: Counts | None = None, bad_pixels="refuse", **asked) -> tuple[np.ndarray, dict]:
    """All rows at once by way of `blocks`, and what the report's record says was done."""
    made = Prepared(values, SCAN, Preparation(**asked), counts, bad_pixels)
    rows = np.concatenate(list(made.blocks()))
    assert rows.shape == made.geometry.shape == made.shape
    assert np.array_equal(rows, made[0 : made.shape[0]], equal_nan=True)
    return rows, json.loads(json.dumps(made.report.record))["done"]
