"""Cutting slices into patches and putting them back: exact, adjoint, and each pixel told where it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError
from volrecon.patches import assemble, extract, positions
from volrecon.tiling import PatchGrid


@st.composite
def grids(draw):
    """A patch grid, a legal shift, a number of slices."""
    shape = (draw(st.integers(1, 23)), draw(st.integers(1, 23)))
    grid = PatchGrid(shape, draw(st.integers(1, 12)))
    return grid, tuple(draw(st.integers(0, margin)) for margin in grid.padding), draw(st.integers(1, 3))


def padded(x: torch.Tensor, grid: PatchGrid) -> np.ndarray:
    return np.pad(x.numpy(), [(0, 0), *((m, m) for m in grid.padding)])


def corners(grid: PatchGrid, shift: tuple[int, int]) -> list[tuple[int, int]]:
    """First pixel of every patch in the padded slice."""
    return [(shift[0] + a * grid.patch, shift[1] + b * grid.patch) for a, b in np.ndindex(*grid.counts)]


@settings(max_examples=80, deadline=None)
@given(grids())
def test_patches_are_windows_of_the_padded_slice(case):
    grid, shift, slices = case
    x = torch.arange(1.0, 1 + slices * grid.shape[0] * grid.shape[1]).reshape(slices, *grid.shape)
    whole, found = padded(x, grid), extract(x, grid, shift)
    assert found.shape == (grid.counts[0] * grid.counts[1], slices, grid.patch, grid.patch)
    for patch, (row, column) in zip(found.numpy(), corners(grid, shift), strict=True):
        np.testing.assert_array_equal(patch, whole[:, row : row + grid.patch, column : column + grid.patch])
    assert torch.equal(assemble(found, grid, shift), x)


@settings(max_examples=80, deadline=None)
@given(grids())
def test_extract_is_the_adjoint_of_assemble(case):
    grid, shift, slices = case
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((slices, *grid.shape)))
    patches = torch.from_numpy(rng.standard_normal(extract(x, grid, shift).shape))
    left = (extract(x, grid, shift) * patches).sum()
    assert float(left) == pytest.approx(float((x * assemble(patches, grid, shift)).sum()), abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(grids())
def test_positions_are_those_of_the_padded_slice(case):
    grid, shift, _ = case
    rows, columns = (np.linspace(-1, 1, n) for n in grid.padded)
    found = positions(grid, shift).numpy()
    for (y, x), (row, column) in zip(found, corners(grid, shift), strict=True):
        np.testing.assert_allclose(y, np.repeat(rows[row : row + grid.patch, None], grid.patch, axis=1), atol=1e-6)
        np.testing.assert_allclose(
            x, np.repeat(columns[None, column : column + grid.patch], grid.patch, axis=0), atol=1e-6
        )


def test_shifts_beyond_the_padding_are_refused():
    grid = PatchGrid((10, 7), 4)
    with pytest.raises(ConfigError, match="shifted by"):
        extract(torch.zeros(1, 10, 7), grid, (3, 0))
    with pytest.raises(ConfigError, match="shifted by"):
        assemble(torch.zeros(6, 1, 4, 4), grid, (0, -1))
