"""Small HDF5 scans, written by h5py, and how a bad one is refused."""

import h5py
import numpy as np
import pytest

from volrecon.errors import VolreconError
from volrecon.formats import FORMATS, Hints

HDF5 = FORMATS["hdf5"]
NO_HINTS = Hints()
FRAMES = np.random.default_rng(8).integers(1, 60_000, (7, 6, 8)).astype(np.uint16)


def data_exchange(path, libver="earliest", **options):
    with h5py.File(path, "w", libver=libver) as file:
        data = file.create_dataset("exchange/data", data=FRAMES, **options)
        data.attrs["axes"] = "theta:y:x"
        file.create_dataset("exchange/data_white", data=FRAMES[:2], **options)
        file["exchange/theta"] = np.arange(7.0)
        file["exchange/theta"].attrs["units"] = "degrees"
    return path


def nxtomo(path, libver="earliest", **options):
    with h5py.File(path, "w", libver=libver) as file:
        entry = file.create_group("entry1/tomo_entry")
        entry["definition"] = "NXtomo"
        entry.create_dataset("instrument/detector/data", data=FRAMES, **options)
        keys = np.array([2, 1, 0, 0, 3, 0, 1])
        entry.create_dataset("instrument/detector/image_key", data=keys, fletcher32="fletcher32" in options)
        entry["data/data"] = h5py.SoftLink("/entry1/tomo_entry/instrument/detector/data")
    return path


def replace(path, name, value):
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file[name] = value


def refusal(path, hints=NO_HINTS):
    """The message with which a file is refused on opening."""
    with pytest.raises(VolreconError) as caught:
        HDF5.read_projections(path, hints)
    assert str(path) in str(caught.value)
    return str(caught.value)
