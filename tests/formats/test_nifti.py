"""NIfTI: files that nibabel wrote, in every orientation, and those that cannot be meant."""

import itertools
import sys

import nibabel as nib
import numpy as np
import pytest

from volrecon.errors import ConfigError, DataError
from volrecon.formats import FORMATS, Hints
from volrecon.geometry import VolumeGeometry

NIFTI = FORMATS["nifti"]
HU = Hints(quantity="hu")

# Asymmetric in every axis; RAS order (x, y, z).
RAS = np.random.default_rng(3).integers(-1000, 2000, (4, 5, 6)).astype(np.int16)
AFFINE = np.array([[0.5, 0, 0, -7], [0, 0.75, 0, 11], [0, 0, 2.0, -300], [0, 0, 0, 1]])

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*axes)
]


def save(path, array, affine=AFFINE, unit="mm"):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_is_the_same_volume(tmp_path, codes):
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    image = nib.Nifti1Image(RAS, AFFINE).as_reoriented(turn)
    assert "".join(nib.aff2axcodes(image.affine)) == codes
    image.to_filename(tmp_path / "a.nii")
    volume = NIFTI.read_volume(tmp_path / "a.nii", HU)
    np.testing.assert_array_equal(volume.slices[:], RAS.T)
    np.testing.assert_array_equal(volume.slices[1:4], RAS.T[1:4])
    assert volume.geometry.voxel_zyx_mm == (2.0, 0.75, 0.5)
    assert codes in volume.notes[0]
    # Voxel (0, 0, 0) lies where nibabel's affine puts it.
    np.testing.assert_allclose(volume.geometry.origin_xyz_mm, AFFINE[:3, 3], atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nibabel_reads_what_we_write(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    grid = VolumeGeometry((6, 5, 4), (2.0, 0.75, 0.5), (1.0, 2.0, 3.0))
    NIFTI.write_volume(path, RAS.T.astype(np.float32), grid, "per_mm")
    image = nib.load(path)
    np.testing.assert_array_equal(image.get_fdata(), RAS)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_allclose(image.affine[:3, 3], grid.origin_xyz_mm)
    assert image.header.get_xyzt_units()[0] == "mm"
    again = NIFTI.read_volume(path, Hints())
    assert again.quantity == "per_mm"
    assert again.geometry == grid


def test_equal_volumes_give_equal_files(tmp_path):
    grid = VolumeGeometry((6, 5, 4), (1.0, 1.0, 1.0))
    for name in ("a.nii.gz", "b.nii.gz"):
        NIFTI.write_volume(tmp_path / name, RAS.T, grid, "hu")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_more_voxels_than_nifti1_can_count(tmp_path):
    path = tmp_path / "a.nii"
    values = np.arange(40_000, dtype=np.float32).reshape(1, 1, -1)
    NIFTI.write_volume(path, values, VolumeGeometry(values.shape, (1.0, 1.0, 0.1)), "hu")
    assert isinstance(nib.load(path), nib.Nifti2Image)
    np.testing.assert_array_equal(NIFTI.read_volume(path, Hints()).slices[:], values)


@pytest.mark.parametrize("dtype", [">f4", ">i2", "<u2", "<f8", "u1"])
def test_byte_orders_and_types(tmp_path, dtype):
    array = (RAS % 200).astype(dtype)
    image = nib.Nifti1Image(array, AFFINE, nib.Nifti1Header(endianness=dtype[0]) if dtype[0] == ">" else None)
    image.header.set_data_dtype(dtype)
    image.to_filename(tmp_path / "a.nii.gz")
    slices = NIFTI.read_volume(tmp_path / "a.nii.gz", HU).slices
    assert slices[:].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(slices[:], array.T)


def test_scaled_values(tmp_path):
    image = nib.Nifti1Image(RAS.astype(np.float32) / 3, AFFINE)
    image.header.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "a.nii")
    slices = NIFTI.read_volume(tmp_path / "a.nii", HU).slices
    assert slices.dtype == np.float32
    np.testing.assert_allclose(slices[2:4], nib.load(tmp_path / "a.nii").get_fdata().T[2:4], rtol=1e-6)


def test_units(tmp_path):
    micron = NIFTI.read_volume(save(tmp_path / "a.nii", RAS, np.diag([20.0, 20, 40, 1]), "micron"), HU)
    np.testing.assert_allclose(micron.geometry.voxel_zyx_mm, (0.04, 0.02, 0.02))
    unknown = NIFTI.read_volume(save(tmp_path / "a.nii", RAS, unit="unknown"), HU)
    assert unknown.geometry.voxel_zyx_mm == (2.0, 0.75, 0.5)
    assert "no unit of length, taken as mm" in unknown.notes[1]


def test_no_orientation_is_said(tmp_path):
    image = nib.Nifti1Image(RAS, None)
    image.header.set_zooms((0.5, 0.75, 2.0))
    image.to_filename(tmp_path / "a.nii")
    volume = NIFTI.read_volume(tmp_path / "a.nii", HU)
    assert volume.geometry.voxel_zyx_mm == (2.0, 0.75, 0.5)
    assert "states no orientation" in volume.notes[0]


@pytest.mark.parametrize(("degrees", "accepted"), [(0.05, True), (1.5, False), (30, False)])
def test_oblique_is_refused_with_its_angle(tmp_path, degrees, accepted):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii", RAS, turn @ AFFINE)
    if accepted:
        np.testing.assert_array_equal(NIFTI.read_volume(path, HU).slices[:], RAS.T)
        return
    with pytest.raises(DataError, match=rf"a\.nii.*oblique.*{degrees:.2f} degrees"):
        NIFTI.read_volume(path, HU)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.ones((4, 4))], ids=["0", "nan", "singular"]
)
def test_affine_that_is_none(tmp_path, bad):
    path = save(tmp_path / "a.nii", RAS)
    data = bytearray(path.read_bytes())
    data[280:328] = bad[:3].astype("<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.nii"):
        NIFTI.read_volume(path, HU)


def test_four_dimensions(tmp_path):
    one = NIFTI.read_volume(save(tmp_path / "a.nii", RAS[..., np.newaxis]), HU)
    np.testing.assert_array_equal(one.slices[2:4], RAS.T[2:4])
    with pytest.raises(DataError, match=r"shape \(4, 5, 6, 2\)"):
        NIFTI.read_volume(save(tmp_path / "a.nii", np.stack([RAS, RAS], axis=-1)), HU)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_absurd_claim_is_refused_before_reading(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    header = nib.Nifti1Header()
    header.set_data_shape((32767, 32767, 32767))
    header.set_data_dtype(np.float64)
    header.set_data_offset(352)
    header.set_sform(np.eye(4), code=1)
    with nib.openers.Opener(path, "wb") as stream:
        header.write_to(stream)
    with pytest.raises(DataError, match="ends early: its header claims shape"):
        NIFTI.read_volume(path, HU)


def test_complex_values(tmp_path):
    with pytest.raises(DataError, match="dtype complex64"):
        NIFTI.read_volume(save(tmp_path / "a.nii", RAS.astype(np.complex64)), HU)


def test_damaged_gzip_is_found_by_its_checksum(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        NIFTI.read_volume(path, HU)


def test_hint_contradicts(tmp_path):
    with pytest.raises(ConfigError, match="voxel_zyx_mm"):
        NIFTI.read_volume(save(tmp_path / "a.nii", RAS), Hints(quantity="hu", voxel_zyx_mm=(1.0, 1.0, 1.0)))


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", RAS)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ConfigError, match=r"nibabel.*pip install 'volrecon\[io\]'"):
        NIFTI.read_volume(path, HU)
