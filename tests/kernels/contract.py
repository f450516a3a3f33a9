"""What kernels/README.md promises, for any launcher: on the CPU through the shim, on a GPU for real.

A module that imports these tests has a fixture `on`, the launcher. Kernels give the bits of the torch reference on the
CPU; where a GPU has functions of its own (renoise), its rounding.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon import cuda, patches
from volrecon.cuda import Launcher
from volrecon.sampling import NoiseKey, ddim, standard_normal
from volrecon.sampling.noise import _philox
from volrecon.solvers.coupling import AlongZ
from volrecon.tiling import MODES, PatchGrid, PatchLayout, patch_layout
from volrecon.volume import Slab

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
sides = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


def random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def shapes(examples: int):
    """So many random shapes."""
    return settings(max_examples=examples, deadline=None)


@dataclass(frozen=True, eq=False)
class Case:
    layout: PatchLayout
    slices: torch.Tensor
    patches: torch.Tensor
    part: range


@st.composite
def cases(draw):
    """A layout of any mode, slices (also none), patches for it, a part of it (also nothing)."""
    grid = PatchGrid((draw(sides), draw(sides)), draw(st.integers(1, 70)))
    shift = tuple(draw(st.integers(0, margin)) for margin in grid.padding)
    layout = patch_layout(grid, draw(st.sampled_from(list(MODES))), shift, draw(st.integers(0, min(8, grid.patch - 1))))
    ends = sorted(draw(st.integers(0, len(layout.all))) for _ in range(2))
    count, seed = draw(st.integers(0, 4)), draw(seeds)
    made = random((len(layout.all), count, *layout.side), seed + 1)
    return Case(layout, random((count, *grid.shape), seed), made, layout.all[slice(*ends)])


def to(on: Launcher, *tensors: torch.Tensor):
    return [tensor.to(on.kind) for tensor in tensors]


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Bit for bit, up to the sign of 0."""
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@shapes(80)
@given(case=cases(), scale=st.floats(-3, 3, width=32), offset=st.floats(-3, 3, width=32), dtype=st.sampled_from(DTYPES))
def test_extract_is_that_of_torch(on, case, scale, offset, dtype):
    (x,) = to(on, case.slices)
    same(cuda.patch_extract(x, case.layout, case.part, on=on), patches.extract(case.slices, case.layout, case.part))
    asked = (case.layout, case.part, scale, offset)
    found = cuda.patch_extract(x, *asked, positions=True, dtype=dtype, on=on)
    same(found, patches.network_input(case.slices, *asked, dtype))


@shapes(80)
@given(case=cases())
def test_blend_and_scatter_are_those_of_torch(on, case):
    (made,) = to(on, case.patches)
    same(cuda.patch_blend(made, case.layout, on=on), patches.blend(case.patches, case.layout))
    same(cuda.patch_blend(made, case.layout.unweighted, on=on), patches.scatter(case.patches, case.layout))


@shapes(40)
@given(case=cases())
def test_blend_undoes_extract_and_scatter_is_its_adjoint(on, case):
    x, made = to(on, case.slices, case.patches)
    cut = cuda.patch_extract(x, case.layout, case.layout.all, on=on)
    torch.testing.assert_close(cuda.patch_blend(cut, case.layout, on=on), x, rtol=1e-6, atol=1e-6)
    added = cuda.patch_blend(made, case.layout.unweighted, on=on)
    sizes = float(cut.norm() * made.norm()) + 1e-9
    assert abs(float((cut.double() * made).sum() - (x.double() * added).sum())) < 1e-6 * sizes


def test_numbers_are_rounded_to_even_in_half_precision(on):
    bits = np.random.default_rng(0).integers(0, 2**32, 60000, np.uint64).astype(np.uint32)
    halves = torch.arange(-(2**15), 2**15 - 1, dtype=torch.int16)
    below, above = halves.view(torch.float16).float(), (halves + 1).view(torch.float16).float()
    ties = ((below.double() + above.double()) / 2).float()
    special = torch.tensor([0.0, -0.0, 2.0**-24, 2.0**-25, 2.0**-26, 65504, 65519.9, 65520, -65520, 1e30, 3e-39])
    x = torch.cat([torch.from_numpy(bits.view(np.float32)), below, ties, special, -special])
    x = x[None, None].contiguous()
    layout = patch_layout(PatchGrid((1, x.shape[2]), 8), "whole")
    for dtype in DTYPES:
        found = cuda.patch_extract(*to(on, x), layout, layout.all, dtype=dtype, on=on)
        same(found[0], x.to(dtype))


def test_what_is_stitched_over_may_be_anything(on):
    layout = patch_layout(PatchGrid((20, 23), 8), "stitch", overlap=3)
    made = random((len(layout.all), 2, 8, 8), 0)
    expected = patches.blend(made, layout)
    loud = torch.where(patches.spread(torch.ones(2, 20, 23), layout, layout.all) == 0, float("nan"), made)
    assert loud.isnan().any()
    same(cuda.patch_blend(*to(on, loud), layout, on=on), expected)


stacks = st.tuples(st.integers(1, 7), st.integers(1, 20), st.integers(1, 20))


@shapes(60)
@given(
    shape=stacks, ends=st.booleans(), seed=seeds, threshold=st.sampled_from([0.0, 0.3, 10.0]), spacing=st.floats(0.5, 2)
)
def test_z_split_is_difference_shrinkage_and_dual_update(on, shape, ends, seed, threshold, spacing):
    """The duals where the volume ends are 0, as all steps leave them."""
    x, u = random((shape[0] + (not ends), *shape[1:]), seed), random(shape, seed + 1)
    u[len(u) - ends :] = 0
    d, dual = cuda.tv_z_split(*to(on, x, u), threshold, spacing=spacing, on=on)
    s = AlongZ(spacing)(Slab(0, shape[0], 0, int(not ends)), x) + u
    torch.testing.assert_close(d.cpu(), s.sign() * (s.abs() - threshold).clamp(min=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dual.cpu(), s.clamp(-threshold, threshold), rtol=1e-5, atol=1e-6)
    if ends:
        assert not d[-1].any()
        assert not dual[-1].any()


@shapes(60)
@given(shape=stacks, below=st.integers(0, 1), ends=st.booleans(), seed=seeds, spacing=st.floats(0.5, 2))
def test_z_transpose_is_that_of_the_difference(on, shape, below, ends, seed, spacing):
    d, u = (random((below + shape[0], *shape[1:]), seed + k) for k in range(2))
    found = cuda.tv_z_transpose(*to(on, d, u), below=below, ends=ends, spacing=spacing, on=on)
    v = d - u
    v[len(v) - ends :] = 0
    expected = AlongZ(spacing).transpose(Slab(1, 1 + shape[0], below, int(not ends)), v)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_z_kernels_pass_nan_on(on):
    x, u = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    x[1, 0, 0] = float("nan")
    for found in cuda.tv_z_split(*to(on, x, u), 0.1, on=on):
        assert found[:2, 0, 0].isnan().all()
        assert found.isnan().sum() == 2


keys = st.builds(
    NoiseKey, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 2**24 - 1)
)


@shapes(40)
@given(key=keys, first=st.integers(0, 2**20), slices=st.integers(1, 3), quads=st.integers(1, 300))
def test_random_integers_are_those_of_the_cpu(on, key, first, slices, quads):
    out = torch.zeros((slices, quads, 4), dtype=torch.int32, device=on.kind)
    k0, k1, step, purpose = (np.uint32(word) for word in key.words)
    on(
        "philox_words",
        (-(-quads // 256), slices, 1),
        (256, 1, 1),
        [out, np.int64(quads), np.uint32(first), step, purpose, k0, k1],
    )
    for z, quad in [(0, 0), (slices - 1, quads - 1), (slices // 2, quads // 2)]:
        expected = [int(word) for word in _philox(np.uint32(quad), np.uint32(first + z), step, purpose, k0, k1)]
        assert [int(word) % 2**32 for word in out[z, quad].cpu()] == expected


@shapes(60)
@given(shape=stacks, key=keys, first=st.integers(0, 2**20), eta=st.floats(0, 1), seed=seeds)
def test_renoise_is_ddim_with_the_noise_of_the_cpu(on, shape, key, first, eta, seed):
    x, x0 = random(shape, seed), random(shape, seed + 1)
    sigma, following = 0.7, 0.4
    fresh = eta * following * np.sqrt(1 - (following / sigma) ** 2)
    kept = np.sqrt(following**2 - fresh**2) / sigma
    found = cuda.renoise(*to(on, x, x0), float(kept), float(fresh), key, first, on=on)
    expected = ddim(x, x0, standard_normal(key, first, shape), sigma, following, eta)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=3e-6)


def test_noise_alone_is_that_of_the_cpu_to_rounding(on):
    """Many numbers, among them those that need the words next to 0 and 2^32."""
    key, zero = NoiseKey(3, 1, 2), torch.zeros(4, 500, 501)
    noise = standard_normal(key, 9, (4, 500, 501))
    found = cuda.renoise(*to(on, zero, zero), 0.0, 1.0, key, 9, on=on).cpu()
    assert float((found - noise).abs().max()) < 2e-6
    assert float(noise.abs().max()) > 4.5


def test_renoise_serves_tensors_that_begin_anywhere(on):
    """A slab inside a volume need not begin where four floats are read at once."""
    whole = random((1 + 2 * 4 * 6,), 0).to(on.kind)
    x = whole[1:].view(2, 4, 6)
    found = cuda.renoise(x, x.clone(), 0.5, 1.0, NoiseKey(1), 0, on=on)
    assert torch.equal(found, cuda.renoise(x.clone(), x.clone(), 0.5, 1.0, NoiseKey(1), 0, on=on))


def test_no_voxels_are_no_launch(on):
    layout = patch_layout(PatchGrid((5, 6), 4))
    nothing = torch.empty((0, 5, 6), device=on.kind)
    assert cuda.patch_extract(nothing, layout, layout.all, on=on).shape == (len(layout.all), 0, 4, 4)
    assert cuda.patch_extract(torch.ones((2, 5, 6), device=on.kind), layout, range(3, 3), on=on).shape == (0, 2, 4, 4)
    assert cuda.renoise(nothing, nothing, 1.0, 1.0, NoiseKey(0), 0, on=on).shape == (0, 5, 6)
    assert cuda.tv_z_split(nothing, nothing, 0.1, on=on)[0].shape == (0, 5, 6)


def test_M7_unfit_tensors_are_refused_before_launch(on):
    layout = patch_layout(PatchGrid((6, 8), 4))
    good = torch.zeros((2, 6, 8), device=on.kind)
    refused = {
        "contiguous": torch.zeros((2, 8, 6), device=on.kind).mT,
        "float32": good.double(),
        "is on meta": good.to("meta"),
        "gradient": good.clone().requires_grad_(),
        "shape": good[:, :4].contiguous(),
    }
    for message, x in refused.items():
        with pytest.raises(cuda.DataError, match=message):
            cuda.patch_extract(x, layout, layout.all, on=on)
    for message, x in list(refused.items())[:3]:
        with pytest.raises(cuda.DataError, match=message):
            cuda.renoise(good, x, 1.0, 1.0, NoiseKey(0), 0, on=on)
