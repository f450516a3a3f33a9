"""DICOM series and multi-frame files that pydicom writes, shared by their tests."""

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

from volrecon.formats import FORMATS, Hints
from volrecon.geometry import VolumeGeometry

DICOM = FORMATS["dicom"]
GRID = VolumeGeometry((5, 6, 4), (2.0, 0.75, 0.5), (11.0, -7.0, -300.0))
# Asymmetric in every axis; our order (z, y, x) = (head, front, right).
VALUES = np.random.default_rng(3).integers(-1000, 2000, GRID.shape).astype(np.int16)


def image(pixels, syntax=ExplicitVRLittleEndian, **elements):
    """One CT image of a series, of signed 16 bits unless `elements` says otherwise."""
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    stated = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": pydicom.uid.generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "SeriesDescription": "thorax",
        "Modality": "CT",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
        "PixelSpacing": [0.75, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 8 * pixels.dtype.itemsize,
        "HighBit": elements.get("BitsStored", 8 * pixels.dtype.itemsize) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    ds.update({name: value for name, value in (stated | elements).items() if value is not None})
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.add_new("PixelData", "OW", pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())
    return ds


def save(ds, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def save_series(folder, row=(1, 0, 0), column=(0, 1, 0), values=VALUES, **elements):
    """The volume `values` on GRID as a folder of slices, rows along `row`, columns along `column` (LPS)."""
    folder.mkdir(exist_ok=True)
    normal = np.cross(row, column)
    corner = -np.array([-1, -1, 1]) * (np.array(row) + column + normal)  # first pixel: right, front, head are -1 or 1
    first = np.array(GRID.centre_xyz_mm) + corner * GRID.voxel_xyz_mm * (np.array(GRID.shape[::-1]) - 1) / 2
    order = np.random.default_rng(1).permutation(GRID.shape[0])
    for k, plane in enumerate(values):
        z = GRID.origin_xyz_mm[2] + k * GRID.voxel_zyx_mm[0]
        stored = plane[:: -int(corner[1]), :: -int(corner[0])]
        spacing = [GRID.voxel_zyx_mm[1], GRID.voxel_zyx_mm[2]]
        if row[1]:
            stored, spacing = stored.T, spacing[::-1]
        place = {"ImagePositionPatient": [-first[0], -first[1], z], "ImageOrientationPatient": [*row, *column]}
        stated = {"PixelSpacing": spacing, "InstanceNumber": int(order[k])} | place | elements
        save(image(np.ascontiguousarray(stored), **stated), folder / f"i{order[::-1][k]}.dcm")
    return folder


def change(folder, index, **elements):
    """Change the slice at a place (from the feet) in a folder."""
    files = sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    ds = pydicom.dcmread(files[index])
    for name, value in elements.items():
        setattr(ds, name, value)
    return save(ds, files[index])


def read(path, hints=None):
    volume = DICOM.read_volume(path, hints or Hints())
    return volume.slices[:], volume


def multi_frame(**elements):
    """The volume as one multi-frame file, frames in the order 0, 4, 1, 3, 2; what a frame says of itself counts."""
    order = [0, 4, 1, 3, 2]
    ds = image(VALUES[order][:, ::-1, ::-1], ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    ds.NumberOfFrames = 5
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = [pydicom.Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = [pydicom.Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.75, 0.5]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [pydicom.Dataset() for _ in order]
    for k, frame in zip(order, ds.PerFrameFunctionalGroupsSequence, strict=True):
        place, rescale = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [-11.75, 5.125, -304 + 2 * k]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, k, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [rescale]
    ds.update(elements)
    return ds


def series_of_simpleitk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def check_same_world(theirs, values, grid):
    """An ITK image (LPS) and a volume of ours have the same values in the same places."""
    for k, j, i in np.ndindex(grid.shape):
        right, front, head = grid.origin_xyz_mm + grid.voxel_xyz_mm * (i, j, k)
        assert theirs.GetPixel(theirs.TransformPhysicalPointToIndex((-right, -front, head))) == values[k, j, i]
