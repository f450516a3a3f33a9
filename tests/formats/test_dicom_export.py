"""Volumes written as a folder of CT images, read by pydicom, SimpleITK and us."""

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import DICOM, GRID, VALUES, check_same_world, read, series_of_simpleitk

from volrecon.errors import ConfigError, DataError
from volrecon.formats import FORMATS, Hints, format_of
from volrecon.geometry import VolumeGeometry


def test_nifti_and_dicom_of_ours_lie_in_the_same_place(tmp_path):
    DICOM.write_volume(tmp_path / "a.dcm", VALUES, GRID, "hu")
    FORMATS["nifti"].write_volume(tmp_path / "a.nii", VALUES, GRID, "hu")
    check_same_world(series_of_simpleitk(tmp_path / "a.dcm"), VALUES, GRID)
    check_same_world(sitk.ReadImage(tmp_path / "a.nii"), VALUES, GRID)
    assert nibabel.aff2axcodes(nibabel.load(tmp_path / "a.nii").affine) == ("R", "A", "S")
    for name in ("a.dcm", "a.nii"):
        volume = format_of(tmp_path / name).read_volume(tmp_path / name, Hints())
        np.testing.assert_array_equal(volume.slices[:], VALUES)
        np.testing.assert_allclose(volume.geometry.origin_xyz_mm, GRID.origin_xyz_mm, rtol=1e-6)


def test_floats_are_right_to_half_a_step(tmp_path):
    rng = np.random.default_rng(5)
    scales = np.array([1e-3, 1.0, 300.0, 4e4, 0.0])[:, None, None]
    values = (rng.normal(size=GRID.shape) * scales + [[[0.0]], [[1e3]], [[-1000]], [[1e6]], [[-999.7]]]).astype(
        np.float32
    )
    for path in (tmp_path / "a.dcm", tmp_path / "b.dcm"):
        DICOM.write_volume(path, values, GRID, "hu")
    back = read(tmp_path / "a.dcm")[0]
    step = np.ptp(values.reshape(5, -1), axis=1) / 65_000
    rounding = np.spacing(np.abs(values).reshape(5, -1).max(axis=1))
    assert (np.abs(back - values).reshape(5, -1).max(axis=1) <= 0.501 * step + rounding).all()
    assert len(list((tmp_path / "a.dcm").iterdir())) == 5
    for name in ("slice_0001.dcm", "slice_0005.dcm"):
        assert (tmp_path / "a.dcm" / name).read_bytes() == (tmp_path / "b.dcm" / name).read_bytes()


def test_nobody_and_no_time_is_written(tmp_path):
    DICOM.write_volume(tmp_path / "a.dcm", VALUES, GRID, "hu")
    DICOM.write_volume(tmp_path / "b.dcm", VALUES + 1, GRID, "hu")
    first, other = (pydicom.dcmread(tmp_path / name / "slice_0001.dcm") for name in ("a.dcm", "b.dcm"))
    assert first.PatientName == "volrecon^export"
    assert not first.StudyDate
    assert not first.StudyTime
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert first[name].value != other[name].value


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "a.dcm"
    with pytest.raises(ConfigError, match=r"a\.dcm.*Hounsfield"):
        DICOM.write_volume(path, VALUES, GRID, "per_mm")
    with pytest.raises(ConfigError, match="at most 65535"):
        DICOM.write_volume(path, [], VolumeGeometry((1, 70_000, 1), (1.0, 1.0, 1.0)), "hu")
    bad = VALUES.astype(np.float32)
    bad[3, 2, 1] = np.nan
    with pytest.raises(DataError, match="1 values of a slice are not finite"):
        DICOM.write_volume(path, bad, GRID, "hu")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "a.dcm"
    DICOM.write_volume(path, VALUES, GRID, "hu")
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.dcm exists and is no folder of slice_\*\.dcm alone"):
        DICOM.write_volume(path, VALUES, GRID, "hu")
    (path / "notes.txt").unlink()
    DICOM.write_volume(path, VALUES[:3], VolumeGeometry((3, 6, 4), (1.0, 1.0, 1.0)), "hu")
    assert len(list(path.iterdir())) == 3
    file = tmp_path / "b.dcm"
    file.write_text("a file")
    link = tmp_path / "c.dcm"
    link.symlink_to(path, target_is_directory=True)
    for taken in (file, link):
        with pytest.raises(ConfigError, match="left alone"):
            DICOM.write_volume(taken, VALUES, GRID, "hu")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dcm", "b.dcm", "c.dcm"]
