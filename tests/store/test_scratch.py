"""The scratch of the Zarr tier: whole chunks with checksums, read and written behind the caller's back."""

import threading
import weakref

import numpy as np
import pytest
import torch
import zarr

from volrecon.errors import IntegrityError, ResourceError
from volrecon.store import ZarrSpace, temporary_space
from volrecon.store import scratch as module
from volrecon.store.scratch import ZarrVolume
from volrecon.volume import sweep


def arrays(folder):
    return sorted(folder.glob("*.zarr"))


def test_a_temporary_space_goes_at_the_end_and_after_an_error(tmp_path):
    with temporary_space(tmp_path / "a") as one, temporary_space(tmp_path / "a") as two:
        assert one.folder != two.folder
        one.zeros((3, 2, 2)).read(0, 3)
    with pytest.raises(IntegrityError), temporary_space(tmp_path / "a") as space:
        space.empty((3, 2, 2)).read(0, 3)
    assert list((tmp_path / "a").iterdir()) == []


def test_files_go_with_the_volume(tmp_path):
    with ZarrSpace(tmp_path) as space:
        one, two = space.zeros((3, 2, 2)), space.zeros((3, 2, 2))
        assert len(arrays(tmp_path)) == 2
        one.release()
        space.flush()
        two.read(0, 3)  # in order: after the release
        assert len(arrays(tmp_path)) == 1
        del two
        assert arrays(tmp_path) == []


def test_a_space_that_is_left_keeps_its_files(tmp_path):
    with ZarrSpace(tmp_path) as space:
        volume = space.full((20, 3, 2), 2.0)
    with ZarrSpace(tmp_path) as later:
        again = later.open(volume.folder.name, (20, 3, 2))
        assert again.read(0, 20).eq(2).all()
        assert later.zeros((1, 1, 1)).folder != volume.folder


def test_it_is_zarr(tmp_path):
    """Also for another reader, the last chunk filled up with NaN."""
    values = torch.arange(37 * 5 * 3, dtype=torch.float32).reshape(37, 5, 3)
    with ZarrSpace(tmp_path) as space:
        volume = space.empty(values.shape)
        volume.write(0, values)
        space.flush()
        array = zarr.open_array(volume.folder / "data", mode="r")
        assert np.array_equal(array[:], values.numpy())
        array = zarr.open_array(volume.folder / "data", mode="r+")
        array[3:9] = 7.0
        assert volume.read(3, 9).eq(7).all()
        assert torch.equal(volume.read(9, 37), values[9:])


def test_a_flipped_bit_is_an_error_not_a_number(tmp_path):
    with ZarrSpace(tmp_path) as space:
        volume = space.full((40, 4, 4), 1.5)
        space.flush()
        chunk = volume.chunk(16)
        data = bytearray(chunk.read_bytes())
        assert len(data) == 16 * 4 * 4 * 4 + 4  # uncompressed, and a crc32c
        data[100] ^= 1
        chunk.write_bytes(bytes(data))
        assert volume.read(0, 16).eq(1.5).all()
        with pytest.raises(IntegrityError, match="crc32c"):
            volume.read(16, 20)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"0", lambda data: b""])
def test_a_chunk_of_another_length(tmp_path, damage):
    with ZarrSpace(tmp_path) as space:
        volume = space.full((8, 4, 4), 1.5)
        space.flush()
        volume.chunk(0).write_bytes(damage(volume.chunk(0).read_bytes()))
        with pytest.raises(IntegrityError, match="516 bytes"):
            volume.read(0, 8)


def test_what_was_not_written_cannot_be_read(tmp_path):
    with ZarrSpace(tmp_path) as space, pytest.raises(IntegrityError, match="missing"):
        space.empty((3, 2, 2)).read(0, 3)


def test_a_sweep_writes_each_chunk_once(tmp_path, monkeypatch):
    """Blocks are multiples of the chunk, so no chunk is read to be written."""
    writes = []
    write = ZarrVolume.write

    def spy(volume, start, block):
        writes.append((start, len(block)))
        write(volume, start, block)

    with ZarrSpace(tmp_path, block_bytes=35 * 64) as space:
        source, out = space.full((50, 4, 4), 2.0), space.empty((50, 4, 4))
        monkeypatch.setattr(ZarrVolume, "write", spy)
        sweep(space, lambda slab, a: ([a], []), [source], [out])
    assert writes == [(0, 32), (32, 18)]


def test_disk_and_caller_work_at_the_same_time(tmp_path, monkeypatch):
    """The next block is read while the sweep computes: its computation waits for that very read."""
    begun = threading.Event()
    read = module.read_chunk

    def told(path, out):
        if path.name.startswith("c.1"):
            begun.set()
        read(path, out)

    with ZarrSpace(tmp_path, block_bytes=1) as space:
        source = space.full((32, 4, 4), 2.0)
        monkeypatch.setattr(module, "read_chunk", told)
        waited = []
        sweep(space, lambda slab, a: (waited.append(begun.wait(5)) or [], []), [source])
        assert waited == [True, True]


def test_a_sweep_holds_two_blocks_of_an_input(tmp_path, monkeypatch):
    """The one in work and the next; none of those before."""
    blocks = []
    read = ZarrVolume._read

    def noted(volume, start, stop):
        block = read(volume, start, stop)
        blocks.append(weakref.ref(block))
        return block

    def count(slab, block):
        del block
        space.later(int).result()  # what was asked for is read
        alive.append(sum(ref() is not None for ref in blocks))
        return [], []

    alive = []
    with ZarrSpace(tmp_path, block_bytes=1) as space:
        source = space.full((160, 4, 4), 2.0)
        monkeypatch.setattr(ZarrVolume, "_read", noted)
        sweep(space, count, [source])
    assert alive == [2] * 9 + [1]


def test_a_full_disk(tmp_path, monkeypatch):
    def full(descriptor, parts):
        raise OSError(28, "No space left on device")

    with ZarrSpace(tmp_path) as space:
        volume = space.zeros((3, 2, 2))
        space.flush()
        monkeypatch.setattr("os.writev", full)
        volume.write(0, torch.ones(3, 2, 2))
        with pytest.raises(ResourceError, match=r"No space left.*bytes were needed"):
            space.flush()


def test_a_chunk_written_in_parts(tmp_path, monkeypatch):
    import os

    def little(descriptor, parts):
        return os.write(descriptor, parts[0][:7])

    with ZarrSpace(tmp_path) as space:
        monkeypatch.setattr("os.writev", little)
        volume = space.full((3, 2, 2), 4.0)
        assert volume.read(0, 3).eq(4).all()


@pytest.mark.parametrize("place", ["file/scratch", "a\0b"])
def test_no_place_for_scratch(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="scratch"):
        ZarrSpace(tmp_path / place)
    with pytest.raises(ResourceError, match="scratch"), temporary_space(tmp_path / place):
        pass
