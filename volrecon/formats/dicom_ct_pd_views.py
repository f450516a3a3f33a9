"""What one DICOM-CT-PD file says of its view; the meaning of the elements is in dicom_ct_pd.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.dicom_files import Pixels, number, quiet, read_header
from volrecon.formats.files import reading

ROWS, COLUMNS, COLUMN_MM, ROW_MM, FORM = 0x70291010, 0x70291011, 0x70291002, 0x70291006, 0x7029100B
PHI, Z, RHO, DISTANCE, CENTRAL = 0x70311001, 0x70311002, 0x70311003, 0x70311031, 0x70311033
D_PHI, D_Z, D_RHO, FOCAL_SPOT, SPECTRUM = 0x7033100B, 0x7033100C, 0x7033100D, 0x7033100E, 0x70331063
LOG_FLAG, WATER = 0x70391009, 0x70411001

ELEMENTS = (
    *("InstanceNumber", "RescaleSlope", "RescaleIntercept", "Manufacturer"),
    *(ROWS, COLUMNS, COLUMN_MM, ROW_MM, FORM, PHI, Z, RHO, DISTANCE, CENTRAL),
    *(D_PHI, D_Z, D_RHO, FOCAL_SPOT, SPECTRUM, LOG_FLAG, WATER),
)


@dataclass(frozen=True)
class Detector:
    """What all views share.

    Attributes:
        shape: pixels (rows, columns).
        size_mm: of a pixel, on the detector, (height, width).
        central: the pixel (row, column) on the ray from the focal centre through the axis, counted from 1.
        distance_mm: from the focal centre to the central pixel.
        form: "FLAT", "CYLINDRICAL" or "SPHERICAL".
        spectrum: number of the spectrum, where there are several.
    """

    shape: tuple[int, int]
    size_mm: tuple[float, float]
    central: tuple[float, float]
    distance_mm: float
    form: str
    spectrum: int

    def offsets_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances (rows,) and (columns,) of the pixels from the central one, along the detector."""
        rows, columns = (
            (np.arange(1, count + 1) - central) * size
            for count, central, size in zip(self.shape, self.central, self.size_mm, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class View:
    """One file.

    Attributes:
        number: its place in the scan.
        focal: (rho, phi, z) of the detector's focal centre, mm and radians.
        shift: what the focal spot adds to them.
        water, focal_spot_mode, maker: what the file says of these, or "".
    """

    pixels: Pixels
    detector: Detector
    number: int
    slope: float
    intercept: float
    focal: tuple[float, float, float]
    shift: tuple[float, float, float]
    water: str
    focal_spot_mode: str
    maker: str

    @property
    def is_turned(self) -> bool:
        """Do the image's rows hold the detector's columns? So they do in the published files; a square is taken so."""
        return self.pixels.shape == self.detector.shape[::-1]

    def values(self) -> np.ndarray:
        """Line integrals (rows, columns) of the detector."""
        stored = self.pixels.frame(0)
        return (stored.T if self.is_turned else stored) * self.slope + self.intercept


def view_of(path: Path) -> View:
    """The view in a file.

    Raises:
        DataError: not DICOM-CT-PD, elements that are missing or cannot be meant, or values that are no line integrals.
    """
    header = read_header(path, ELEMENTS)
    with reading(path), quiet():
        dataset = header.dataset
        if PHI not in dataset:
            raise DataError("holds no DICOM-CT-PD projection: it has no focal centre (7031,1001). Is it an image?")
        if header.pixels.frames != 1:
            raise DataError(f"holds {header.pixels.frames} frames; DICOM-CT-PD is read with one view a file")
        if _text(dataset, LOG_FLAG) == "NO":
            raise DataError("its LogFlag (7039,1009) is NO: its values are not line integrals, so they are not read")
        view = View(
            header.pixels,
            _detector(dataset),
            int(number(dataset, "InstanceNumber")),
            number(dataset, "RescaleSlope"),
            number(dataset, "RescaleIntercept"),
            (_float(dataset, RHO), _float(dataset, PHI), _float(dataset, Z)),
            (_float(dataset, D_RHO, 0.0), _float(dataset, D_PHI, 0.0), _float(dataset, D_Z, 0.0)),
            _text(dataset, WATER),
            _text(dataset, FOCAL_SPOT),
            str(dataset.get("Manufacturer") or "").upper(),
        )
        _check(view)
        return view


def _detector(dataset: Any) -> Detector:
    central_column, central_row = _floats(dataset, CENTRAL, 2)
    return Detector(
        (int(_floats(dataset, ROWS, 1, "<u2")[0]), int(_floats(dataset, COLUMNS, 1, "<u2")[0])),
        (_float(dataset, ROW_MM), _float(dataset, COLUMN_MM)),
        (central_row, central_column),
        _float(dataset, DISTANCE),
        _text(dataset, FORM),
        int(_floats(dataset, SPECTRUM, 1, "<u2")[0]) if SPECTRUM in dataset else 1,
    )


def _check(view: View) -> None:
    detector = view.detector
    if view.pixels.shape not in (detector.shape, detector.shape[::-1]):
        raise DataError(f"has {view.pixels.shape} pixels and a detector of {detector.shape} (rows, columns)")
    if min(*detector.size_mm, detector.distance_mm, view.focal[0]) <= 0 or view.slope == 0:
        raise DataError(
            f"has pixels of {detector.size_mm} mm at {detector.distance_mm} mm from a focal centre, which is at "
            f"{view.focal[0]} mm from the axis, and RescaleSlope {view.slope}; expected lengths above 0, and a slope"
        )


def _float(dataset: Any, tag: int, otherwise: float | None = None) -> float:
    return otherwise if otherwise is not None and tag not in dataset else _floats(dataset, tag, 1)[0]


def _floats(dataset: Any, tag: int, count: int, stored: str = "<f4") -> tuple[float, ...]:
    """The finite numbers of a private element, which many files hold as bytes without a type (`stored`)."""
    name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if tag not in dataset:
        raise DataError(f"has no element {name}, which DICOM-CT-PD needs")
    value = dataset[tag].value
    values = np.frombuffer(value, stored) if isinstance(value, bytes) else np.atleast_1d(np.array(value, np.float64))
    if values.shape != (count,) or not np.isfinite(values).all():
        raise DataError(f"its element {name} is {str(value)[:80]}; expected {count} finite number(s)")
    return tuple(float(v) for v in values)


def _text(dataset: Any, tag: int) -> str:
    value = dataset[tag].value if tag in dataset else ""
    return (value.decode("ascii") if isinstance(value, bytes) else str(value)).strip("\0 ").upper()
