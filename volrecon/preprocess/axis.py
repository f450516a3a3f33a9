"""Finding the column of the detector on which the rotation axis lies, and how sure that is."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from volrecon.errors import DataError, GeometryError
from volrecon.formats import Sliceable
from volrecon.geometry import ScanGeometry
from volrecon.preprocess.middle_plane import HINT, Plane, axis_column, plane_of
from volrecon.preprocess.opposite_rays import BLOCKS, Mismatch, OppositeRays
from volrecon.preprocess.sharpness import Sharpness
from volrecon.preprocess.window import Window

MARGIN = 0.1
"""Part of the detector's width at either end where no axis is looked for."""

NARROWEST = 16
COARSE_COLUMNS, FINE_COLUMNS = 256, 1024
COARSE_VIEWS, FINE_VIEWS = 45, 90

SMALLEST_ERROR_PX = 0.05
"""What interpolation and the detector's stripes do to the noise-free scans of the tests, whatever the rays say."""

UNSURE_PX, UNSURE_MISMATCH, RIVAL, DISAGREEING_PX = 0.5, 0.4, 0.3, 2.0
"""Beyond these there is doubt: error in pixels, lowest coarse mismatch, how near to the lowest another minimum may come
(as a part of its depth), and pixels between the two searches. Pure noise gives 0.44 to 0.9 and 0 to 0.5 for the second
and third, measured scans 0.1 to 0.26 and 0.35 to 0.9.
"""


@dataclass(frozen=True)
class AxisEstimate:
    """Where the rotation axis is seen.

    Attributes:
        column: of the detector, in pixels from the centre of pixel 0.
        error: one standard error of it, from groups of rays left out in turn and from views that are far apart.
        stated: the column on which the scan's geometry has the axis.
        width: columns of the detector.
        pixel_mm: a column's width seen at the axis.
        mismatch: part of the edges in which opposite rays differ with the axis there; noise differs too.
        sharpest: the column that makes the sharpest picture, or None where there is no clear one.
        doubts: why the estimate may be wrong; empty when nothing speaks against it.
    """

    column: float
    error: float
    stated: float
    width: int
    pixel_mm: float
    mismatch: float
    sharpest: float | None
    doubts: tuple[str, ...]

    def seen_through(self, window: Window, width: int) -> "AxisEstimate":
        """The same estimate in pixels of the detector of `width` columns that `window` is part of."""
        factor = window.bin_vu[1]
        return replace(
            self,
            column=window.to_detector(self.column),
            error=self.error * factor,
            stated=window.to_detector(self.stated),
            width=width,
            pixel_mm=self.pixel_mm / factor,
            sharpest=None if self.sharpest is None else window.to_detector(self.sharpest),
        )

    @property
    def lines(self) -> tuple[str, str]:
        """What a user wants to know."""
        moved = self.column - self.stated
        sharpest = "" if self.sharpest is None else f", the sharpest picture has it at {self.sharpest:.2f}"
        verdict = f"NOT SURE: {'; '.join(self.doubts)}" if self.doubts else "nothing speaks against it"
        return (
            f"rotation axis at column {self.column:.2f} +- {self.error:.2f}; the geometry has it at {self.stated:.2f} "
            f"(middle of the detector {(self.width - 1) / 2:g}): {moved:+.2f} pixels, {moved * self.pixel_mm:+.4g} mm "
            f"at the axis",
            f"there opposite rays differ in {self.mismatch:.1%} of their edges{sharpest}; {verdict}",
        )

    @property
    def record(self) -> dict[str, Any]:
        """Plain JSON numbers."""
        return {
            "column": round(self.column, 4),
            "error_px": round(self.error, 4),
            "stated_column": round(self.stated, 4),
            "mismatch": round(self.mismatch, 5),
            "doubts": list(self.doubts),
        }


def find_axis(projections: Sliceable, scan: ScanGeometry) -> AxisEstimate:
    """The column of the rotation axis, from how well opposite rays agree.

    Args:
        projections: line integrals (v, angle, u); at most 17 rows of them are read.
        scan: a circular scan of half a turn or more whose axis is roughly upright.

    Raises:
        GeometryError: inclined rays, a helix, no circle, less than half a turn: no rays are opposite.
        DataError: no row has a value in every view.
    """
    plane = plane_of(projections, scan)
    _check_arc(plane.scan)
    width = scan.detector_shape[1]
    pixels = -(-width // COARSE_COLUMNS)
    candidates = np.arange(MARGIN * width, (1 - MARGIN) * width, pixels)
    coarse = OppositeRays(plane, pixels, COARSE_VIEWS).mismatch(candidates)
    if not coarse.edges.any():
        raise DataError("opposite rays show no edges: there is nothing to find the rotation axis from")
    near, fine, moved_px = _narrowed(plane, float(candidates[coarse.curve().argmin()]), float(pixels))
    column = lowest(near, fine.curve())
    without = np.array([lowest(near, fine.curve(group)) for group in range(BLOCKS)])
    error = float(np.linalg.norm([np.sqrt((BLOCKS - 1) * without.var()), moved_px, SMALLEST_ERROR_PX]))
    mismatch = float(fine.ratio[fine.curve().argmin()])
    sharpest = _sharpest(plane, column)
    doubts = _unclear(candidates, coarse.curve(), column)
    if error > UNSURE_PX:
        doubts.append(f"its error is {error:.2g} pixels")
    if sharpest is not None and abs(sharpest - column) > max(3 * error, DISAGREEING_PX * pixels):
        doubts.append("opposite rays and sharpness disagree")
    pixel_mm = scan.pixel_vu_mm[1] / scan.magnification
    stated = axis_column(plane.scan)
    return AxisEstimate(column, error, stated, width, pixel_mm, mismatch, sharpest, tuple(doubts))


def lowest(candidates: np.ndarray, curve: np.ndarray) -> float:
    """Where a parabola through the lowest point of a curve and three neighbours on either side has its minimum."""
    at = int(curve.argmin())
    near = slice(max(0, at - 3), at + 4)
    x = candidates[near] - candidates[at]
    bend, slope, _ = np.polyfit(x, curve[near], 2)
    if bend <= 0:
        return float(candidates[at])
    return float(candidates[at] + np.clip(-slope / (2 * bend), x.min(), x.max()))


def _narrowed(plane: Plane, best: float, step: float) -> tuple[np.ndarray, Mismatch, float]:
    """Candidates around the lowest one in ever smaller steps, down to a quarter of a pixel, their mismatch, and how
    far interpolation may move its minimum.
    """
    pixel = -(-plane.scan.shape[2] // FINE_COLUMNS)
    rays = OppositeRays(plane, pixel, FINE_VIEWS)
    while True:
        step /= 4
        near = best + step * np.arange(-6, 7)
        mismatch = rays.mismatch(near)
        if step <= 0.25 * pixel:
            return near, mismatch, rays.interpolation_px(best)
        best = float(near[mismatch.curve().argmin()])


def _check_arc(scan: ScanGeometry) -> None:
    """Refuse scans (of ascending angles) that do not see every line, and detectors too narrow to slide along."""
    angles = np.unwrap(scan.angles)
    arc = float(angles[-1] - angles[0])
    step = float(np.median(np.diff(angles))) if len(angles) > 1 else 0.0
    if arc + 1.5 * step < np.pi:
        raise GeometryError(
            f"{HINT}: {len(angles)} views over {np.rad2deg(arc):.4g} deg; rays have opposite ones from half a turn on, "
            f"less one view at most"
        )
    if scan.shape[2] < NARROWEST:
        raise GeometryError(f"{HINT}: the detector has {scan.shape[2]} columns, {NARROWEST} are needed")


def _sharpest(plane: Plane, column: float) -> float | None:
    """Where pictures are sharpest near a column, or None if they cannot tell."""
    pictures = Sharpness(plane, column)
    if not pictures.telling:
        return None
    candidates = column + pictures.pixel * np.arange(-8.0, 9.0, 2.0)
    blur = pictures.blur(candidates)
    return None if blur.argmin() in (0, len(blur) - 1) else lowest(candidates, blur)


def _unclear(candidates: np.ndarray, curve: np.ndarray, column: float) -> list[str]:
    """Why the lowest point of the coarse curve may not be the right one."""
    at = int(np.abs(candidates - column).argmin())
    if at in (0, len(curve) - 1):
        return ["it lies at the end of the columns looked at"]
    doubts = []
    if curve[at] > UNSURE_MISMATCH:
        doubts.append("opposite rays have little in common: noise, movement, wrong angles or a wrong sense of rotation")
    depth = float(np.median(curve) - curve.min())
    away = np.abs(np.arange(len(curve)) - at) > 8
    minima = np.flatnonzero(away[1:-1] & (curve[1:-1] <= curve[:-2]) & (curve[1:-1] <= curve[2:])) + 1
    rivals = minima[curve[minima] < curve.min() + RIVAL * depth]
    doubts += [f"column {candidates[k]:.0f} is almost as good" for k in rivals[np.argsort(curve[rivals])][:1]]
    return doubts
