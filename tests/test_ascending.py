"""Ascending reads and writes: each block read once, each chunk written once, never more than a window in memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.ascending import AscendingReader, AscendingWriter
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume, Volume, chunk_height

ROWS = (3, 5)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


class Watched(RamVolume):
    """Remembers what was read and written."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__(tensor)
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []

    def read(self, start, stop):
        self.reads.append((start, stop))
        return super().read(start, stop)

    def write(self, start, block):
        self.writes.append((start, start + len(block)))
        super().write(start, block)


@st.composite
def ascending_groups(draw) -> tuple[int, np.ndarray]:
    """A number of slices, and groups of them: the smallest number of a group never falls, repeats are allowed."""
    slices, k = draw(st.integers(1, 60)), draw(st.integers(1, 5))
    starts = sorted(draw(st.lists(st.integers(0, slices - 1), min_size=1, max_size=30)))
    steps = draw(st.lists(st.integers(0, 7), min_size=k - 1, max_size=k - 1))
    return slices, (np.array(starts)[:, None] + np.cumsum([0, *steps])).clip(0, slices - 1)


@settings(max_examples=80, deadline=None)
@given(case=ascending_groups(), height=st.integers(1, 20), batch=st.integers(1, 4))
def test_a_reader_gathers_and_reads_each_block_once(case, height, batch):
    slices, groups = case
    source = Watched(numbers(slices, *ROWS))
    reader = AscendingReader(source, height)
    for start in range(0, len(groups), batch):
        ids = groups[start : start + batch]
        assert torch.equal(reader.gather(ids), source.tensor[torch.from_numpy(ids)])
        assert len(reader._blocks) <= ids.max() // height - ids.min() // height + 1
    assert len(source.reads) == len(set(source.reads))
    assert all(start % height == 0 and stop == min(start + height, slices) for start, stop in source.reads)


def test_a_reader_is_right_in_any_order():
    source = Watched(numbers(40, *ROWS))
    reader = AscendingReader(source, 16)
    for ids in ([[39, 0], [17, 17]], [[3, 5]], [[20, 30]], [[1, 2]]):
        assert torch.equal(reader.gather(np.array(ids)), source.tensor[torch.tensor(ids)])


@settings(max_examples=80, deadline=None)
@given(case=ascending_groups(), batch=st.integers(1, 4), chunk=st.integers(1, 20))
def test_a_writer_adds_and_writes_each_chunk_once(case, batch, chunk):
    slices, groups = case
    groups = np.concatenate([groups, np.arange(slices).repeat(groups.shape[1]).reshape(slices, -1)])
    groups = groups[np.argsort(groups.min(axis=1), kind="stable")]  # each slice is in some group
    values, counts = numbers(*groups.shape, *ROWS), np.bincount(groups.ravel(), minlength=slices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volrecon.volume.CHUNK_SLICES", chunk)
        volume = Watched(torch.full((slices, *ROWS), torch.nan))
        writer = AscendingWriter(volume, counts)
        height = chunk_height(volume.shape)
    for start in range(0, len(groups), batch):
        ids = groups[start : start + batch]
        writer.add(ids, values[start : start + batch])
        assert len(writer._sums) <= groups[: start + batch].max() - ids.min() + height + batch
    assert volume.writes == [(start, min(start + height, slices)) for start in range(0, slices, height)]
    expected = torch.zeros(slices, *ROWS, dtype=torch.float64)
    expected.index_add_(0, torch.from_numpy(groups.ravel()), values.double().flatten(0, 1))
    torch.testing.assert_close(volume.tensor.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_chunk_goes_when_its_last_slice_has_arrived_and_not_before():
    volume = Watched(torch.full((40, *ROWS), torch.nan))
    writer = AscendingWriter(volume, np.ones(40, int))
    for z in range(15):
        writer.add(np.array([z]), numbers(1, *ROWS))
    writer.add(np.array([17]), numbers(1, *ROWS))
    assert volume.writes == []
    writer.add(np.array([15]), numbers(1, *ROWS))
    assert volume.writes == [(0, 16)]
    assert list(writer._sums) == [17]
    writer.add(np.array([16, *range(18, 40)]), numbers(23, *ROWS))
    assert volume.writes == [(0, 16), (16, 32), (32, 40)]
    assert not writer._sums


def test_what_was_given_is_left_alone():
    given_slices = numbers(2, *ROWS)
    before, counts = given_slices.clone(), np.array([3])
    writer = AscendingWriter(RamVolume(torch.empty(1, *ROWS)), counts)
    writer.add(np.array([0, 0]), given_slices)
    writer.add(np.array([0]), given_slices[:1])
    assert torch.equal(given_slices, before)
    assert counts == [3]
    assert torch.equal(writer.volume.read(0, 1), before[:1] + before[1:] + before[:1])


def test_every_memory_tier_holds_the_same_bytes(tmp_path):
    groups = np.arange(50)[:, None] + np.arange(3)
    values = numbers(50, 3, *ROWS)

    def written(volume: Volume) -> torch.Tensor:
        writer = AscendingWriter(volume, np.bincount(groups.ravel()))
        for start in range(0, 50, 4):
            writer.add(groups[start : start + 4], values[start : start + 4])
        return volume.read(0, 52)

    with ZarrSpace(tmp_path, block_bytes=1) as space:
        assert torch.equal(written(space.empty((52, *ROWS))), written(RamSpace().empty((52, *ROWS))))
