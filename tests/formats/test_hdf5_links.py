"""HDF5 files that point elsewhere, or at themselves."""

import os

import h5py
import numpy as np
import pytest
from hdf5_scans import FRAMES, HDF5, data_exchange, nxtomo, refusal, replace

from volrecon.formats import Hints

LONG_AGO = 1_000_000_000


@pytest.fixture
def path(tmp_path):
    """A whole Data Exchange file."""
    return data_exchange(tmp_path / "scan.h5")


@pytest.fixture
def canary(tmp_path):
    """A whole file outside, which tells by its time of access whether anyone has opened it."""
    other = data_exchange(tmp_path / "outside.h5")

    def untouched():
        return other.stat().st_atime == LONG_AGO

    os.utime(other, (LONG_AGO, LONG_AGO + 1))
    other.read_bytes()
    if untouched():
        pytest.skip("this file system keeps no times of access")
    os.utime(other, (LONG_AGO, LONG_AGO + 1))
    assert untouched()
    return untouched


@pytest.mark.parametrize("target", ["outside.h5", "../outside.h5", "/etc/outside.h5"])
@pytest.mark.parametrize("name", ["exchange", "exchange/data", "exchange/theta", "exchange/data_white"])
def test_links_to_other_files_are_not_followed(path, canary, name, target):
    replace(path, name, h5py.ExternalLink(target, f"/{name}"))
    assert f"lies in another file, '{target}'" in refusal(path)
    assert canary()


def test_links_to_other_files_behind_soft_links_and_keys(path, canary):
    replace(path, "out", h5py.ExternalLink("outside.h5", "/"))
    replace(path, "exchange/data", h5py.SoftLink("/out/exchange/data"))
    assert "lies in another file" in refusal(path)
    assert "lies in another file" in refusal(path, Hints(key="out/exchange/data", axes="angle,v,u"))
    replace(path, "exchange", h5py.SoftLink("nowhere"))
    assert "soft link to something that the file does not hold" in refusal(path)
    assert canary()


def test_links_to_other_files_in_nxtomo(tmp_path, canary):
    path = nxtomo(tmp_path / "a.nxs")
    replace(path, "entry1/tomo_entry/instrument/detector/image_key", h5py.ExternalLink("outside.h5", "/exchange/theta"))
    assert "lies in another file" in refusal(path)
    replace(path, "entry1/tomo_entry", h5py.ExternalLink("outside.h5", "/"))
    assert "1 links to other files are not followed" in refusal(path)
    assert canary()


def test_a_virtual_dataset_is_refused(path, canary):
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    layout[:] = h5py.VirtualSource("outside.h5", "exchange/data", FRAMES.shape)
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file.create_virtual_dataset("exchange/data", layout)
    assert "is a virtual dataset" in refusal(path)
    assert canary()


def test_external_storage_is_refused(path, tmp_path):
    raw = tmp_path / "raw.bin"
    raw.write_bytes(FRAMES.tobytes())
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file.create_dataset("exchange/data", FRAMES.shape, FRAMES.dtype, external=[(str(raw), 0, FRAMES.nbytes)])
    assert "keeps its values in other files" in refusal(path)


def test_soft_links_in_circles(path):
    replace(path, "a", h5py.SoftLink("/b"))
    replace(path, "b", h5py.SoftLink("a"))
    assert "more than 16 soft links" in refusal(path, Hints(key="a"))
    # Each name is sixteen of the one before it: 16**8 steps for whoever follows them all.
    replace(path, "x0", h5py.SoftLink("."))
    for level in range(8):
        replace(path, f"x{level + 1}", h5py.SoftLink("/".join([f"x{level}"] * 16)))
    assert "more than 16 soft links" in refusal(path, Hints(key="x8"))


def test_groups_that_hold_themselves(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/b/c"] = FRAMES
        file["a/b/up"] = file["a"]
        file["a/root"] = file["/"]
        file["a/again"] = file["a/b/c"]
    data = HDF5.read_projections(tmp_path / "a.h5", Hints(axes="angle,v,u"))
    np.testing.assert_array_equal(data.projections[:], FRAMES.swapaxes(0, 1))
