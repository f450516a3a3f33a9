"""Slice groups and patch grids: every slice and pixel is covered, whatever the sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError
from volrecon.tiling import PatchGrid, adjacent_groups, jump_groups

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


@settings(max_examples=200, deadline=None)
@given(shape=st.tuples(SIDES, SIDES), patch=SIDES, data=st.data())
def test_patches_cover_the_slice_at_every_shift(shape, patch, data):
    grid = PatchGrid(shape, patch)
    for n, count, margin, padded in zip(shape, grid.counts, grid.padding, grid.padded, strict=True):
        assert count == 1 + n // patch
        assert margin == count * patch - n > 0
        assert padded == n + 2 * margin
    shift = tuple(data.draw(st.integers(0, margin)) for margin in grid.padding)
    for first, n, count in zip(grid.origin(shift), shape, grid.counts, strict=True):
        assert first >= 0
        assert first + n <= count * patch


def test_published_patch_grid():
    grid = PatchGrid((256, 256), 56)
    assert grid.counts == (5, 5)
    assert grid.padding == (24, 24)
    assert grid.padded == (304, 304)
    assert [grid.origin((s, 24 - s)) for s in (0, 24)] == [(24, 0), (0, 24)]


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
        with pytest.raises(ConfigError, match=r"0 to \(2, 1\)"):
            grid.origin(shift)
