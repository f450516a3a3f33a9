"""Synthetic DICOM-CT-PD scans of a ball and of a Gaussian blob, written with pydicom after the published table.

Where every pixel of the curved or flat detector is comes from the table's definitions; values are exact line integrals.
"""

import numpy as np
import pydicom
from balls import CENTRE, MU, RADIUS
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from volrecon.formats import FORMATS, Hints
from volrecon.phantoms.shapes import ball_line_integral

DICOM = FORMATS["dicom"]
SHAPE, SIZE, CENTRAL = (40, 64), (3.0, 2.5), (31.25, 22.0)  # (rows, columns), mm of both, central (column, row)
RHO, DISTANCE = 200.0, 300.0
SLOPE = 2e-5
BLOB, SIGMA, PEAK = np.array([45.0, 20.0, 25.0]), 12.0, 0.6


def turned(vector, angle):
    """A vector turned counter-clockwise about +z, by one angle or several (angles, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1], 0 * c], axis=-1)


def cylindrical(rho, phi, z):
    return np.array([-rho * np.sin(phi), rho * np.cos(phi), z])


def pixel_places(form, phi, z):
    """Centres of the detector's pixels (rows, columns, 3) in mm, by the definitions of the format."""
    focal, ahead = cylindrical(RHO, phi, z), np.array([np.sin(phi), -np.cos(phi), 0])
    across = (np.arange(1, SHAPE[1] + 1) - CENTRAL[0]) * SIZE[1]
    down = (np.arange(1, SHAPE[0] + 1) - CENTRAL[1]) * SIZE[0]
    if form == "FLAT":
        row = focal + DISTANCE * ahead + across[:, None] * turned(ahead, np.pi / 2)
    else:
        row = focal + DISTANCE * turned(ahead, across / DISTANCE)
    return row - down[:, None, None] * np.array([0, 0, 1])


def of_ball(origin, direction):
    return ball_line_integral(origin, direction, CENTRE, RADIUS, MU)


def of_blob(origin, direction):
    """Line integrals of a Gaussian whose integral through its centre is PEAK."""
    along = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    distance = np.linalg.norm(np.cross(BLOB - origin, along), axis=-1)
    return PEAK * np.exp(-(distance**2) / (2 * SIGMA**2))


def exact(scan, lines):
    """Line integrals (v, angle, u) along the rays of a scan."""
    rays = scan.rays()
    v, u = np.arange(scan.shape[0])[:, None, None, None], np.arange(scan.shape[2])[None, None, :, None]
    return lines(
        *(rays[None, :, None, k] + u * rays[None, :, None, k + 1] + v * rays[None, :, None, k + 2] for k in (0, 3))
    )


def view(index, form, lines, phi, z, shift=(0, 0, 0)):
    """One file; `shift` moves the focal spot in (rho, phi, z)."""
    source = cylindrical(RHO + shift[0], phi + shift[1], z + shift[2])
    values = lines(source, pixel_places(form, phi, z) - source)
    stored = np.round(values / SLOPE).astype("<u2").T
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CTImageStorage, f"1.2.3.{index}", "1.2.3"
    ds.InstanceNumber, ds.RescaleSlope, ds.RescaleIntercept = index, SLOPE, 0
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    for group, name, elements in (
        (0x7029, "DetectorSystemArrangementModule", [(0x10, "US", SHAPE[0]), (0x11, "US", SHAPE[1])]),
        (0x7029, "DetectorSystemArrangementModule", [(0x02, "FL", SIZE[1]), (0x06, "FL", SIZE[0]), (0x0B, "CS", form)]),
        (0x7031, "DetectorDynamicsModule", [(0x01, "FL", phi), (0x02, "FL", z), (0x03, "FL", RHO)]),
        (0x7031, "DetectorDynamicsModule", [(0x31, "FL", DISTANCE), (0x33, "FL", list(CENTRAL))]),
        (0x7033, "SourceDynamicsModule", [(0x0D, "FL", shift[0]), (0x0B, "FL", shift[1]), (0x0C, "FL", shift[2])]),
        (0x7033, "SourceDynamicsModule", [(0x0E, "CS", "FFSXYZ" if any(shift) else "FFSNONE"), (0x63, "US", 1)]),
        (0x7039, "PreprocessingFlagsModule", [(0x09, "CS", "YES")]),
        (0x7041, "WaterAttenuationModule", [(0x01, "DS", "0.0192")]),
    ):
        block = ds.private_block(group, name, create=True)
        for element, kind, value in elements:
            block.add_new(element, kind, value)
    ds.add_new("PixelData", "OW", stored.tobytes())
    return ds


def save(ds, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def save_scan(folder, form, lines, views=8, shift=(0, 0, 0), pitch=0.0):
    """A scan of a turn and a bit, clockwise, every other view with the focal spot moved; names in the wrong order."""
    folder.mkdir()
    for k in range(views):
        ds = view(k + 1, form, lines, 0.3 - 0.9 * k, pitch * k, shift if k % 2 else (0, 0, 0))
        save(ds, folder / f"p{views - k:02d}.dcm")
    return folder


def read(folder, hints=None):
    data = DICOM.read_projections(folder, hints or Hints())
    return data.projections[:], data
