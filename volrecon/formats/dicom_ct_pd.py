"""DICOM-CT-PD: projections of a medical scanner, one file a view, the geometry in private elements.

Elements are those of the published table (doi 10.1002/mp.14594, Table IV). Of a view with focal centre (rho, phi, z):

    focal centre  (-rho sin phi, rho cos phi, z); the source is at (rho + d rho, phi + d phi, z + d z)
    columns       counted from 1, turn counter-clockwise about +z as seen from the focal centre; rows run towards -z
    central pixel at the constant radial distance, on the ray from the focal centre through the axis

helix2fan, ODL and PyTomography read the directions so, too. The files' world is ours, taken as right-handed: no
projection tells it from its mirror image. No scanner's file was at hand: the tests write theirs after the table.
"""

import itertools
from pathlib import Path

import numpy as np

from volrecon.errors import DataError
from volrecon.formats.base import Hints, PixelGrid, ProjectionData, SlicedArray, StatedScan
from volrecon.formats.curved_detector import CurvedDetector
from volrecon.formats.dicom_ct_pd_views import Detector, View, view_of
from volrecon.formats.dicom_files import series_files
from volrecon.formats.files import reading
from volrecon.geometry import ScanGeometry

MOST_VIEWS = 100_000


def read_projections(path: Path, hints: Hints) -> ProjectionData:
    """The views of one series in a folder, sorted by InstanceNumber, with their geometry; a cylinder is made flat.

    `hints.key` is the UID or the description of the series, where a folder holds several. Every slab opens every file.

    Raises:
        DataError: views with elements missing, doubled, of different detectors, or of a spherical detector.
    """
    with reading(path):
        files, said = series_files(path, hints.key, MOST_VIEWS)
        views = sorted((view_of(file) for file in files), key=lambda view: view.number)
        _check_one_scan(views)
        detector, places = views[0].detector, Places(views)
        curved = _curved(detector)
        w, u = detector.offsets_mm()
        if curved is not None:
            u, w = curved.flat_grid(places.sources)

        def read(start: int, stop: int) -> np.ndarray:
            slab = np.empty((stop - start, len(views), len(u)), np.float32)
            for k, view in enumerate(views):
                values = view.values()
                if curved is None:
                    slab[:, k] = values[start:stop]
                else:
                    slab[:, k] = curved.flattened(values, places.sources[k], u, w[start:stop])
            return slab

        scan = places.scan(detector, u, w)
        projections = SlicedArray(path, scan.shape, np.dtype(np.float32), read)
        stated = StatedScan(scan, None, _geometry_notes(views, places))
        notes = _notes(said, views, (len(w), len(u)))
        return ProjectionData(projections, scan.angles, notes, pixels=PixelGrid(scan.pixel_vu_mm), stated=stated)


class Places:
    """Where the scanner is, view by view, all (views, 3) in mm.

    Attributes:
        centre, spot: focal centres and focal spots in the world, (x, y, z).
        u, ahead, w: unit vectors of the detector, from column to column, from the focal centre on, from row to row.
        sources: focal spots as seen from the focal centres, (u, ahead, w).
    """

    def __init__(self, views: list[View]) -> None:
        focal, shift = np.array([view.focal for view in views]).T, np.array([view.shift for view in views]).T
        phi, zero = focal[1], np.zeros(len(views))
        self.centre, self.spot = _cartesian(focal), _cartesian(focal + shift)
        self.u = np.stack([np.cos(phi), np.sin(phi), zero], axis=1)
        self.ahead = np.stack([np.sin(phi), -np.cos(phi), zero], axis=1)
        self.w = np.stack([zero, zero, zero - 1], axis=1)
        moved = self.spot - self.centre
        self.sources = np.stack([(moved * axis).sum(1) for axis in (self.u, self.ahead, self.w)], axis=1)

    def scan(self, detector: Detector, u: np.ndarray, w: np.ndarray) -> ScanGeometry:
        """The scan of flat pixels `u` and `w` mm from the central one."""
        middle = self.centre + detector.distance_mm * self.ahead + u.mean() * self.u + w.mean() * self.w
        height, width = detector.size_mm
        vectors = np.concatenate([self.spot, middle, width * self.u, height * self.w], axis=1)
        return ScanGeometry("cone", (len(w), len(u)), vectors)


def _cartesian(cylindrical: np.ndarray) -> np.ndarray:
    rho, phi, z = cylindrical
    return np.stack([-rho * np.sin(phi), rho * np.cos(phi), z], axis=1)


def _check_one_scan(views: list[View]) -> None:
    for before, view in itertools.pairwise(views):
        names = f"{before.pixels.path.name} and {view.pixels.path.name}"
        if view.number == before.number:
            raise DataError(f"{names} both are InstanceNumber {view.number}")
        if (view.detector, view.pixels.shape) != (before.detector, before.pixels.shape):
            raise DataError(
                f"{names} have different detectors or spectra: {before.detector} and {view.detector}. Put the views of "
                f"one into a folder of their own"
            )


def _curved(detector: Detector) -> CurvedDetector | None:
    """The detector if it is a cylinder, None if it is flat."""
    if detector.form == "FLAT":
        return None
    if detector.form != "CYLINDRICAL":
        raise DataError(f"has a {detector.form} detector; only FLAT and CYLINDRICAL ones are read: resample it first")
    heights, arcs = detector.offsets_mm()
    return CurvedDetector(detector.distance_mm, arcs / detector.distance_mm, heights, detector.size_mm[0])


def _notes(said: str, views: list[View], flat: tuple[int, int]) -> tuple[str, ...]:
    first, last = views[0], views[-1]
    gaps = last.number - first.number + 1 - len(views)
    missing = f", {gaps} numbers missing between them" if gaps else ""
    order = "(columns, rows)" if first.is_turned else "(rows, columns)"
    notes = [
        f"{said}, a view a file, InstanceNumber {first.number} to {last.number}{missing}",
        f"images are {order} of the detector; RescaleSlope and RescaleIntercept give line integrals",
    ]
    if first.detector.form == "CYLINDRICAL":
        notes.append(
            f"cylindrical detector {first.detector.shape} (v, u) resampled linearly to a flat one {flat} of the same "
            f"pixels ahead; what it saw above and below that towards its sides is dropped"
        )
    if first.water:
        notes.append(f"the files say {first.water[:20]!r} of water's attenuation: if in 1/mm, give it as water_per_mm")
    return tuple(notes)


def _geometry_notes(views: list[View], places: Places) -> tuple[str, ...]:
    turn = np.sin(views[min(1, len(views) - 1)].focal[1] - views[0].focal[1])
    sense = "counter-clockwise about +z" if turn > 0 else "clockwise about +z" if turn < 0 else "not turning"
    notes = [
        f"focal centre at (-rho sin phi, rho cos phi, z), phi in radians from +y, {sense}, z "
        f"{views[0].focal[2]:g} to {views[-1].focal[2]:g} mm; columns turn counter-clockwise, rows run towards -z, the "
        f"central pixel counts from 1",
        "right-handed axes assumed: compare with the scanner's own images, the volume may be their mirror image",
    ]
    moved = float(np.abs(places.sources).max())
    if moved > 0:
        mode = views[0].focal_spot_mode or "no mode stated"
        notes.append(f"flying focal spot ({mode[:20]!r}): sources moved by up to {moved:.3g} mm")
    if views[0].maker.startswith("GE"):
        notes.append(
            "files of GE are said to count the central column from the other side and from 0, here it is taken as "
            "stated: if edges are doubled, look there"
        )
    return tuple(notes)
