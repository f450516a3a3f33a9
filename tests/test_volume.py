"""Volumes and sweeps: the seam of the memory tiers."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError, DataError, ResourceError
from volrecon.store import ZarrSpace
from volrecon.volume import (
    CHUNK_BYTES,
    RamSpace,
    RamVolume,
    Slab,
    chunk_height,
    slice_bytes,
    slice_dots,
    sweep,
)

SHAPE = (37, 5, 3)


def numbers(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.fixture(params=["ram", "zarr"])
def space(request, tmp_path):
    with nullcontext(RamSpace(1)) if request.param == "ram" else ZarrSpace(tmp_path, 1) as made:
        yield made


def held(space, values: torch.Tensor):
    """A volume of the space with these values."""
    return space.of(RamVolume(values.clone()))


def test_a_copy_is_a_copy(space):
    values = numbers()
    volume = space.of(RamVolume(values))
    volume.write(3, torch.zeros(2, 5, 3))
    assert values[3:5].any()
    assert torch.equal(volume.read(0, 3), values[:3])
    assert not volume.read(3, 5).any()
    assert torch.equal(volume.read(5, 37), values[5:])


def test_full_and_zeros(space):
    assert space.full(SHAPE, 2.5).read(0, 37).eq(2.5).all()
    assert not space.zeros(SHAPE).read(0, 37).any()
    assert space.zeros(SHAPE).shape == SHAPE


@pytest.mark.parametrize(("start", "stop"), [(0, 37), (15, 17), (36, 37), (5, 5)])
def test_add(space, start, stop):
    volume, more = held(space, numbers()), numbers((stop - start, 5, 3), 1)
    volume.add(start, more)
    expected = numbers()
    expected[start:stop] += more
    assert torch.equal(volume.read(0, 37), expected)


def test_gather_in_the_order_asked(space):
    ids = [36, 0, 15, 16, 15]
    assert torch.equal(held(space, numbers()).gather(ids), numbers()[ids])


def test_scatter_add_adds_repeated_ids_each_time(space):
    volume, slices = space.zeros(SHAPE), numbers((4, 5, 3))
    volume.scatter_add([2, 36, 2, 2], slices)
    assert torch.equal(volume.read(2, 3)[0], slices[0] + slices[2] + slices[3])
    assert torch.equal(volume.read(36, 37)[0], slices[1])
    assert not volume.read(3, 36).any()


def test_scatter_add_is_the_transpose_of_gather(space):
    ids, v = [3, 3, 20, 1], numbers((4, 5, 3), 5)
    volume, back = held(space, numbers()), space.zeros(SHAPE)
    back.scatter_add(ids, v)
    left = float((volume.gather(ids).double() * v).sum())
    assert left == pytest.approx(float((volume.read(0, 37).double() * back.read(0, 37)).sum()), rel=1e-6)


@pytest.mark.parametrize("ids", [[-1], [37], [0, 99]])
def test_slices_outside_are_refused_before_anything_is_written(space, ids):
    volume = space.zeros(SHAPE)
    with pytest.raises(DataError, match="37 slices"):
        volume.gather(ids)
    with pytest.raises(DataError, match=str(ids[-1])):
        volume.scatter_add(ids, numbers((len(ids), 5, 3)))
    assert not volume.read(0, 37).any()


def test_one_slice_too_few_for_its_ids(space):
    with pytest.raises(ValueError, match="zip"):
        space.zeros(SHAPE).scatter_add([1, 2], numbers((1, 5, 3)))


@settings(max_examples=60, deadline=None)
@given(slices=st.integers(1, 40), width=st.integers(1, 9), block=st.integers(1, 4000), chunk=st.integers(1, 20))
def test_reductions_do_not_depend_on_the_blocks(slices, width, block, chunk):
    a, b = (RamVolume(numbers((slices, 3, width), seed)) for seed in (1, 2))

    def dots(slab, a, b):
        assert len(a) == slab.stop - slab.start
        return [2 * a - b], [slice_dots(a, b), slice_dots(b, b)]

    results = []
    for space in (RamSpace(), RamSpace(block)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("volrecon.volume.CHUNK_SLICES", chunk)
            out = space.empty(a.shape)
            results.append((sweep(space, dots, [a, b], [out]), out.tensor))
    (whole, first), (parts, second) = results
    assert whole == parts
    assert torch.equal(first, second)
    assert torch.equal(first, 2 * a.tensor - b.tensor)
    assert whole[0] == pytest.approx(float((a.tensor.double() * b.tensor.double()).sum()), rel=1e-12, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(slices=st.integers(1, 30), height=st.integers(1, 31), halos=st.lists(st.integers(0, 1), min_size=1, max_size=3))
def test_halos_hold_the_neighbours_and_end_at_the_ends(slices, height, halos):
    index = torch.arange(slices, dtype=torch.float32).view(-1, 1)
    covered = []

    def look(slab: Slab, *blocks):
        for h, block in zip(halos, blocks, strict=True):
            low, high = max(slab.start - h, 0), min(slab.stop + h, slices)
            assert block[:, 0].tolist() == list(range(low, high))
        assert slab.below == (max(halos) if slab.start > 0 else 0)
        assert slab.above == (max(halos) if slab.stop < slices else 0)
        covered.extend(range(slab.start, slab.stop))
        return [], []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volrecon.volume.CHUNK_SLICES", height)
        sweep(RamSpace(1), look, [RamVolume(index)] * len(halos), halo=halos)
    assert covered == list(range(slices))


def test_an_output_may_be_an_input_without_a_halo(space):
    volume = held(space, numbers())
    sweep(space, lambda slab, a: ([a + 1], []), [volume], [volume])
    assert torch.equal(volume.read(0, 37), numbers() + 1)


@pytest.mark.parametrize("halo", [1, [0, 1]])
def test_a_halo_and_an_output_that_is_its_input(space, halo):
    a, b = held(space, numbers()), held(space, numbers())
    with pytest.raises(ConfigError, match="own input"):
        sweep(space, lambda slab, a, b: ([b], []), [a, b], [b], halo=halo)
    assert torch.equal(b.read(0, 37), numbers())


def test_another_input_may_have_the_halo():
    a, b = RamVolume(numbers()), RamVolume(numbers())
    sweep(RamSpace(1), lambda slab, a, b: ([b + 1], []), [a, b], [b], halo=[1, 0])
    assert torch.equal(b.tensor, numbers() + 1)


def test_arrays_of_different_height(space):
    with pytest.raises(DataError, match="equally many slices"):
        sweep(space, lambda *blocks: ([], []), [held(space, numbers()), held(space, numbers((36, 5, 3)))])


def test_too_few_results(space):
    with pytest.raises(ValueError, match="zip"):
        sweep(space, lambda slab, a: ([], []), [held(space, numbers())], [space.empty(SHAPE)])


HUGE = [(10**7, 10**7, 10**7), (2**31 + 3, 1, 1), (1, 2**40, 2), (100_000, 65_536, 65_536), (5, 0, 3), (0, 4, 4)]


@pytest.mark.parametrize("shape", HUGE)
def test_heights_of_huge_shapes_are_plain_integers(shape):
    space = RamSpace()
    height, chunk = space.height(shape), chunk_height(shape)
    assert type(height) is type(chunk) is int
    assert 1 <= chunk <= height <= max(shape[0], 1)
    assert chunk == 1 or slice_bytes(shape) * chunk <= CHUNK_BYTES
    assert height == chunk or slice_bytes(shape) * height <= space.block_bytes
    starts = space.blocks(shape)
    assert next(starts, (0, 0)) == (0, min(height, shape[0]))


def test_slice_bytes_beyond_int64():
    assert slice_bytes((1, 10**12, 10**12)) == 4 * 10**24


@settings(max_examples=40, deadline=None)
@given(slices=st.integers(1, 10**12), plane=st.integers(1, 10**12), block=st.integers(1, 2**45))
def test_blocks_are_whole_chunks(slices, plane, block):
    shape = (slices, plane)
    height, chunk = RamSpace(block).height(shape), chunk_height(shape)
    assert height == slices or height % chunk == 0
    assert height * 4 * plane <= block or height in (chunk, slices)


@pytest.mark.parametrize("block", [0, -5])
def test_a_block_of_no_bytes(block):
    with pytest.raises(ConfigError, match="at least 1"):
        RamSpace(block)


def test_memory_that_nobody_has():
    with pytest.raises(ResourceError, match=r"GiB.*compute\.tier"):
        RamSpace().empty((10**6, 10**5, 10**5))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 70)),
    scale=st.sampled_from([1e-15, 1, 1e15]),
)
def test_slice_dots(shape, scale):
    a, b = numbers(shape, 1) * scale, numbers(shape, 2)
    expected = (a.numpy().astype(np.float64) * b.numpy().astype(np.float64)).reshape(shape[0], -1)
    got = slice_dots(a, b)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected.sum(1), rtol=0, atol=1e-13 * np.abs(expected).sum(1).max())


def test_slice_dots_of_strided_blocks():
    a = numbers((4, 6, 8))
    part = a[:, ::2, 1:5]
    np.testing.assert_array_equal(slice_dots(part, part), slice_dots(part.contiguous(), part.contiguous()))


def test_slice_dots_depend_on_nothing_but_the_slice():
    a, b = numbers((9, 50, 50)), numbers((9, 50, 50), 1)
    alone = [slice_dots(a[k : k + 1], b[k : k + 1])[0] for k in range(9)]
    assert slice_dots(a, b).tolist() == alone
