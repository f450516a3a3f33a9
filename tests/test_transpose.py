"""Transposed volumes: numpy's answer in every tier, each block of the source read once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.store import ZarrSpace
from volrecon.transpose import transposed
from volrecon.volume import RamSpace, RamVolume

ORDERS = [(1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)]
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, axes=st.sampled_from(ORDERS), chunk=st.integers(1, 20), block=st.integers(1, 2000))
def test_it_is_numpys_transpose(shape, axes, chunk, block):
    values = numbers(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volrecon.volume.CHUNK_SLICES", chunk)
        found = transposed(RamVolume(torch.from_numpy(values.copy())), axes, RamSpace(block))
    assert found.shape == tuple(shape[axis] for axis in axes)
    assert np.array_equal(found.read(0, found.shape[0]).numpy(), values.transpose(axes))


@pytest.mark.parametrize("axes", ORDERS)
def test_on_disk_and_back(axes, tmp_path):
    values = numbers((35, 20, 18))
    with ZarrSpace(tmp_path, block_bytes=1) as space:
        source = space.of(RamVolume(torch.from_numpy(values)))
        there = transposed(source, axes, space)
        assert len(list(space.blocks(there.shape))) > 1
        assert np.array_equal(there.read(0, there.shape[0]).numpy(), values.transpose(axes))
        back = transposed(there, (axes.index(0), axes.index(1), axes.index(2)), space)
        assert np.array_equal(back.read(0, 35).numpy(), values)


def test_the_source_may_be_computed_as_it_is_read_and_pieces_are_given_back():
    released, made, reads = [], [], []

    class Piece(RamVolume):
        def release(self):
            released.append(self)

    class Spied(RamSpace):
        def empty(self, shape):
            made.append(Piece(torch.empty(shape)))
            return made[-1]

    class Computed:
        shape = (40, 20, 3)

        def read(self, start, stop):
            reads.append((start, stop))
            return torch.arange(start, stop).float()[:, None, None].expand(-1, 20, 3)

    found = transposed(Computed(), (1, 0, 2), Spied(1))
    assert reads == [(0, 16), (16, 32), (32, 40)]
    assert released == made[:-1] == [piece for piece in made if piece is not found]
    assert torch.equal(found.read(0, 20), torch.arange(40.0)[None, :, None].expand(20, 40, 3))
