"""DICOM series that pydicom wrote, in every axial orientation and encoding, with SimpleITK as a second reader."""

import itertools

import numpy as np
import pydicom
import pytest
from dicom_series import (
    DICOM,
    GRID,
    VALUES,
    change,
    check_same_world,
    image,
    multi_frame,
    read,
    save,
    save_series,
    series_of_simpleitk,
)
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from volrecon.errors import ConfigError, DataError
from volrecon.formats import Hints, format_of

AXIAL = [
    (row, column)
    for row, column in itertools.product(np.vstack([np.eye(3), -np.eye(3)]).tolist(), repeat=2)
    if np.cross(row, column)[2] != 0
]


@pytest.mark.parametrize(("row", "column"), AXIAL, ids=str)
def test_every_axial_orientation_is_the_same_volume(tmp_path, row, column):
    folder = save_series(tmp_path / "series", row, column)
    values, volume = read(folder)
    np.testing.assert_array_equal(values, VALUES)
    np.testing.assert_array_equal(volume.slices[1:3], VALUES[1:3])
    assert volume.geometry.shape == GRID.shape
    np.testing.assert_allclose(volume.geometry.voxel_zyx_mm, GRID.voxel_zyx_mm)
    np.testing.assert_allclose(volume.geometry.centre_xyz_mm, GRID.centre_xyz_mm)
    assert volume.quantity == "hu"
    letters = ["LPS"[v.index(1)] if 1 in v else "RAI"[v.index(-1)] for v in (row, column)]
    assert "rows run to {}, columns to {};".format(*letters) in volume.notes[1]


@pytest.mark.parametrize(("row", "column"), AXIAL[:2], ids=str)
def test_simpleitk_sees_the_same_value_at_every_place(tmp_path, row, column):
    folder = save_series(tmp_path / "series", row, column)
    values, volume = read(folder)
    check_same_world(series_of_simpleitk(folder), values, volume.geometry)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "u4"])
def test_encodings(tmp_path, syntax, dtype):
    stored = (VALUES[0] % 500).astype(dtype)
    ds = image(stored, syntax, RescaleSlope="0.5", RescaleIntercept="-1024", SliceThickness=3, PixelPaddingValue=None)
    values, volume = read(save(ds, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(values[0], (stored * 0.5 - 1024)[::-1, ::-1])
    assert volume.geometry.voxel_zyx_mm == (3.0, 0.75, 0.5)


@pytest.mark.parametrize(("bits", "signed"), [(8, 0), (12, 0), (12, 1), (10, 0)])
def test_bits_beyond_those_stored_do_not_count(tmp_path, bits, signed):
    low = -(1 << bits - 1) if signed else 0
    values = np.linspace(low, low + (1 << bits) - 1, 24).astype(np.int16).reshape(6, 4)
    stored = values.astype(np.uint16) if bits > 8 else values.astype(np.uint8)
    if bits > 8:  # overlays of old files lie in the bits above
        stored = (stored & ((1 << bits) - 1)) | np.uint16(1 << bits + 1)
    ds = image(stored, BitsStored=bits, PixelRepresentation=signed, SliceThickness=1)
    np.testing.assert_array_equal(read(save(ds, tmp_path / "a.dcm"))[0][0], values[::-1, ::-1])


def test_run_length_encoding(tmp_path):
    ds = image(VALUES[0], SliceThickness=1)
    ds.compress(RLELossless)
    path = save(ds, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(path)[0][0], VALUES[0, ::-1, ::-1])
    ds.Rows = ds.Columns = 60_000
    with pytest.raises(DataError, match=r"a\.dcm: claims 7200000000 bytes of pixels in a file of"):
        read(save(ds, path))
    ds.Rows, ds.Columns = 6, 5
    with pytest.raises(DataError, match=r"a\.dcm"):
        read(save(ds, path))


def test_rescaling_slice_by_slice(tmp_path):
    folder = save_series(tmp_path / "series")
    change(folder, 1, RescaleSlope="2", RescaleIntercept="-10.5")
    expected = VALUES.astype(np.float32)
    expected[1] = expected[1] * 2 - 10.5
    np.testing.assert_array_equal(read(folder)[0], expected)
    change(folder, 1, RescaleSlope="0")
    with pytest.raises(DataError, match="the slope not 0"):
        read(folder)


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_is_air(tmp_path, padding):
    values = VALUES.copy()
    values[:, 0, 0] = -2000
    folder = save_series(tmp_path / "series", values=values)
    for k in range(len(values)):
        ds = pydicom.dcmread(folder / f"i{k}.dcm")
        ds.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
        save(ds, folder / f"i{k}.dcm")
    expected = VALUES.astype(np.float32)
    expected[:, 0, 0] = -1000
    read_back, volume = read(folder)
    np.testing.assert_array_equal(read_back, expected)
    assert "(-2000, -2000)] mark pixels outside the picture and read as air, -1000" in volume.notes[-1]


def test_what_the_numbers_are(tmp_path):
    folder = save_series(tmp_path / "mr", Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    with pytest.raises(ConfigError, match="hint quantity"):
        read(folder)
    assert read(folder, Hints(quantity="per_mm"))[1].quantity == "per_mm"
    folder = save_series(tmp_path / "ct", RescaleType="US")
    with pytest.raises(ConfigError, match="hint quantity"):
        read(folder)
    folder = save_series(tmp_path / "hu", RescaleType="HU", Modality="OT")
    assert read(folder)[1].quantity == "hu"
    with pytest.raises(ConfigError, match="drop the hint"):
        read(folder, Hints(quantity="per_mm"))


def test_several_series(tmp_path):
    folder = save_series(tmp_path / "series")
    scout = image(VALUES[0], SeriesInstanceUID="1.2.4", SeriesDescription="scout", SliceThickness=5)
    save(scout, folder / "scout.dcm")
    with pytest.raises(ConfigError, match=r"2 series.*1\.2\.3 'thorax', 5 files; 1\.2\.4 'scout', 1 files"):
        read(folder)
    for key in ("thorax", "1.2.3"):
        np.testing.assert_array_equal(read(folder, Hints(key=key))[0], VALUES)
    assert read(folder, Hints(key="scout"))[0].shape == (1, 6, 4)
    with pytest.raises(ConfigError, match="'liver' names 0"):
        read(folder, Hints(key="liver"))


def test_files_without_a_suffix(tmp_path):
    folder = save_series(tmp_path / "series")
    for k, path in enumerate(list(folder.iterdir())):
        path.rename(folder / (f"IM{k}" if k else "CT.1.2.840.77"))
    (folder / "DICOMDIR").write_bytes(b"an index of other files")
    (folder / "readme.txt").write_text("not a slice")
    (folder / ".hidden").write_text("neither")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert format_of(folder) is DICOM
    assert format_of(folder / "IM1") is DICOM
    values, volume = read(folder)
    np.testing.assert_array_equal(values, VALUES)
    assert "5 files of series 1.2.3 'thorax'; 3 other entries of the folder ignored" in volume.notes[0]
    with pytest.raises(ConfigError, match="no known format"):
        format_of(folder / "readme.txt")


@pytest.mark.parametrize("compress", [False, True])
def test_multi_frame(tmp_path, compress):
    ds = multi_frame()
    if compress:
        ds.compress(RLELossless)
    values, volume = read(save(ds, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(values, VALUES + np.arange(5)[:, None, None])
    np.testing.assert_allclose(volume.geometry.centre_xyz_mm, GRID.centre_xyz_mm)
    assert volume.geometry.voxel_zyx_mm == GRID.voxel_zyx_mm
