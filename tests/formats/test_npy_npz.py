"""numpy's own files: layouts, dtypes and orders, and what must be refused without running or allocating anything."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from volrecon.errors import ConfigError, DataError, VolreconError
from volrecon.formats import FORMATS, Hints
from volrecon.geometry import VolumeGeometry

NPY, NPZ = FORMATS["npy"], FORMATS["npz"]
VALUES = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.float64)
HINTS = Hints(voxel_zyx_mm=(2.0, 1.0, 0.5), quantity="per_mm")


class Canary:
    """Pickle data that creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def claim(path: Path, shape: str, descr: str = "'<f4'", extra: int = 64) -> None:
    """An npy file whose header claims anything."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * extra)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<f2", "<i2", ">u2", "u1", "<i8"])
def test_any_number_type_and_order(tmp_path, suffix, order, dtype):
    path = tmp_path / f"a{suffix}"
    array = np.asarray(np.abs(VALUES) % 100, dtype=dtype, order=order)
    if suffix == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, volume=array)
    slices = FORMATS[suffix[1:]].read_volume(path, HINTS).slices
    assert slices[:].dtype == np.dtype(dtype).newbyteorder("=")
    for slab in (slice(4, 6), slice(0, 3), slice(0, 6)):
        np.testing.assert_array_equal(slices[slab], array[slab])


def test_nan_is_kept(tmp_path):
    array = np.full((2, 2, 2), np.nan, np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", volume=array)
    assert np.isnan(NPY.read_volume(tmp_path / "a.npy", HINTS).slices[:]).all()
    assert np.isnan(NPZ.read_volume(tmp_path / "a.npz", HINTS).slices[:]).all()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickled_objects_are_refused_and_not_run(tmp_path, suffix):
    path, canary = tmp_path / f"a{suffix}", tmp_path / "canary"
    objects = np.array([[[Canary(canary)]]], dtype=object)
    if suffix == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, volume=objects, voxel_zyx_mm=objects, angles_rad=objects, sino=np.ones((2, 2)))
    known = FORMATS[suffix[1:]]
    with pytest.raises(DataError, match="never pickled"):
        known.read_volume(path, HINTS)
    with pytest.raises(DataError, match="never pickled"):
        known.read_projections(path, Hints(axes="v,angle,u"))
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(DataError, match=str(path)):
        known.read_volume(path, HINTS)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("shape", "descr", "message"),
    [
        ("(10000000, 10000000, 10000000)", "'<f4'", "ends early"),
        ("(9223372036854775807, 9223372036854775807, 4)", "'<f8'", "ends early"),
        ("(4, 4, 4)", "'<c8'", "dtype '<c8'"),
        ("(4, 4, 4)", "'<U1'", "dtype <U1"),
        ("(2, 2, 4)", "[('a', '<f4')]", "dtype"),
        ("(4, 4, 4)", "'|b1'", "dtype"),
        ("(-4, 4, -4)", "'<f4'", "claims the shape"),
        ("(True, 4, 4)", "'<f4'", "claims the shape"),
        ("[2, 2, 4]", "'<f4'", "claims the shape"),
        ("(0, 4, 4)", "'<f4'", "no array"),
        ("()", "'<f4'", "no array"),
        ("(16,)", "'<f4'", "three axes"),
        ("(2, 2, 2, 2)", "'<f4'", "three axes"),
        ("__import__('os').system('true')", "'<f4'", "damaged"),
    ],
)
def test_false_headers(tmp_path, shape, descr, message):
    path = tmp_path / "a.npy"
    claim(path, shape, descr)
    with pytest.raises(DataError, match=message) as caught:
        NPY.read_volume(path, HINTS)
    assert str(path) in str(caught.value)


def test_huge_header_length(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 100)
    with pytest.raises(DataError, match="4294967295"):
        NPY.read_volume(path, HINTS)


def test_zip_that_unpacks_to_more_than_it_claims_or_less(tmp_path):
    path = tmp_path / "a.npz"
    claim(tmp_path / "claim.npy", "(1000, 1000, 1000)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "claim.npy", "volume.npy")
    with pytest.raises(DataError, match=r"claims shape \(1000, 1000, 1000\).*holds 64"):
        NPZ.read_volume(path, HINTS)


@pytest.mark.parametrize("claimed", [2**31, 2**50])
def test_zip_bomb_by_its_claim(tmp_path, claimed):
    path = tmp_path / "a.npz"
    member = io.BytesIO()
    np.save(member, np.zeros((4, 4, 4), np.float32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("volume.npy", member.getvalue())
        info = archive.infolist()[0]
        info.file_size = claimed
    with pytest.raises(DataError, match=rf"{claimed} bytes.*zip bomb"):
        NPZ.read_volume(path, HINTS)


def test_encrypted_or_unknown_compression(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, volume=VALUES)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 10] = 77
    path.write_bytes(data)
    with pytest.raises(DataError, match="NotImplementedError"):
        NPZ.read_volume(path, HINTS)


def test_damage_found_late_still_names_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, volume=np.ones((64, 64, 64), np.float32))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    slices = NPZ.read_volume(path, HINTS).slices
    with pytest.raises(DataError, match=r"a\.npz.*CRC"):
        slices[:]


def test_missing_hints(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, VALUES)
    with pytest.raises(ConfigError, match=r"a\.npy.*voxel_zyx_mm"):
        NPY.read_volume(path, Hints(quantity="hu"))
    with pytest.raises(ConfigError, match=r"a\.npy.*quantity"):
        NPY.read_volume(path, Hints(voxel_zyx_mm=(1.0, 1.0, 1.0)))
    with pytest.raises(ConfigError, match=r"a\.npy.*hint axes \(--axes\), one of 'v,angle,u'"):
        NPY.read_projections(path, Hints())


def test_hints_that_mean_nothing():
    with pytest.raises(ConfigError, match="quantity is 'HU'"):
        Hints(quantity="HU")
    with pytest.raises(ConfigError, match="voxel_zyx_mm is"):
        Hints(voxel_zyx_mm=(1.0, 1.0))
    with pytest.raises(ConfigError, match="axes is 'u,v'"):
        Hints(axes="u,v")


def test_bad_voxel_size_names_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, hu=VALUES, spacing_zyx_mm=[0.0, 1.0, 1.0])
    with pytest.raises(VolreconError, match=r"a\.npz.*voxel size in z is 0 mm"):
        NPZ.read_volume(path, Hints())
    np.savez(path, hu=VALUES, spacing_zyx_mm=[1.0, 1.0])
    with pytest.raises(DataError, match=r"spacing_zyx_mm has shape \(2,\)"):
        NPZ.read_volume(path, Hints())
    np.savez(path, hu=VALUES, spacing_zyx_mm=["1", "1", "1"])
    with pytest.raises(DataError, match="expected numbers"):
        NPZ.read_volume(path, Hints())


def test_hints_may_not_contradict_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, hu=VALUES, spacing_zyx_mm=[2.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match=r"2\.0.*hint voxel_zyx_mm says \(1\.0"):
        NPZ.read_volume(path, Hints(voxel_zyx_mm=(1.0, 1.0, 2.0)))
    with pytest.raises(ConfigError, match=r"'hu'.*'per_mm'"):
        NPZ.read_volume(path, Hints(quantity="per_mm"))


def test_shared_layouts(tmp_path):
    path = tmp_path / "a.npz"
    many = np.stack([VALUES, VALUES + 1]).astype(np.int16)
    np.savez_compressed(path, hu=many, spacing_zyx_mm=[[1, 1, 1], [2, 3, 4]], hu_STS_006=VALUES)
    with pytest.raises(ConfigError, match=r"hint key = 'hu\[0\]'"):
        NPZ.read_volume(path, Hints())
    with pytest.raises(ConfigError, match=r"no volume hu\[2\]"):
        NPZ.read_volume(path, Hints(key="hu[2]"))
    with pytest.raises(ConfigError, match=r"no array 'hv'.*hu, spacing_zyx_mm, hu_STS_006"):
        NPZ.read_volume(path, Hints(key="hv"))
    volume = NPZ.read_volume(path, Hints(key="hu[1]"))
    assert volume.geometry.voxel_zyx_mm == (2, 3, 4)
    assert volume.quantity == "hu"
    np.testing.assert_array_equal(volume.slices[2:5], many[1, 2:5])

    np.savez_compressed(path, hu_a=many[0], hu_b=many[1], spacing_zyx_mm=[1, 1, 1])
    with pytest.raises(ConfigError, match=r"holds the arrays hu_a, hu_b, spacing_zyx_mm.*hint key"):
        NPZ.read_volume(path, Hints())
    np.testing.assert_array_equal(NPZ.read_volume(path, Hints(key="hu_b")).slices[:], many[1])


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_projection_orders(tmp_path, suffix):
    expected = np.random.default_rng(1).random((3, 7, 5), dtype=np.float32)
    stored = {"v,angle,u": expected, "angle,v,u": expected.swapaxes(0, 1), "angle,u": expected[0]}
    for axes, array in stored.items():
        path = tmp_path / f"a{suffix}"
        if suffix == ".npy":
            np.save(path, array)
        else:
            np.savez_compressed(path, counts=array)
        data = FORMATS[suffix[1:]].read_projections(path, Hints(key="counts", axes=axes))
        wanted = expected[:1] if axes == "angle,u" else expected
        np.testing.assert_array_equal(data.projections[:], wanted)
        np.testing.assert_array_equal(data.projections[1:3], wanted[1:3])
        assert data.angles is None
        assert axes in " ".join(data.notes)


def test_projection_layouts_and_angles(tmp_path):
    path = tmp_path / "a.npz"
    sinogram = np.random.default_rng(1).random((7, 5), dtype=np.float32)
    degrees = np.arange(7) * 30.0
    np.savez(path, sino=sinogram, angles_deg=degrees)
    data = NPZ.read_projections(path, Hints())
    np.testing.assert_array_equal(data.projections[:], sinogram[np.newaxis])
    np.testing.assert_allclose(data.angles, np.deg2rad(degrees))

    np.savez(path, projections=np.ones((2, 7, 5), np.float32), angles_rad=np.deg2rad(degrees))
    data = NPZ.read_projections(path, Hints())
    assert data.projections.shape == (2, 7, 5)
    np.testing.assert_array_equal(data.angles, np.deg2rad(degrees))


def test_projections_that_disagree_with_their_angles(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, sino=np.ones((7, 5)), angles_deg=np.arange(6))
    with pytest.raises(DataError, match=r"a\.npz: 7 projections but 6 angles"):
        NPZ.read_projections(path, Hints())
    np.savez(path, sino=np.ones((7, 5)), angles_deg=np.arange(7), angles_rad=np.arange(7))
    with pytest.raises(DataError, match="angles_rad and angles_deg"):
        NPZ.read_projections(path, Hints())
    np.savez(path, sino=np.ones((7, 5, 2)))
    with pytest.raises(DataError, match="'angle,u' need 2 dimensions"):
        NPZ.read_projections(path, Hints())


def test_our_own_layout_needs_no_hints(tmp_path):
    path = tmp_path / "a.npz"
    grid = VolumeGeometry(VALUES.shape, (2.0, 1.0, 0.5), (1.0, -2.0, 3.0))
    NPZ.write_volume(path, VALUES, grid, "per_mm")
    volume = NPZ.read_volume(path, Hints())
    assert (volume.geometry, volume.quantity) == (grid, "per_mm")
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["volume"], VALUES)
        assert sorted(arrays.files) == ["centre_xyz_mm", "quantity", "volume", "voxel_zyx_mm"]


def test_steps_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(IndexError, match="steps of 1"):
        NPY.read_volume(tmp_path / "a.npy", HINTS).slices[::2]
