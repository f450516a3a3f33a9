"""What one DICOM slice says of itself: a file of its own, or a frame of a multi-frame file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.dicom_files import Pixels, number, numbers, quiet, read_header
from volrecon.formats.files import reading
from volrecon.formats.mha import LPS_TO_OURS

PROJECTION_TAG = 0x70311001
"""An element that only DICOM-CT-PD has."""

MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
"""Where a multi-frame file says of a frame what other files say of themselves."""

KEYWORDS = (
    "Modality",
    "ImagesInAcquisition",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice as stored. Vectors are DICOM's, (x, y, z) in mm.

    Attributes:
        position: centre of the first pixel.
        along_row, along_column: unit vectors from pixel to pixel in a row (to the next column) and in a column.
        spacing: between rows, between columns.
        thickness: of the slice, None where not stated.
        is_hu: the rescaled values are Hounsfield units.
        padding: stored values from, to, that mean "no value here".
        of_images: how many the acquisition has, as the file says, if it does.
    """

    pixels: Pixels
    frame: int
    position: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    spacing: tuple[float, float]
    thickness: float | None
    slope: float
    intercept: float
    is_hu: bool
    padding: tuple[int, int] | None
    of_images: int | None

    def values(self, air: float) -> np.ndarray:
        """Rescaled values, float32, with axes to the front and to the right."""
        stored = self.pixels.frame(self.frame)
        values = (stored * self.slope + self.intercept).astype(np.float32)
        if self.padding is not None:
            values[(stored >= self.padding[0]) & (stored <= self.padding[1])] = air
        to_row, to_column = (LPS_TO_OURS * v for v in (self.along_column, self.along_row))
        if abs(to_column[1]) > 0.5:
            values, to_row, to_column = values.T, to_column, to_row
        return values[:: int(np.sign(to_row[1])), :: int(np.sign(to_column[0]))]


def slices_of(path: Path) -> list[Slice]:
    """The slices of a file: one, or as many as it has frames."""
    header = read_header(path, (*KEYWORDS, PROJECTION_TAG))
    with reading(path), quiet():
        dataset, pixels = header.dataset, header.pixels
        if PROJECTION_TAG in dataset:
            raise DataError("holds a projection (DICOM-CT-PD), not a slice: import the folder as a scan")
        if "ModalityLUTSequence" in dataset:
            raise DataError("maps its values by a ModalityLUTSequence, which is not read; expected RescaleSlope")
        per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
        if len(per_frame) != pixels.frames and (per_frame or pixels.frames > 1):
            raise DataError(
                f"has {pixels.frames} frames and says where {len(per_frame)} lie (PerFrameFunctionalGroupsSequence)"
            )
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        groups = [[*shared, frame] for frame in per_frame] or [[]]
        return [_slice(dataset, pixels, index, _stated(dataset, group)) for index, group in enumerate(groups)]


def _stated(dataset: Any, groups: list[Any]) -> dict[str, Any]:
    """The elements that hold for a frame: of the file, of all frames, of this one; the last word counts."""
    macros = [item for group in groups for name in MACROS for item in group.get(name) or []]
    return {name: place.get(name) for place in (dataset, *macros) for name in KEYWORDS if name in place}


def _slice(dataset: Any, pixels: Pixels, index: int, stated: dict[str, Any]) -> Slice:
    orientation = np.array(numbers(stated, "ImageOrientationPatient", 6))
    row, column = orientation[:3], orientation[3:]
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], rtol=0, atol=1e-3):
        raise DataError(f"its ImageOrientationPatient is {orientation.tolist()}: not two unit vectors at right angles")
    slope, intercept = (
        number(stated, name) if name in stated else None for name in ("RescaleSlope", "RescaleIntercept")
    )
    if (slope is None) != (intercept is None) or slope == 0:
        raise DataError(f"has RescaleSlope {slope} and RescaleIntercept {intercept}; expected both, the slope not 0")
    of_ct = slope is not None and stated.get("Modality") == "CT"
    between_rows, between_columns = numbers(stated, "PixelSpacing", 2)
    thickness = [name for name in ("SpacingBetweenSlices", "SliceThickness") if stated.get(name)]
    return Slice(
        pixels,
        index,
        np.array(numbers(stated, "ImagePositionPatient", 3)),
        row,
        column,
        (between_rows, between_columns),
        number(stated, thickness[0]) if thickness else None,
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        (stated.get("RescaleType") or ("HU" if of_ct else "")) == "HU",
        _padding(dataset, pixels),
        int(number(dataset, "ImagesInAcquisition")) if dataset.get("ImagesInAcquisition") else None,
    )


def _padding(dataset: Any, pixels: Pixels) -> tuple[int, int] | None:
    if dataset.get("PixelPaddingValue") is None:
        return None
    first = int(number(dataset, "PixelPaddingValue"))
    last = int(number(dataset, "PixelPaddingRangeLimit")) if "PixelPaddingRangeLimit" in dataset else first
    if pixels.dtype.kind == "i":
        # Written as unsigned by some, though the pixels are signed.
        wrap, top = 1 << 8 * pixels.dtype.itemsize, 1 << pixels.bits - 1
        first, last = (value - wrap if value >= top else value for value in (first, last))
    return min(first, last), max(first, last)
