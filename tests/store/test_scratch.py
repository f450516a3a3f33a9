"""The scratch of the Zarr tier: its own folder, whole chunks, checksums, and nothing left behind."""

import pytest
import torch

from volrecon.errors import IntegrityError, ResourceError
from volrecon.store import ZarrSpace
from volrecon.store.scratch import ZarrVolume
from volrecon.volume import sweep


def test_a_folder_of_its_own_deleted_on_exit(tmp_path):
    with ZarrSpace(tmp_path / "a" / "b") as one, ZarrSpace(tmp_path / "a" / "b") as two:
        assert one.folder != two.folder
        one.zeros((3, 2, 2))
        assert one.folder.is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_deleted_after_an_error_too(tmp_path):
    space = ZarrSpace(tmp_path)
    space.zeros((3, 2, 2))
    with pytest.raises(KeyError), space:
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_release_gives_the_disk_back(tmp_path):
    with ZarrSpace(tmp_path) as space:
        volume = space.zeros((3, 2, 2))
        assert len(list(space.folder.iterdir())) == 1
        volume.release()
        assert list(space.folder.iterdir()) == []


def test_a_flipped_bit_is_an_error_not_a_number(tmp_path):
    with ZarrSpace(tmp_path) as space:
        volume = space.full((40, 4, 4), 1.5)
        (chunk,) = volume.folder.rglob("c/1/0/0")
        data = bytearray(chunk.read_bytes())
        assert len(data) == 16 * 4 * 4 * 4 + 4  # uncompressed, and a crc32c
        data[100] ^= 1
        chunk.write_bytes(bytes(data))
        assert volume.read(0, 16).eq(1.5).all()
        with pytest.raises(IntegrityError, match="slices 16 to 20"):
            volume.read(16, 20)


def test_what_was_not_written_reads_as_nan(tmp_path):
    with ZarrSpace(tmp_path) as space:
        assert space.empty((3, 2, 2)).read(0, 3).isnan().all()


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


def test_a_full_disk(tmp_path, monkeypatch):
    def full(array, key, value):
        raise OSError(28, "No space left on device")

    with ZarrSpace(tmp_path) as space:
        volume = space.zeros((3, 2, 2))
        monkeypatch.setattr("zarr.Array.__setitem__", full)
        with pytest.raises(ResourceError, match="No space left"):
            volume.write(0, torch.ones(3, 2, 2))


@pytest.mark.parametrize("place", ["file/scratch", "a\0b"])
def test_no_place_for_scratch(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="scratch"):
        ZarrSpace(tmp_path / place)
