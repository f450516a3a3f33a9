"""A prior says when it is used on what it was not trained for: pixels, slice distances, level of tissue."""

import re
import warnings

import numpy as np
import pytest

from volrecon.errors import ConfigError, PriorWarning
from volrecon.geometry import VolumeGeometry
from volrecon.priors import check_level, check_voxels
from volrecon.priors.fitness import soft_tissue_level


def grid(z: float, y: float, x: float) -> VolumeGeometry:
    return VolumeGeometry((4, 4, 4), (z, y, x))


def body(level: float = 0.525, share: float = 0.3) -> np.ndarray:
    """Air, some bone, and soft tissue at a level, with noise."""
    rng = np.random.default_rng(0)
    values = np.zeros(40_000, np.float32)
    values[: int(share * values.size)] = level
    values[-1000:] = 0.95
    return (values + 0.01 * rng.standard_normal(values.size)).reshape(10, 40, 100)


# The card of these tests: pixels of 1.5 to 4 mm, slices 1 to 3 pixels apart, tissue at 0.525.


@pytest.mark.parametrize("voxel", [(1.5, 1.5, 1.5), (4.0, 4.0, 4.0), (2.0, 2.0, 2.0), (2.5, 1.7, 1.8), (2.0, 1.5, 2.0)])
def test_inside_nothing_is_said(card, voxel):
    with warnings.catch_warnings(action="error"):
        check_voxels(card(), grid(*voxel))


@pytest.mark.parametrize(
    ("pixel", "ratio"), [(1.0, "1.50"), (0.75, "2.00"), (6.0, "1.50"), (8.0, "2.00"), (4.1, "1.02")]
)
def test_outside_is_a_warning_with_the_ratio(card, pixel, ratio):
    with pytest.warns(PriorWarning, match=rf"1.5 to 4 mm; the grid has {pixel:g} to {pixel:g} mm, {ratio} times"):
        check_voxels(card(), grid(pixel, pixel, pixel))


@pytest.mark.parametrize(("y", "x"), [(1.0, 2.0), (2.0, 1.0), (2.0, 6.0), (6.0, 2.0)])
def test_either_pixel_side_counts(card, y, x):
    with pytest.warns(PriorWarning, match="1.50 times"):
        check_voxels(card(), grid(max(y, x), y, x))


@pytest.mark.parametrize(("pixel", "ratio"), [(0.7, "2.14"), (8.5, "2.12"), (80.0, "20.00")])
def test_beyond_twice_is_an_error_unless_forced(card, pixel, ratio):
    where = grid(pixel, pixel, pixel)
    with pytest.raises(ConfigError, match=rf"{ratio} times outside. Choose .* or force it"):
        check_voxels(card(), where)
    with pytest.warns(PriorWarning, match=f"{ratio} times"):
        check_voxels(card(), where, force=True)


@pytest.mark.parametrize(
    ("dz", "apart"), [(0.5, "0.25 to 0.5"), (1.5, "0.75 to 1.5"), (4.0, "2 to 4"), (8.0, "4 to 8")]
)
def test_slices_closer_or_further_apart_are_said(card, dz, apart):
    with pytest.warns(PriorWarning, match=re.escape(f"with gaps (0, 1, 2) the grid's are {apart} apart")):
        check_voxels(card(), grid(dz, 2.0, 2.0))


def test_a_prior_of_single_slices_does_not_mind_their_distance(card):
    with warnings.catch_warnings(action="error"):
        check_voxels(card(gaps=(0,), gap_pixels=(0.0, 0.0)), grid(50.0, 2.0, 2.0))


@pytest.mark.parametrize("level", [0.36, 0.45, 0.525, 0.6, 0.74])
def test_level_is_found_to_a_bin(level):
    assert soft_tissue_level(body(level)) == pytest.approx(level, abs=0.006)


def test_level_is_that_of_the_commonest_tissue():
    both = np.concatenate([body(0.525), body(0.45, share=0.2)])
    assert soft_tissue_level(both) == pytest.approx(0.525, abs=0.006)


def test_level_ignores_what_is_not_a_number():
    values = body()
    values[:, :10] = np.nan
    values[:, 10:12] = np.inf
    assert soft_tissue_level(values) == pytest.approx(0.525, abs=0.006)


@pytest.mark.parametrize("level", [0.525, 0.49, 0.56])
def test_the_right_level_is_not_mentioned(card, level):
    with warnings.catch_warnings(action="error"):
        check_level(card(), body(level))


@pytest.mark.parametrize("ratio", [0.8, 1.2])
def test_a_level_20_percent_off_is_a_warning_with_the_ratio(card, ratio):
    """Water stated as 0.02 /mm where it is 0.024: everything lies 1.2 times too high."""
    with pytest.warns(PriorWarning, match=rf"may have to be {ratio:.2f} times what it is") as told:
        check_level(card(), body(ratio * 0.525))
    assert len(told) == 1


@pytest.mark.parametrize("values", [np.zeros((4, 30, 30)), body(20.0), body(0.02), np.full((4, 30, 30), np.nan)])
def test_no_tissue_is_a_warning(card, values):
    with pytest.warns(PriorWarning, match=r"no soft tissue was found .* at 0.525 of the linear unit \(0.04 /mm\)"):
        check_level(card(), values)
    assert soft_tissue_level(values) is None
