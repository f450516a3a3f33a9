"""DICOM files that cannot be meant, or are damaged: each is refused with what was found."""

import sys

import numpy as np
import pydicom
import pytest
from dicom_series import DICOM, VALUES, change, image, multi_frame, read, save, save_series
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1

from volrecon.errors import ConfigError, DataError, VolreconError
from volrecon.formats import Hints, dicom


def test_missing_slice(tmp_path):
    folder = save_series(tmp_path / "series")
    change(folder, 2).unlink()
    with pytest.raises(DataError, match=r"series: .*mostly 2\.0000 mm, but 4\.0000 mm between .* at -302.*: 1 missing"):
        read(folder)


def test_uneven_and_doubled_slices(tmp_path):
    folder = save_series(tmp_path / "series")
    moved = change(folder, 2, ImagePositionPatient=[-11.75, 5.125, -299.99])
    with pytest.raises(DataError, match=r"unevenly spaced: mostly 2\.0000 mm"):
        read(folder)
    change(folder, 2, ImagePositionPatient=[-11.75, 5.125, -300])
    double = folder / "double.dcm"
    double.write_bytes(moved.read_bytes())
    with pytest.raises(DataError, match=r"1 slices lie where another one lies.*double\.dcm at -300\.00"):
        read(folder)


def test_rounded_positions_are_even(tmp_path):
    folder = save_series(tmp_path / "series")
    for k, z in enumerate((-304, -303.8999, -303.8015, -303.7, -303.6)):
        change(folder, k, ImagePositionPatient=[-11.75, 5.125, z])
    assert read(folder)[1].geometry.voxel_zyx_mm[0] == pytest.approx(0.1)
    change(folder, 2, ImagePositionPatient=[-11.75, 5.125, -303.805])
    with pytest.raises(DataError, match="unevenly spaced"):
        read(folder)


def test_gantry_tilt(tmp_path):
    folder = save_series(tmp_path / "series")
    for k in range(5):
        change(folder, k, ImagePositionPatient=[-11.75, 5 + 2 * k * np.tan(np.radians(7)), -304 + 2.0 * k])
    with pytest.raises(DataError, match=r"sheared: .* 7\.00 degrees \(gantry tilt\)"):
        read(folder)
    c, s = float(np.cos(np.radians(7))), float(np.sin(np.radians(7)))
    for k in range(5):
        change(folder, k, ImageOrientationPatient=[1, 0, 0, 0, c, s], ImagePositionPatient=[-11.75, 5, -304 + 2.0 * k])
    with pytest.raises(DataError, match=r"sheared: .* 7\.00 degrees \(gantry tilt\)"):
        read(folder)


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ([1, 0, 0], [0, 0, -1], "not axial"),
        ([np.cos(0.1), np.sin(0.1), 0], [-np.sin(0.1), np.cos(0.1), 0], r"5\.73 degrees off the axes"),
        ([1, 0, 0], [1, 0, 0], "not two unit vectors at right angles"),
        ([0, 0, 0], [0, 1, 0], "not two unit vectors at right angles"),
        ([2, 0, 0], [0, 1, 0], "not two unit vectors at right angles"),
    ],
)
def test_orientations_that_are_refused(tmp_path, row, column, message):
    orientation = [f"{c:.9f}" for c in (*row, *column)]
    path = save(image(VALUES[0], ImageOrientationPatient=orientation, SliceThickness=1), tmp_path / "a.dcm")
    with pytest.raises(DataError, match=rf"a\.dcm.*{message}"):
        read(path)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "disagree whether its values run backwards"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR; expected 1, MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "3 samples a pixel, RGB"),
        ({"BitsStored": 12, "HighBit": 15}, "12 bits up to bit 15 in 16"),
        ({"BitsAllocated": 12}, "in 12; expected"),
        ({"PixelRepresentation": 2}, "PixelRepresentation 2"),
        ({"Rows": 7}, "7 x 4 pixels are 56 bytes, PixelData claims 48"),
        ({"Columns": 3}, "6 x 3 pixels are 36 bytes, PixelData claims 48"),
        ({"Rows": 65535, "Columns": 65535}, "PixelData claims 48"),
        ({"Rows": 0}, "claims 1 frames of 0 x 4 pixels"),
        ({"Rows": None}, "its Rows is 'None'; expected 1 number"),
        ({"PixelSpacing": None}, "PixelSpacing"),
        ({"PixelSpacing": [0, 0.5]}, "voxel size in y is 0 mm"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient"),
        ({"ImagePositionPatient": ["1e400", 0, 0]}, "finite"),
        ({"SliceThickness": None}, "hint voxel_zyx_mm"),
        ({"NumberOfFrames": 2}, "2 frames of 6 x 4 pixels are 96 bytes"),
        ({"RescaleIntercept": None}, "expected both"),
    ],
    ids=str,
)
def test_elements_that_are_refused(tmp_path, elements, message):
    path = save(image(VALUES[0], **({"SliceThickness": 1} | elements)), tmp_path / "a.dcm")
    with pytest.raises(VolreconError, match=rf"a\.dcm.*{message}"):
        read(path)


def test_a_lookup_table_is_refused(tmp_path):
    ds = image(VALUES[0], SliceThickness=1)
    ds.ModalityLUTSequence = [pydicom.Dataset()]
    with pytest.raises(DataError, match="ModalityLUTSequence"):
        read(save(ds, tmp_path / "a.dcm"))


def test_compression_that_pydicom_cannot_undo_is_named(tmp_path):
    ds = image(VALUES[0], SliceThickness=1)
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no picture \xff\xd9"])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    with pytest.raises(DataError, match=r"compressed as JPEG Lossless.*pylibjpeg"):
        read(save(ds, tmp_path / "a.dcm"))
    deflated = image(VALUES[0], DeflatedExplicitVRLittleEndian, SliceThickness=1)
    with pytest.raises(DataError, match="Deflated"):
        read(save(deflated, tmp_path / "a.dcm"))


def test_slices_of_different_volumes(tmp_path):
    folder = save_series(tmp_path / "series")
    change(folder, 2, PixelSpacing=[0.75, 0.6])
    with pytest.raises(DataError, match=r"i\d\.dcm differs from i\d\.dcm in PixelSpacing"):
        read(folder)


def test_folders_that_are_no_series(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="holds no DICOM file"):
        read(tmp_path)
    folder = save_series(tmp_path / "series")
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"gone\.dcm: there is no such file"):
        read(folder)
    monkeypatch.setattr(dicom, "MOST_FILES", 5)
    with pytest.raises(DataError, match="more than 5 files"):
        read(folder)


def test_frames_whose_places_are_not_said(tmp_path):
    ds = multi_frame()
    del ds.PerFrameFunctionalGroupsSequence[3]
    with pytest.raises(DataError, match="has 5 frames and says where 4 lie"):
        read(save(ds, tmp_path / "a.dcm"))
    del ds.PerFrameFunctionalGroupsSequence
    with pytest.raises(DataError, match="has 5 frames and says where 0 lie"):
        read(save(ds, tmp_path / "a.dcm"))


def test_no_truncation_reads(tmp_path):
    path = save(image(VALUES[0], SliceThickness=1), tmp_path / "a.dcm")
    data = path.read_bytes()
    for keep in range(0, len(data), 13):
        path.write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"a\.dcm"):
            read(path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = save(image(VALUES[0], SliceThickness=1), tmp_path / "a.dcm")
    volume = DICOM.read_volume(path, Hints())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"a\.dcm"):
        volume.slices[:]


@pytest.mark.parametrize("make", [multi_frame, lambda: image(VALUES[0], ImplicitVRLittleEndian, SliceThickness=1)])
def test_flipped_bytes(tmp_path, make):
    path = save(make(), tmp_path / "a.dcm")
    whole = path.read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(100):
        data = bytearray(whole)
        for place in rng.integers(128, len(data), rng.integers(1, 5)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            assert np.isfinite(read(path)[0]).all()
        except VolreconError as error:
            assert str(path) in str(error)  # noqa: PT017 - both outcomes are right


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = save(image(VALUES[0], SliceThickness=1), tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"pydicom.*pip install 'volrecon\[io\]'"):
        read(path)
