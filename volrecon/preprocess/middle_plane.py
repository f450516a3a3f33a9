"""Scans seen in a plane across the rotation axis: there every ray has an opposite one."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from volrecon.errors import DataError, GeometryError
from volrecon.formats import Sliceable
from volrecon.geometry import ScanGeometry
from volrecon.preprocess.gaps import interpolated

MOST_ROWS = 16
MOST_VIEWS = 720
HINT = "the axis cannot be found, state its column instead"
INCLINED = np.deg2rad(0.5)
STRIPE_PX = 3.0
"""Deviation of the Gaussian that stripes are narrower than."""

WOBBLE_PX = 3.0
"""Deviation from a circle, seen on the detector, up to which a scan counts as circular."""


@dataclass(frozen=True)
class Plane:
    """Sinograms of a circular scan.

    Attributes:
        sinograms: (rows, views, u), float32, finite; angles ascend, none twice.
        scan: their geometry in the plane z = 0, one row.
    """

    sinograms: np.ndarray
    scan: ScanGeometry


def axis_column(scan: ScanGeometry) -> float:
    """The column on which views see the axis, on average: at the height of a cone's source, else in the middle row."""
    forms = scan.pixel_forms()
    middle = (scan.detector_shape[0] - 1) / 2
    if scan.beam == "cone":
        z = scan.source[:, 2]
    else:  # of the point (0, 0, z) the row is f[1] X / f[3] X
        z = (middle * forms[:, 3, 3] - forms[:, 1, 3]) / (forms[:, 1, 2] - middle * forms[:, 3, 2])
    columns = (forms[:, 0, 2] * z + forms[:, 0, 3]) / (forms[:, 2, 2] * z + forms[:, 2, 3])
    return float(columns.mean())


def moved_axis(scan: ScanGeometry, column: float) -> ScanGeometry:
    """The scan whose detector lies along u so that `axis_column` is `column`."""
    vectors = scan.vectors.copy()
    vectors[:, 3:6] += (axis_column(scan) - column) * scan.u
    return ScanGeometry(scan.beam, scan.detector_shape, vectors)


def check_circular(scan: ScanGeometry) -> None:
    """Refuse scans whose axis cannot be found: inclined rays, a helix, a source that is not on a circle.

    Raises:
        GeometryError: what is in the way, with the number.
    """
    pixel_v, pixel_u = scan.pixel_vu_mm
    if scan.beam == "parallel":
        inclined = float(np.abs(np.arctan2(scan.source[:, 2], np.hypot(scan.source[:, 0], scan.source[:, 1]))).max())
        if inclined > INCLINED:
            raise GeometryError(f"{HINT}: the rays are inclined by {np.rad2deg(inclined):.3g} deg and have no opposite")
    else:
        rise = float(np.ptp(scan.source[:, 2]))
        if rise > pixel_v / scan.magnification:
            raise GeometryError(f"{HINT}: the source rises by {rise:.4g} mm, and a helix has no opposite rays")
    local = _turned_back(scan)
    deviation = float(np.abs(local - np.median(local, axis=0)).max()) / pixel_u
    if deviation > WOBBLE_PX:
        raise GeometryError(f"{HINT}: source or detector leave their circle by {deviation:.3g} pixels")
    tilt = float(np.abs(scan.u[:, 2]).max()) / pixel_u
    if tilt > 0.2:
        raise GeometryError(f"{HINT}: the detector's rows lean by {np.rad2deg(np.arcsin(tilt)):.3g} deg")


def plane_of(projections: Sliceable, scan: ScanGeometry) -> Plane:
    """The sinograms from which an axis can be found, at most 16 rows and 720 views.

    Rows of a parallel beam or a stack of fans are planes of their own. Of a cone beam only the one at the source's
    height is; the rows next to it stay within one pixel of it inside the object and are taken too.
    """
    check_circular(scan)
    order = _views(scan)
    flat = _flattened(scan.select(order))
    rows = _evenly(scan.detector_shape[0]) if scan.beam != "cone" else _near_plane(scan)
    sinograms = []
    for row in rows:
        below = np.floor(row).astype(int)
        first, last = int(below.min()), int(below.max()) + 1
        block = np.asarray(projections[first : last + 1], dtype=np.float32)[:, order]
        top = np.minimum(below - first + 1, len(block) - 1)
        columns = np.arange(block.shape[2])
        part = (row - below).astype(np.float32)
        values = block[below - first, :, columns].T * (1 - part) + block[top, :, columns].T * part
        filled = interpolated(np.where(np.isfinite(values), values, np.nan))
        if np.isfinite(filled).all():
            sinograms.append(filled)
    if not sinograms:
        raise DataError(f"none of the {len(rows)} rows looked at has a value in every view")
    return Plane(np.stack(sinograms), flat)


def without_stripes(sinograms: np.ndarray) -> np.ndarray:
    """Sinograms (rows, views, u) without the stripes that a detector adds to every view alike.

    What is fine along u and has the same sign in the means of all quarters of the views is a stripe, as high as the
    lowest of them: edges of the object move on.
    """
    fine = sinograms - gaussian_filter1d(sinograms, STRIPE_PX, axis=2, mode="nearest")
    quarters = np.array_split(fine, min(4, fine.shape[1]), axis=1)
    means = np.stack([quarter.mean(axis=1, keepdims=True) for quarter in quarters])
    alike = np.abs(np.sign(means).sum(axis=0)) == len(means)
    stripes = np.where(alike, np.sign(means[0]) * np.abs(means).min(axis=0), 0)
    without: np.ndarray = sinograms - stripes
    return without


def _turned_back(scan: ScanGeometry) -> np.ndarray:
    """Source and first and last pixel of every view's middle row, turned back by its gantry angle; (views, 9)."""
    angles = scan.angles
    c, s = np.cos(angles), np.sin(angles)
    half = (scan.detector_shape[1] - 1) / 2 * scan.u
    points = [scan.detector - half, scan.detector + half]
    if scan.beam != "parallel":
        points.append(scan.source)
    turned = [np.stack([c * p[:, 0] + s * p[:, 1], c * p[:, 1] - s * p[:, 0], p[:, 2]], axis=1) for p in points]
    if scan.beam == "parallel":  # where the detector stands along the ray does not matter
        turned = [t[:, [0, 2]] for t in turned]
    return np.concatenate(turned, axis=1)


def _views(scan: ScanGeometry) -> np.ndarray:
    """Indices of at most 720 views in the order of their angles, starting behind the largest gap."""
    angles = scan.angles
    order = np.argsort(angles, kind="stable")
    turned = angles[order]
    gaps = np.diff(np.append(turned, turned[0] + 2 * np.pi))
    kept = gaps > 1e-6
    order, gaps = order[kept], gaps[kept]
    order = np.roll(order, -(int(gaps.argmax()) + 1))
    if len(order) > MOST_VIEWS:
        order = order[np.unique(np.linspace(0, len(order) - 1, MOST_VIEWS).round().astype(int))]
    return order


def _evenly(count: int) -> list[np.ndarray]:
    """Up to 16 whole rows, evenly over the detector's height."""
    step = count / min(count, MOST_ROWS)
    return [np.array([int((k + 0.5) * step)]) for k in range(min(count, MOST_ROWS))]


def _near_plane(scan: ScanGeometry) -> list[np.ndarray]:
    """The row of each column that a cone beam's plane at the source's height falls on, and rows beside it."""
    rays = scan.rays()
    rows, columns = scan.detector_shape
    slope, height = np.median(rays[:, 4, 2] / rays[:, 5, 2]), np.median(rays[:, 3, 2] / rays[:, 5, 2])
    middle = -(height + np.arange(columns) * slope)
    if middle.min() < 0 or middle.max() > rows - 1:
        raise GeometryError(
            f"{HINT}: the plane at the source's height, where rays have opposite ones, falls on row "
            f"{middle.mean():.4g} of {rows}"
        )
    direction = rays[0, 3] + np.outer([0, columns - 1], rays[0, 4])
    across = scan.source[0, 0] * direction[:, 1] - scan.source[0, 1] * direction[:, 0]
    sine = float(np.abs(across / np.linalg.norm(direction, axis=1)).max() / scan.source_to_object_mm[0])
    beside = min(MOST_ROWS // 2, int(1 / max(sine, 1e-3)))
    moved = (middle + offset for offset in range(-beside, beside + 1))
    return [row for row in moved if row.min() >= 0 and row.max() <= rows - 1]


def _flattened(scan: ScanGeometry) -> ScanGeometry:
    """One row of a scan, in the plane z = 0; of a cone beam the trace of the plane at the source's height."""
    rays = scan.rays()
    middle = (scan.detector_shape[0] - 1) / 2
    if scan.beam == "parallel":
        source, first, step = rays[:, 3], rays[:, 0] + middle * rays[:, 2], rays[:, 1]
    else:
        source, first, step = rays[:, 0], rays[:, 3], rays[:, 4]
        if scan.beam == "cone":
            first, step = (part - part[:, 2:] / rays[:, 5, 2:] * rays[:, 5] for part in (first, step))
        first = first + source
    centre = first + (scan.detector_shape[1] - 1) / 2 * step
    up = np.broadcast_to([0.0, 0.0, scan.pixel_vu_mm[0]], centre.shape)
    vectors = np.concatenate([source, centre, step, up], axis=1)
    vectors[:, [2, 5, 8]] = 0
    return ScanGeometry("parallel" if scan.beam == "parallel" else "fan", (1, scan.detector_shape[1]), vectors)
