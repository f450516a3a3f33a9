"""Cutting slices into patches and putting them back: exact, adjoint, and each pixel told where it is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon import cuda, patches
from volrecon.errors import DataError
from volrecon.patches import blend, extract, network_input, positions, scatter, spread
from volrecon.tiling import MODES, PatchGrid, PatchLayout, patch_layout

SIDES = st.integers(1, 23)


@st.composite
def cases(draw):
    """A patch grid, a layout of any mode, and slices."""
    grid = PatchGrid((draw(SIDES), draw(SIDES)), draw(st.integers(1, 30)))
    shift = tuple(draw(st.integers(0, margin)) for margin in grid.padding)
    overlap = draw(st.integers(0, min(6, grid.patch - 1)))
    layout = patch_layout(grid, draw(st.sampled_from(list(MODES))), shift, overlap)
    return grid, layout, numbers(draw(st.integers(1, 3)), *grid.shape)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def made_of(layout: PatchLayout, slices: int, seed: int = 1) -> torch.Tensor:
    return numbers(len(layout.all), slices, *layout.side, seed=seed)


def windows(grid: PatchGrid, layout: PatchLayout):
    """Rows and columns of every patch in the padded slice."""
    for a, b in np.ndindex(*layout.counts):
        row, column = layout.down.starts[a] + grid.padding[0], layout.across.starts[b] + grid.padding[1]
        yield slice(row, row + layout.side[0]), slice(column, column + layout.side[1])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_patches_are_windows_of_the_padded_slice(case):
    grid, layout, x = case
    padded = np.pad(x.numpy(), [(0, 0), *((m, m) for m in grid.padding)])
    found = extract(x, layout, layout.all)
    assert found.shape == (len(layout.all), len(x), *layout.side)
    for patch, (rows, columns) in zip(found.numpy(), windows(grid, layout), strict=True):
        np.testing.assert_array_equal(patch, padded[:, rows, columns])


@settings(max_examples=150, deadline=None)
@given(cases())
def test_N6_blend_undoes_extract(case):
    _, layout, x = case
    torch.testing.assert_close(blend(extract(x, layout, layout.all), layout), x, rtol=1e-6, atol=0)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_scatter_and_spread_are_adjoints_of_extract_and_blend(case):
    _, layout, x = case
    p = made_of(layout, len(x))
    assert float((extract(x, layout, layout.all) * p).sum()) == pytest.approx(float((x * scatter(p, layout)).sum()))
    assert float((spread(x, layout, layout.all) * p).sum()) == pytest.approx(float((x * blend(p, layout)).sum()))


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(1, 9))
def test_parts_are_parts_of_the_whole(case, size):
    _, layout, x = case
    parts = [layout.all[start : start + size] for start in layout.all[::size]]
    for whole, piece in [
        (extract(x, layout, layout.all), lambda part: extract(x, layout, part)),
        (spread(x, layout, layout.all), lambda part: spread(x, layout, part)),
        (positions(layout, layout.all), lambda part: positions(layout, part)),
    ]:
        assert torch.equal(torch.cat([piece(part) for part in parts]), whole)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_positions_are_those_of_the_padded_slice(case):
    grid, layout, _ = case
    whole = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in grid.padded), indexing="ij"))
    found = positions(layout, layout.all)
    assert found.dtype == torch.float32
    for patch, (rows, columns) in zip(found.numpy(), windows(grid, layout), strict=True):
        np.testing.assert_allclose(patch, whole[:, rows, columns], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_network_input_is_scaled_patches_and_their_positions(dtype):
    layout = patch_layout(PatchGrid((9, 11), 4), shift=(1, 0))
    x, part = numbers(2, 9, 11).float(), range(2, 7)
    found = network_input(x, layout, part, scale=2.0, offset=-1.0, dtype=dtype)
    assert found.dtype == dtype
    assert torch.equal(found[:, :2], (2 * extract(x, layout, part) - 1).to(dtype))
    assert torch.equal(found[:, 2:], positions(layout, part).to(dtype))


@pytest.mark.parametrize("mode", MODES)
def test_autograd_of_extract_and_blend_is_scatter_and_spread(mode):
    layout = patch_layout(PatchGrid((9, 7), 4), mode, overlap=1)
    x, p, v = numbers(2, 9, 7).requires_grad_(), made_of(layout, 2).requires_grad_(), numbers(2, 9, 7, seed=2)
    (found,) = torch.autograd.grad(extract(x, layout, layout.all), x, p.detach())
    torch.testing.assert_close(found, scatter(p.detach(), layout))
    (found,) = torch.autograd.grad(blend(p, layout), p, v)
    torch.testing.assert_close(found, spread(v, layout, layout.all))


def test_later_patches_are_stitched_over_earlier_ones():
    layout = patch_layout(PatchGrid((10, 9), 4), "stitch", overlap=1)
    p, expected = made_of(layout, 1), torch.zeros(1, 18, 18, dtype=torch.float64)
    for patch, (rows, columns) in zip(p, windows(PatchGrid((10, 9), 4), layout), strict=True):
        expected[:, rows, columns] = patch
    assert torch.equal(blend(p, layout), expected[:, 2:12, 3:12])


def test_what_is_stitched_over_or_beside_the_slice_does_not_matter():
    for mode in MODES:
        layout = patch_layout(PatchGrid((9, 7), 4), mode, overlap=2)
        p = made_of(layout, 2)
        unused = spread(torch.ones(2, 9, 7), layout, layout.all) == 0
        assert torch.equal(blend(torch.where(unused, float("nan"), p), layout), blend(p, layout))


def test_patches_of_another_size_or_number_are_refused():
    layout = patch_layout(PatchGrid((9, 7), 4))
    for wrong in (made_of(layout, 2)[1:], made_of(layout, 2)[..., 1:]):
        with pytest.raises(DataError, match="to be blended"):
            blend(wrong, layout)


def test_M6_without_cupy_or_where_a_graph_is_wanted_torch_serves_on_a_gpu(monkeypatch):
    def chosen(**about):
        return patches._by_kernel(SimpleNamespace(**{"is_cuda": True, "requires_grad": False, **about}))

    monkeypatch.setattr(cuda, "installed", lambda: True)
    assert chosen()
    assert not chosen(is_cuda=False)
    assert not chosen(requires_grad=True)
    with torch.no_grad():
        assert chosen(requires_grad=True)
    monkeypatch.setattr(cuda, "installed", lambda: False)
    assert not chosen()
