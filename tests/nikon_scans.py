"""Nikon scans written by hand and with tifffile, shared by their tests."""

import numpy as np
import tifffile

from volrecon.formats import FORMATS, GEOMETRIES
from volrecon.geometry import ScanGeometry, cone

NIKON, GEOMETRY = FORMATS["nikon"], GEOMETRIES["nikon"]
VIEWS, ROWS, COLUMNS = 5, 6, 8
COUNTS = np.random.default_rng(3).integers(1, 60_000, (VIEWS, ROWS, COLUMNS)).astype(np.uint16)
LENGTHS = {"source_to_object_mm": 100.0, "source_to_detector_mm": 400.0, "pixel_mm": (0.5, 0.4)}

KEYS = {
    "Name": "part 1",
    "OperatorID": "",
    "InputSeparator": "_",
    "InputFolderName": "",
    "OutputFolderName": "part 1",
    "VoxelsX": 7,
    "VoxelSizeX": 0.1,
    "OffsetX": 0.0,
    "VoxelsY": 7,
    "VoxelSizeY": 0.1,
    "OffsetY": 0.0,
    "VoxelsZ": 4,
    "VoxelSizeZ": 0.2,
    "OffsetZ": -0.3,
    "SrcToObject": 100.0,
    "SrcToDetector": 400.0,
    "MaskRadius": 0.35,
    "DetectorPixelsX": COLUMNS,
    "DetectorPixelSizeX": 0.4,
    "DetectorOffsetX": 0.0,
    "DetectorPixelsY": ROWS,
    "DetectorPixelSizeY": 0.5,
    "DetectorOffsetY": 0.0,
    "RegionStartX": 0,
    "RegionPixelsX": COLUMNS,
    "RegionStartY": 0,
    "RegionPixelsY": ROWS,
    "Units": "mm",
    "Projections": VIEWS,
    "InitialAngle": 10.0,
    "AngularStep": 70.0,
    "WhiteLevel": 60000,
    "CoefX4": 0.0,
    "CoefX1": 1.0,
    "BeamHardeningLUTFile": "",
}
DEGREES = 10.0 + 70.0 * np.arange(VIEWS)
TAIL = "[Xrays]\nXraykV=70\n[CTPro]\nProduct=Product:[CT Pro], 100% =\n[DICOM]\nDICOMTags=<?xml version='1.0'?>\n"


def text(**keys) -> str:
    """An .xtekct of an older Inspect-X with these keys changed; None drops one."""
    lines = [f"{key}={value}" for key, value in {**KEYS, **keys}.items() if value is not None]
    return "\r\n".join(["[XTekCT]", *lines, TAIL])


def save(folder, images=COUNTS, start="part 1_", **keys):
    for number, image in enumerate(images, start=1):
        tifffile.imwrite(folder / f"{start}{number:04d}.tif", image, photometric="minisblack")
    path = folder / "part.xtekct"
    path.write_bytes(text(**keys).encode("latin-1"))
    return path


def state(folder, frame=None, **keys):
    path = folder / "part.xtekct"
    path.write_text(text(**keys))
    return GEOMETRY.read(path, frame)


def as_nikon(shape=(ROWS, COLUMNS), degrees=DEGREES, shift=0.0, offset_vu=(0.0, 0.0)) -> ScanGeometry:
    """The scan of `text()`: a detector rolled by half a turn, the source at +y at 0 degrees."""
    return cone(
        **LENGTHS,
        detector_shape=shape,
        angles=np.deg2rad(degrees - 180),
        axis_shift_mm=-shift,
        detector_offset_mm=(offset_vu[0], -offset_vu[1]),
        tilt=(np.pi, 0.0, 0.0),
    )


def check_same(scan, expected, tolerance=1e-9):
    assert (scan.beam, scan.detector_shape) == (expected.beam, expected.detector_shape)
    np.testing.assert_allclose(scan.vectors, expected.vectors, rtol=0, atol=tolerance)


def pixels_of(scan, points) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (views, points) on which world points (points, 3) fall."""
    forms = scan.pixel_forms() @ np.concatenate([points, np.ones((len(points), 1))], axis=1).T
    return forms[:, 1] / forms[:, 3], forms[:, 0] / forms[:, 2]


REGION = {"RegionStartX": 3, "RegionPixelsX": 4, "RegionStartY": 1, "RegionPixelsY": 3}


MEASURED = np.array([0.03, 70.2, 139.9, 210.1, 280.0, 350.2])


def ctdata(angles=MEASURED, views=VIEWS) -> str:
    rows = [f"{number}\t{angle:08.4f}\t  {number / 3:.4f}" for number, angle in enumerate(angles, start=1)]
    return "\r\n".join(
        ["Projections\tFrames\tExposure(ms)", f"{views}\t1\t708.00", "Projection\tAngle(deg)\tTime(s)", *rows]
    )


def ang(angles=MEASURED, separator=":\t") -> str:
    return "\n".join(["Proj\tAngle(deg)", *(f"{n}{separator}{-angle}" for n, angle in enumerate(angles, start=1)), ""])
