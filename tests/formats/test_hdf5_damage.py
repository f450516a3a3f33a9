"""HDF5 files that are damaged, not whole, or not what they should be."""

import fcntl
import struct
import sys
import zlib

import h5py
import numpy as np
import pytest
from hdf5_scans import FRAMES, HDF5, NO_HINTS, data_exchange, nxtomo, refusal, replace

from volrecon.errors import ConfigError, DataError, ResourceError, VolreconError


@pytest.fixture
def path(tmp_path):
    """A whole Data Exchange file."""
    return data_exchange(tmp_path / "scan.h5")


def test_chunks_that_were_never_written(path):
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        data = file.create_dataset("exchange/data", FRAMES.shape, "u2", chunks=(1, 6, 8), compression="gzip")
        data[:4] = FRAMES[:4]
    assert "is not whole: 4 of its 7 chunks were written" in refusal(path)


def test_an_array_that_was_never_written(path):
    replace(path, "exchange/data_white", h5py.Empty("u2"))
    assert "has shape None" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file.create_dataset("exchange/data", (10**7, 10**7, 10**7), "f4")
    assert "4000000000000000000000 bytes, but the file holds 0" in refusal(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((0, 6, 8)), "is empty"),
        (np.zeros((6, 8)), "axes 'angle,v,u' need 3 dimensions"),
        (np.zeros((7, 6, 8), [("a", "f4")]), "expected integers or floats"),
        (np.zeros((7, 6, 8), "c8"), "expected integers or floats"),
        (np.zeros((7, 6, 8), "S3"), "expected integers or floats"),
        (np.full((7, 6, 8), h5py.Reference(), h5py.ref_dtype), "expected integers or floats"),
        (7.0, "axes 'angle,v,u' need 3 dimensions"),
    ],
)
def test_what_is_not_a_stack_of_numbers(path, data, message):
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file.create_dataset("exchange/data", data=data)
    assert message in refusal(path)


def test_a_group_where_a_dataset_should_be(path):
    replace(path, "exchange/theta", np.zeros((7, 2)))
    assert "expected a list of numbers" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["exchange/theta"]
        file.create_group("exchange/theta")
    assert "'theta' is not a dataset" in refusal(path)


def test_more_flats_than_memory_are_refused_from_their_shape(path):
    packed = zlib.compress(bytes(2048 * 2048))
    with h5py.File(path, "a") as file:
        for name in ("data", "data_white"):
            del file[f"exchange/{name}"]
            stack = file.create_dataset(
                f"exchange/{name}", (300, 2048, 2048), "u1", chunks=(1, 2048, 2048), compression="gzip"
            )
            for frame in range(300):
                stack.id.write_direct_chunk((frame, 0, 0), packed)
    assert "300 flats or darks of '/exchange/data_white' (300, 2048, 2048) uint8 are 5033164800 bytes" in refusal(path)


def test_a_filter_that_is_not_installed(path):
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk(FRAMES.shape)
        layout.set_filter(31_999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(FRAMES.shape)
        data = h5py.h5d.create(file["exchange"].id, b"data", h5py.h5t.NATIVE_UINT16, space, layout)
        data.write_direct_chunk((0, 0, 0), FRAMES.tobytes())
    assert "is compressed with the filter 31999" in refusal(path)


def test_a_damaged_chunk(path):
    data_exchange(path, chunks=(1, 6, 8), fletcher32=True)
    content = bytearray(path.read_bytes())
    content[content.index(FRAMES[3].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    data = HDF5.read_projections(path, NO_HINTS)
    with pytest.raises(DataError, match=r"scan\.h5: damaged"):
        _ = data.projections[:]


def test_a_heap_of_texts_in_which_hdf5_runs_forever(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"degrees") - 8] = 23  # its length: the next text would be one of 0 bytes, for ever
    path.write_bytes(content)
    np.testing.assert_allclose(HDF5.read_projections(path, NO_HINTS).angles, np.deg2rad(np.arange(7.0)))


def test_a_text_for_which_hdf5_takes_gigabytes(path):
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[content.index(struct.pack("<IQI", 7, heap, 2)) + 3] = 0xC3
    path.write_bytes(content)
    assert f"the heap at {heap} holds no text of 3271557127 bytes" in refusal(path)


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("others", [0, 6])
def test_texts_are_read_without_hdf5(tmp_path, monkeypatch, libver, userblock, tracked, others):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver, userblock_size=userblock) as file:
        data = file.create_dataset("exchange/data", data=FRAMES, track_order=tracked)
        for index in range(others):
            data.attrs[f"note {index}"] = "é" * 100
        data.attrs["axes"] = ["THETA:y:x "]
        file["exchange/theta"] = np.arange(7.0)
        file["exchange/theta"].attrs["units"] = "rad"
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", None)
    data = HDF5.read_projections(tmp_path / "a.h5", NO_HINTS)
    np.testing.assert_array_equal(data.angles, np.arange(7.0))
    assert "axes taken as (angle,v,u)" in data.notes[0]


@pytest.mark.parametrize("many", [0, 12])
def test_texts_of_fixed_length_and_among_many(tmp_path, many):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["exchange/data"] = FRAMES
        file["exchange/theta"] = np.arange(7.0)
        for index in range(many):
            file["exchange/theta"].attrs[f"note {index}"] = "é" * 100
        file["exchange/theta"].attrs["units"] = "rad" if many else np.bytes_("rad")
    np.testing.assert_array_equal(HDF5.read_projections(tmp_path / "a.h5", NO_HINTS).angles, np.arange(7.0))


def test_an_attribute_that_is_no_text(path):
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = [0, 1, 2]
    assert "attribute 'axes' of '/exchange/data' is (3,) int64, not a short text" in refusal(path)


def test_a_file_that_is_being_written(path, monkeypatch):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match=r"scan\.h5: another process is writing it"):
            HDF5.read_projections(path, NO_HINTS)


def test_wrong_magic_and_no_file(path):
    path.write_bytes(b"\x0e\x03\x13\x01 is HDF4" * 100)
    assert "damaged, or not what its name says" in refusal(path)
    path.unlink()
    assert "there is no such file" in refusal(path)


def test_without_h5py(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"h5py.*pip install 'volrecon\[io\]'"):
        HDF5.read_projections(path, NO_HINTS)


@pytest.mark.parametrize("write", [data_exchange, nxtomo])
def test_every_truncation_is_refused(tmp_path, write):
    whole = write(tmp_path / "whole.h5", chunks=(2, 3, 8), compression="gzip").read_bytes()
    for keep in range(0, len(whole), 101):
        path = tmp_path / f"{keep}.h5"
        path.write_bytes(whole[:keep])
        refusal(path)


def survivor(path, content):
    """The projections of a damaged file, None where it is refused; any other exception fails the test."""
    path.write_bytes(content)
    try:
        return HDF5.read_projections(path, NO_HINTS).projections[:]
    except VolreconError as error:
        message = str(error)
    assert str(path) in message
    return None


@pytest.mark.parametrize("write", [data_exchange, nxtomo])
@pytest.mark.parametrize(
    ("libver", "options"),
    [("earliest", {}), ("earliest", {"chunks": (2, 3, 8), "compression": "gzip"}), ("latest", {"fletcher32": True})],
    ids=["plain", "gzip", "checksums"],
)
def test_flipped_bytes(tmp_path, write, libver, options):
    whole = write(tmp_path / "whole.h5", libver, **options).read_bytes()
    right = HDF5.read_projections(tmp_path / "whole.h5", NO_HINTS).projections[:]
    rng = np.random.default_rng(11)
    for trial in range(60):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(len(whole)))] = int(rng.integers(256))
        # A new name every time: HDF5 keeps what it knows of a file that is still open.
        read = survivor(tmp_path / f"{trial}.h5", content)
        # Only with checksums of everything can a flipped value be told from a measured one.
        assert read is None or libver == "earliest" or np.array_equal(read, right)
