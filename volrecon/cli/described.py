"""What `info` hands from those who look at a file to those who print and draw."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volrecon.errors import GeometryError
from volrecon.formats import Hints
from volrecon.geometry import ScanGeometry, VolumeGeometry, coverage, suggest_grid


@dataclass(frozen=True)
class Asked:
    """What the caller knows of the file: hints, the geometry that goes with it, whether it may be incomplete."""

    hints: Hints
    geometry: Path | None = None
    partial: bool = False


@dataclass(frozen=True)
class Described:
    """What there is to say, found out as it is asked for, and what writes the picture, if there is one."""

    lines: Iterable[str]
    draw: Callable[[Path], None] | None = None


def rounded(lengths_mm: Sequence[float]) -> tuple[float, ...]:
    """Lengths as people read them, to a nanometre."""
    return tuple(round(float(length), 6) for length in lengths_mm)


def scan_lines(scan: ScanGeometry, grid: VolumeGeometry | None) -> Iterator[str]:
    """Beam, detector, angles, distances, and what is seen of the stated or suggested grid."""
    angles = np.rad2deg(scan.angles)
    pixel = rounded(scan.pixel_vu_mm)
    yield f"{scan.beam} beam, {scan.views} views, detector {scan.detector_shape} (v, u) of {pixel} mm"
    yield f"first angle {angles[0]:.4g} deg, last {angles[-1]:.4g} deg, source counter-clockwise from -y about +z"
    if scan.beam != "parallel":
        sod, sdd = scan.source_to_object_mm[0], scan.source_to_detector_mm[0]
        yield f"source to object {sod:g} mm, to detector {sdd:g} mm, magnification {scan.magnification:.4g}"
    volume = grid or suggest_grid(scan)
    yield f"{'stated' if grid else 'suggested'} grid {volume.shape} of {rounded(volume.voxel_zyx_mm)} mm (z, y, x)"
    try:
        seen = coverage(volume, scan)
    except GeometryError as error:
        yield f"no reconstruction: {error}"
    else:
        yield f"of it {seen.unseen:.1%} is seen by no view, {seen.truncated_u:.1%} falls beside the detector"


def value_range(values: np.ndarray) -> str:
    """Lowest, highest and median of the finite values, and how many are not finite."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "no finite value"
    bad = f", {values.size - finite.size} not finite" if finite.size < values.size else ""
    return f"{finite.min():.4g} to {finite.max():.4g}, median {np.median(finite):.4g}{bad}"


def picture_title(path: Path, scan: ScanGeometry | None = None) -> str:
    """The file's name, and a scan in short."""
    about = f": {scan.beam} beam, {scan.views} views, detector {scan.detector_shape} (v, u)" if scan else ""
    return f"{path.absolute().name[:60]}{about}"
