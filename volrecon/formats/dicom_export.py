"""Volumes out as DICOM: a folder of axial CT images in Hounsfield units, one a slice. No patient, no date, no host."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.agreement import float32_slices
from volrecon.formats.base import Quantity
from volrecon.formats.files import replacing_folder, required
from volrecon.formats.mha import LPS_TO_OURS
from volrecon.geometry import VolumeGeometry

MOST_PIXELS = 65_535
"""Rows and columns that a DICOM image can count."""

LEVELS = 65_000
"""Steps of 16 bits that a slice uses; the rest takes up the rounding of slope and intercept to decimal text."""

NAMES = "slice_*.dcm"

REQUIRED_BUT_UNKNOWN = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "AcquisitionNumber",
    "KVP",
)
"""Elements that a CT image must have, and may leave empty."""


def write_volume(path: Path, slices: Iterable[np.ndarray], geometry: VolumeGeometry, quantity: Quantity) -> None:
    """A folder `path` of files slice_0001.dcm, feet to head, CT Image Storage, 16 bits a pixel.

    A slice of whole numbers within 16 bits is stored exactly. Any other one gets its own RescaleSlope, its range /
    65000, and is right to half of that: 0.03 HU for a slice from -1000 to 3000 HU. Equal volumes give equal files.

    Raises:
        ConfigError: `quantity` is not "hu", the grid is too large for DICOM, or `path` is there and no such folder.
        DataError: values that are not finite.
        ResourceError: the disk or the folder does not let us write.
    """
    if quantity != "hu":
        raise ConfigError(
            f"{path}: DICOM CT images hold Hounsfield units, not {quantity!r}; export quantity 'hu' (--quantity hu)"
        )
    if max(geometry.shape) > MOST_PIXELS:
        raise ConfigError(f"{path}: a DICOM series has at most {MOST_PIXELS} voxels an axis, not {geometry.shape}")
    with replacing_folder(path, NAMES) as partial:
        names = [f"slice_{index + 1:04d}.dcm" for index in range(geometry.shape[0])]
        digest, scales = hashlib.sha256(repr(geometry).encode()), []
        # The name of the series depends on all of it: the pixels are parked in the files until it is known.
        for name, values in zip(names, float32_slices(slices, geometry), strict=True):
            slope, intercept, stored = _sixteen_bits(values[::-1, ::-1])
            (partial / name).write_bytes(stored.tobytes())
            digest.update(stored.tobytes() + f"{slope} {intercept}".encode())
            scales.append((slope, intercept))
        for index, (name, scale) in enumerate(zip(names, scales, strict=True)):
            pixels = (partial / name).read_bytes()
            _image(geometry, index, scale, pixels, digest.hexdigest()).save_as(partial / name, enforce_file_format=True)


def _sixteen_bits(values: np.ndarray) -> tuple[str, str, np.ndarray]:
    """Slope and intercept as decimal text, and the int16 of a slice: values = slope stored + intercept."""
    if not np.isfinite(values).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(values))} values of a slice are not finite; DICOM holds numbers"
        )
    low, high = float(values.min()), float(values.max())
    if -32768 <= low <= high <= 32767 and (values == np.rint(values)).all():
        return "1", "0", values.astype("<i2")
    decimal = required("pydicom").valuerep.format_number_as_ds
    slope, intercept = decimal((high - low) / LEVELS or 1.0), decimal((low + high) / 2)
    return slope, intercept, np.rint((values.astype(np.float64) - float(intercept)) / float(slope)).astype("<i2")


def _image(geometry: VolumeGeometry, index: int, scale: tuple[str, str], pixels: bytes, digest: str) -> Any:
    """One slice as a CT Image; rows run to the patient's left, columns to the back."""
    pydicom = required("pydicom")
    decimal = pydicom.valuerep.format_number_as_ds
    depth, height, width = geometry.voxel_zyx_mm
    first = geometry.origin_xyz_mm + geometry.voxel_xyz_mm * (geometry.shape[2] - 1, geometry.shape[1] - 1, index)
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.update(
        {
            "SOPClassUID": pydicom.uid.CTImageStorage,
            "SOPInstanceUID": _uid(digest, f"slice {index}"),
            "StudyInstanceUID": _uid(digest, "study"),
            "SeriesInstanceUID": _uid(digest, "series"),
            "FrameOfReferenceUID": _uid(digest, "frame of reference"),
            "PatientName": "volrecon^export",
            "PatientID": "volrecon",
            "Modality": "CT",
            "Manufacturer": "volrecon",
            "SeriesDescription": "volrecon export",
            "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
            "SeriesNumber": 1,
            "InstanceNumber": index + 1,
            "ImagesInAcquisition": geometry.shape[0],
            "PatientPosition": "HFS",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [decimal(float(c)) for c in first * LPS_TO_OURS],
            "PixelSpacing": [decimal(height), decimal(width)],
            "SliceThickness": decimal(depth),
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": geometry.shape[1],
            "Columns": geometry.shape[2],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": scale[0],
            "RescaleIntercept": scale[1],
            "RescaleType": "HU",
            **dict.fromkeys(REQUIRED_BUT_UNKNOWN, ""),
        }
    )
    image.add_new("PixelData", "OW", pixels)
    return image


def _uid(*entropy: str) -> Any:
    return required("pydicom").uid.generate_uid(entropy_srcs=list(entropy))
