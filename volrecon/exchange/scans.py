"""Projections in outside files as scans of ours, prepared on the way, and scans of ours in outside files."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import ConfigError, DataError, GeometryWarning, ResourceError, VolreconError
from volrecon.formats import (
    FORMATS,
    Counts,
    Hints,
    PixelGrid,
    ProjectionData,
    Sliceable,
    StatedScan,
    format_of,
    geometry_format_of,
    read_geometry,
)
from volrecon.noise import Noise
from volrecon.preprocess import Preparation, Prepared, agreed_counts
from volrecon.store import Scan, ScanHeader, write_scan
from volrecon.store.output import check_outside
from volrecon.store.scans import BadPixels

ROWS_AT_ONCE = 16
LARGEST_LINE_INTEGRAL = 50.0
BRIGHTEST = 2.0
"""Median transmission above which the open beam is wrong."""

SAME_ANGLE = 1e-3
"""Radians within which two angle steps are the same."""

NOTHING = Preparation()


def states_scan(source: Path, hints: Hints) -> bool:
    """Whether a file holds projections together with the geometry they were taken in, and so needs no other file."""
    known = format_of(source)
    if known.read_volume is None or known.read_projections is None:
        return known.read_volume is None
    with contextlib.suppress(VolreconError):
        return known.read_projections(source, hints).stated is not None
    return False


def import_scan(
    source: Path,
    geometry: Path | None,
    out: Path,
    hints: Hints,
    water_per_mm: float = 0.02,
    noise: Noise | None = None,
    bad_pixels: BadPixels = "refuse",
    overwrite: bool = False,
    preparation: Preparation = NOTHING,
    counts: Counts | None = None,
) -> list[str]:
    """Projections in an outside file as `scan.zarr`; one line for everything assumed or replaced.

    Args:
        geometry: a geometry file; None where the projections' own file states the scan.
        preparation: what is done to the values before they are stored.
        counts: flats or white level, and darks, of a file of counts; they replace those that the file itself has.

    Raises:
        DataError: wrong shapes, counts without an open beam, values that are not finite.
        ConfigError: the format has no projections, or the output exists.
    """
    data, stated = _opened(source, geometry, hints)
    _warn_of_other_angles(source, data.angles, stated.scan.angles)
    try:
        prepared = Prepared(data.projections, stated.scan, preparation, agreed_counts(data.counts, counts), bad_pixels)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    _check_line_integrals(source, prepared)
    provenance = {"file": source.name, "geometry": (geometry or source).name}
    header = _header(prepared, ScanHeader(stated.scan, stated.grid, noise or Noise(), water_per_mm, provenance))
    masked = write_scan(out, header, _recorded(prepared, provenance), overwrite, bad_pixels)
    notes = [*data.notes, *stated.notes, *prepared.report.lines]
    return [*notes, f"{masked} pixels masked"] if masked else notes


def _warn_of_other_angles(source: Path, in_file: np.ndarray | None, stated: np.ndarray) -> None:
    """Warn where the geometry's angles are others than those of the projections' own file, whatever zero and sense."""
    if in_file is None or in_file.size < 2:
        return
    steps = np.diff(stated)
    apart = [np.abs(np.angle(np.exp(1j * (steps - sense * np.diff(in_file))))).max() for sense in (1, -1)]
    if not min(apart) < SAME_ANGLE:
        warnings.warn(
            f"{source} has angles of its own, from {np.rad2deg(in_file[0]):.6g} to {np.rad2deg(in_file[-1]):.6g} deg, "
            f"which are not those of the geometry; the geometry's are taken",
            GeometryWarning,
            stacklevel=3,
        )


def preprocess_scan(scan: Scan, out: Path, preparation: Preparation, overwrite: bool = False) -> list[str]:
    """A scan's line integrals prepared further, as a new scan; a line for every step."""
    prepared = Prepared(scan.projections, scan.geometry, preparation, bad_pixels="mask")
    provenance = dict(scan.provenance)
    header = ScanHeader(scan.geometry, scan.grid, scan.noise, scan.water_per_mm, provenance)
    header = _header(prepared, header)
    masked = write_scan(out, header, _recorded(prepared, provenance), overwrite, bad_pixels="mask")
    return [*prepared.report.lines, *([f"{masked} pixels masked"] if masked else [])]


def export_scan(scan: Scan, out: Path, projections: Path | None = None) -> Path:
    """A scan in outside formats, chosen by the suffixes: the geometry, and the line integrals in a file of their own.

    Args:
        out: the geometry file.
        projections: default `out` where its format holds both, <stem>.mha beside RTK's .xml, <stem>.tif beside others.

    Returns:
        Where the projections are.

    Raises:
        ConfigError, GeometryError: a format is read only, or cannot hold this scan.
    """
    geometry = geometry_format_of(out)
    target = projections or (
        out if geometry.name in FORMATS else out.with_suffix(".mha" if geometry.name == "rtk" else ".tif")
    )
    known = format_of(target)
    if geometry.write is None or known.write_projections is None:
        only = out if geometry.write is None else target
        raise ConfigError(f"{only}: scans are not written in this format; choose another suffix")
    if target == out and known.name != geometry.name:
        raise ConfigError(f"{out}: geometry and projections need two names; give --projections another one")
    if projections is None and target != out and target.exists():
        raise ConfigError(f"{target} is there; move it, or name the projections' file with --projections")
    for written in (out, target):
        check_outside(written)
    size_v, size_u = scan.geometry.pixel_vu_mm
    rows, columns = scan.geometry.detector_shape
    pixels = PixelGrid((size_v, size_u), (-(rows - 1) / 2 * size_v, -(columns - 1) / 2 * size_u))
    geometry.write(out, scan.geometry)
    views = _views(scan.projections, target.parent)
    known.write_projections(target, views, scan.geometry.shape, pixels)
    return target


def select_views(scan: Scan, views: np.ndarray, out: Path, overwrite: bool = False) -> None:
    """The views of a scan with these indices, as a new scan."""
    if views.size == 0:
        raise ConfigError("the selection holds no views")
    wrong = views[(views < 0) | (views >= scan.geometry.views)]
    if wrong.size:
        raise ConfigError(f"views {wrong[:5].tolist()} are not in a scan of {scan.geometry.views} views")
    provenance = {**scan.provenance, "selected_views": len(views), "of": scan.geometry.views}
    header = ScanHeader(scan.geometry.select(views), scan.grid, scan.noise, scan.water_per_mm, provenance)
    blocks = (block[:, views] for block in _row_blocks(scan.projections))
    write_scan(out, header, blocks, overwrite, bad_pixels="mask")


def _opened(source: Path, geometry: Path | None, hints: Hints) -> tuple[ProjectionData, StatedScan]:
    """Projections and their geometry, from the same file or from two, of one shape."""
    reader = format_of(source).read_projections
    if reader is None:
        raise ConfigError(f"{source}: the format {format_of(source).name} holds no projections")
    data = reader(source, hints)
    stated = read_geometry(geometry, data.frame) if geometry else data.stated
    if stated is None:
        raise ConfigError(f"{source} does not say where the rays are; give a geometry file (--geometry)")
    shape = tuple(data.projections.shape)
    if shape != stated.scan.shape:
        said = f"{geometry or 'its geometry'} states {stated.scan.shape}"
        raise DataError(f"{source} has projections of shape {shape} (v, angle, u), but {said}")
    return data, stated


def _views(projections: Sliceable, folder: Path) -> Iterator[np.ndarray]:
    """The views (v, u) of projections that are stored by rows, by way of a temporary file of the same size."""
    rows, count, columns = projections.shape
    view_bytes, row_bytes = 4 * rows * columns, 4 * columns
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            first = 0
            for block in _row_blocks(projections):
                for view in range(count):
                    file.seek(view * view_bytes + first * row_bytes)
                    file.write(block[:, view].tobytes())
                first += len(block)
            file.seek(0)
            for _ in range(count):
                yield np.frombuffer(file.read(view_bytes), np.float32).reshape(rows, columns)
    except OSError as error:
        raise ResourceError(f"{folder}: {count * view_bytes} bytes cannot be written there ({error})") from error


def _header(prepared: Prepared, of: ScanHeader) -> ScanHeader:
    """The header of prepared projections; a grid that was stated for all of the detector is left out for a part."""
    whole = prepared.window.shape == of.geometry.detector_shape
    noise = prepared.window.noise(of.noise)
    return replace(of, geometry=prepared.geometry, grid=of.grid if whole else None, noise=noise)


def _recorded(prepared: Prepared, provenance: dict[str, Any]) -> Iterator[np.ndarray]:
    """The blocks of prepared projections; once they are through, `provenance` tells what was done."""
    yield from prepared.blocks()
    report = prepared.report
    if report.lines:
        provenance["preparation"] = [*provenance.get("preparation", []), report.record]
    if report.axis and report.axis.doubts:
        warnings.warn(f"the rotation axis may be wrong: {report.axis.lines[1]}", GeometryWarning, stacklevel=2)


def _row_blocks(projections: Sliceable) -> Iterator[np.ndarray]:
    for start in range(0, projections.shape[0], ROWS_AT_ONCE):
        yield np.asarray(projections[start : start + ROWS_AT_ONCE], dtype=np.float32)


def _check_line_integrals(source: Path, prepared: Prepared) -> None:
    """Refuse what is plainly not a line integral, from the middle row."""
    middle = prepared.shape[0] // 2
    row = prepared[middle : middle + 1].astype(np.float64)
    row = row[np.isfinite(row)]
    if row.size == 0:
        return
    median, low = float(np.median(row)), float(np.percentile(row, 1))
    if median > LARGEST_LINE_INTEGRAL or low < -LARGEST_LINE_INTEGRAL:
        looks = "detector counts" if median > LARGEST_LINE_INTEGRAL else "Hounsfield units"
        raise DataError(
            f"{source}: the middle row has median {median:.4g} and lowest percentile {low:.4g}, which looks like "
            f"{looks}, not line integrals. For -log((counts - dark) / (flat - dark)) give the open beam, --flat FILE "
            f"or --white N, and --dark FILE."
        )
    if prepared.beam and median < -np.log(BRIGHTEST):
        raise DataError(
            f"{source}: half of the middle row is brighter than {np.exp(-median):.3g} times the open beam; check the "
            f"flats or the white level"
        )
