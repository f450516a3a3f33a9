"""Slice groups and patch grids: every slice and pixel is covered, whatever the sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError
from volrecon.tiling import MODES, PatchAxis, PatchGrid, adjacent_groups, jump_groups, patch_layout

COUNTS, SIDES = st.integers(1, 60), st.integers(1, 40)


@settings(max_examples=200, deadline=None)
@given(slices=COUNTS, k=st.integers(1, 9), data=st.data())
def test_adjacent_groups_cover_all_slices(slices, k, data):
    offset = data.draw(st.integers(0, k - 1))
    groups = adjacent_groups(slices, k, offset)
    assert groups.shape[1] == k
    assert sorted(set(groups.ravel())) == list(range(slices))
    if slices >= k:
        assert (np.diff(groups, axis=1) == 1).all()
        assert len(np.unique(groups, axis=0)) == len(groups)
        assert len(groups) <= slices // k + 2
    else:
        assert groups.tolist() == [[min(n, slices - 1) for n in range(k)]]
    starts = groups[:, 0]
    assert all(start in starts for start in range(offset, slices - k + 1, k))


@settings(max_examples=200, deadline=None)
@given(k=st.integers(1, 6), gap=st.integers(1, 6), beyond=st.integers(0, 40))
def test_jump_groups_cover_all_slices(k, gap, beyond):
    slices = k * gap + beyond
    groups = jump_groups(slices, k, gap)
    assert groups.shape[1] == k
    assert sorted(set(groups.ravel())) == list(range(slices))
    assert (np.diff(groups, axis=1) == gap).all()
    assert len(np.unique(groups, axis=0)) == len(groups)
    assert len(groups) <= gap * -(-slices // (k * gap))


def test_published_partition():
    """DiffusionBlend++: blocks of nine slices, three triples three apart; whole blocks are a partition."""
    assert jump_groups(18, 3, 3).tolist() == [
        [0, 3, 6], [1, 4, 7], [2, 5, 8], [9, 12, 15], [10, 13, 16], [11, 14, 17],
    ]  # fmt: skip
    assert adjacent_groups(6, 3, 1).tolist() == [[0, 1, 2], [1, 2, 3], [3, 4, 5]]
    assert adjacent_groups(2, 3).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(("k", "gap"), [(3, 3), (2, 5), (5, 2), (1, 4)])
def test_jump_groups_need_a_whole_block(k, gap):
    with pytest.raises(ConfigError, match=f"need {k * gap} slices; the volume has {k * gap - 1}"):
        jump_groups(k * gap - 1, k, gap)


def test_impossible_groups_are_refused():
    for wrong in [(0, 3), (5, 0), (-1, 3)]:
        with pytest.raises(ConfigError, match="at least 1"):
            adjacent_groups(*wrong)
    for offset in (-1, 3):
        with pytest.raises(ConfigError, match="0 to 2"):
            adjacent_groups(9, 3, offset)
    with pytest.raises(ConfigError, match="at least 1"):
        jump_groups(9, 3, 0)


@st.composite
def layouts(draw):
    """A patch grid and a layout of it in any mode, at any shift and overlap."""
    grid = PatchGrid((draw(SIDES), draw(SIDES)), draw(SIDES))
    shift = tuple(draw(st.integers(0, margin)) for margin in grid.padding)
    return grid, patch_layout(grid, draw(st.sampled_from(list(MODES))), shift, draw(st.integers(0, grid.patch - 1)))


@settings(max_examples=200, deadline=None)
@given(shape=st.tuples(SIDES, SIDES), patch=SIDES)
def test_the_padded_slice_holds_whole_patches(shape, patch):
    grid = PatchGrid(shape, patch)
    for n, count, margin, padded in zip(shape, grid.counts, grid.padding, grid.padded, strict=True):
        assert count == 1 + n // patch
        assert margin == count * patch - n > 0
        assert padded == n + 2 * margin


@settings(max_examples=300, deadline=None)
@given(layouts())
def test_N6_N7_every_pixel_is_covered_and_its_weights_add_up_to_1(case):
    grid, layout = case
    assert layout.shape == grid.shape
    for axis, n, margin in zip((layout.down, layout.across), grid.shape, grid.padding, strict=True):
        at = axis.starts[:, None] + np.arange(axis.side)
        assert (np.diff(axis.starts) > 0).all()
        assert at.min() >= -margin
        assert at.max() < n + margin
        covered = np.bincount(at[axis.inside], minlength=n)
        assert covered.min() >= 1
        assert np.array_equal(np.diff(axis.covering)[:, 0], covered)
        for pixel, (first, stop) in enumerate(axis.covering):
            assert all(pixel in at[k] for k in range(first, stop))
        assert (axis.weights[~axis.inside] == 0).all()
        total = np.bincount(at[axis.inside], axis.weights[axis.inside], n)
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert np.array_equal(axis.inside, (at >= 0) & (at < n))


@settings(max_examples=100, deadline=None)
@given(layouts())
def test_coordinates_are_those_of_the_padded_slice(case):
    grid, layout = case
    for axis, padded in zip((layout.down, layout.across), grid.padded, strict=True):
        for k, start in enumerate(axis.starts):
            at = start + axis.margin + np.arange(axis.side)
            np.testing.assert_allclose(axis.coordinates(k), -1 + 2 * at / (padded - 1), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(layouts())
def test_unweighted_patches_lie_where_the_others_do(case):
    _, layout = case
    for axis, free in ((layout.down, layout.unweighted.down), (layout.across, layout.unweighted.across)):
        assert free.starts is axis.starts
        assert np.array_equal(free.weights, axis.inside)


def published(mode: str, **options) -> PatchAxis:
    """256 pixels, patches of 56: starts in the padded slice are 24 higher."""
    return patch_layout(PatchGrid((256, 256), 56), mode, **options).down


def test_published_patch_grid():
    """PaDIS: 25 patches, padding 24, shifts of 0 to 23."""
    grid = PatchGrid((256, 256), 56)
    assert grid.counts == (5, 5)
    assert grid.padding == (24, 24)
    assert grid.padded == (304, 304)
    for shift in (0, 7, 24):
        axis = published("padis", shift=(shift, 0))
        assert (axis.starts + 24).tolist() == [shift + 56 * k for k in range(5)]
        assert axis.weights[axis.inside].tolist() == [1.0] * 256


def test_published_stitching():
    """From row 4 of the padded slice on, 48 apart; each patch keeps the 48 rows that the next one does not take."""
    axis = published("stitch")
    assert (axis.starts + 24).tolist() == [4, 52, 100, 148, 196, 244]
    assert [np.flatnonzero(row).tolist() for row in axis.weights[1:]] == [list(range(48))] * 4 + [list(range(36))]


def test_averages_are_means_of_the_patches_and_hann_prefers_their_middles():
    mean, hann = published("average"), published("hann")
    assert mean.starts.tolist() == hann.starts.tolist() == published("stitch").starts.tolist()
    assert set(mean.weights[1]) == {0.5, 1.0}
    assert (mean.weights[1] == 0.5).nonzero()[0].tolist() == [*range(8), *range(48, 56)]
    ramp = np.sin(np.pi * (np.arange(8) + 0.5) / 56) ** 2
    np.testing.assert_allclose(hann.weights[1][:8], ramp / (ramp + ramp[::-1]), rtol=1e-6)


def test_whole_slices_are_one_patch_that_lies_where_it_lay_in_training():
    layout = patch_layout(PatchGrid((20, 33), 8), "whole")
    assert layout.counts == (1, 1)
    assert layout.side == (20, 33)
    assert layout.down.coordinates(0)[0] == pytest.approx(-1 + 2 * 4 / 27)


def test_a_fixed_grid_stays_in_the_padding():
    """279 pixels, patches of 56: one zero on either side, but six patches 48 apart reach 8 or 9 beyond."""
    axis = patch_layout(PatchGrid((279, 279), 56), "average").down
    assert axis.margin == 1
    assert axis.starts.tolist() == [-1, 39, 87, 135, 183, 224]
    assert patch_layout(PatchGrid((5, 5), 8), "stitch", overlap=0).down.starts.tolist() == [-2]


def test_positions_run_from_minus_one_to_one_over_the_padded_slice():
    grid = PatchGrid((10, 7), 4)
    for found, n in zip(grid.positions, grid.padded, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, -1 + 2 * np.arange(n) / (n - 1), atol=1e-7)


def test_impossible_patches_are_refused():
    for shape, patch in [((8, 8), 0), ((0, 8), 4), ((8, 8), -1)]:
        with pytest.raises(ConfigError, match="at least 1"):
            PatchGrid(shape, patch)
    grid = PatchGrid((10, 7), 4)
    for shift in [(3, 0), (0, 2), (-1, 0)]:
        with pytest.raises(ConfigError, match=r"must be 0 to [12]$"):
            patch_layout(grid, shift=shift)
    for mode in ("average", "hann", "stitch"):
        for overlap in (4, -1):
            with pytest.raises(ConfigError, match="must be 0 to 3"):
                patch_layout(grid, mode, overlap=overlap)
    with pytest.raises(ConfigError, match="'tiles'; there are padis, average"):
        patch_layout(grid, "tiles")
