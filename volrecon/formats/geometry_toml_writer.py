"""A scan as geometry.toml: by distances and angles where they give the same rays again, else by its vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from pydantic import ValidationError

from volrecon.errors import GeometryError
from volrecon.formats.files import replacing
from volrecon.formats.number_files import write_vectors
from volrecon.formats.scan_tables import Cone, Fan, Helical, Parallel, Stated
from volrecon.geometry import ScanGeometry

SAME = 1e-9
"""Relative difference of vectors up to which distances and angles stand for them."""

MOST_LISTED = 20_000
"""Angles in the file itself; a geometry.toml may have 1 MB."""

Tables = dict[str, Any]
UP = np.array([0.0, 0.0, 1.0])
MODELS: dict[str, type[Stated]] = {"cone": Cone, "fan": Fan, "parallel": Parallel, "helical": Helical}


def write(path: Path, scan: ScanGeometry) -> None:
    """`path`, and `<stem>.vectors.txt` beside it where the scan is none of cone, fan, parallel or helix untilted."""
    tables = next((t for t in _readable(scan) if _gives(t, scan, path.parent)), None)
    if tables is None:
        vectors = path.with_name(f"{path.stem}.vectors.txt")
        write_vectors(vectors, scan.vectors)
        tables = {"beam": scan.beam, "detector": _pixels(scan), "vectors": {"file": vectors.name}}
    with replacing(path) as partial:
        partial.write_text(f"# Lengths in mm; pairs are (v, u).\n{tomli_w.dumps(tables)}", encoding="utf-8")


def _gives(tables: Tables, scan: ScanGeometry, folder: Path) -> bool:
    """Whether the reader's own models make the scan's vectors out of these tables."""
    try:
        table = MODELS[tables["beam"]].model_validate(tables)
        again = table.scan(table.angles.gantry(folder, None, table.most_turns))
    except (ValidationError, GeometryError):
        return False
    reach = np.full(scan.views, _reach(scan))
    sizes = np.stack([reach, reach, np.linalg.norm(scan.u, axis=1), np.linalg.norm(scan.v, axis=1)], axis=1)
    difference = np.linalg.norm((again.vectors - scan.vectors).reshape(-1, 4, 3), axis=2)
    return bool((difference <= SAME * sizes).all())


def _readable(scan: ScanGeometry) -> Iterator[Tables]:
    """Tables that would state the scan if its source moved on a circle or helix and its detector stood upright."""
    turns = np.unwrap(np.arctan2(scan.u[:, 1], scan.u[:, 0]))
    tables = _beam_tables(scan, turns)
    for angles in _angle_tables(np.degrees(turns)):
        yield {**tables, "angles": angles}


def _beam_tables(scan: ScanGeometry, turns: np.ndarray) -> Tables:
    """Beam, distances and detector, from means over the views; `turns` (views,) are gantry angles in radians."""
    tangent = np.stack([np.cos(turns), np.sin(turns), np.zeros_like(turns)], axis=1)
    radial = np.stack([np.sin(turns), -np.cos(turns), np.zeros_like(turns)], axis=1)
    reach = _reach(scan)

    def along(vectors: np.ndarray, axis: np.ndarray) -> float:
        return _neat(float((vectors * axis).sum(1).mean()), reach)

    detector: Tables = {**_pixels(scan), "pixel_mm": [_neat(size) for size in scan.pixel_vu_mm]}
    if scan.beam == "parallel":
        detector["offset_mm"] = [along(scan.detector, UP), along(scan.detector, tangent)]
        return {"beam": "parallel", "detector": detector}
    detector["offset_mm"] = [along(scan.detector - scan.source, UP), along(scan.detector - scan.source, tangent)]
    tables: Tables = {
        "beam": scan.beam,
        "source_to_object_mm": along(scan.source, radial),
        "source_to_detector_mm": along(scan.source - scan.detector, radial),
        "detector": detector,
    }
    if scan.beam == "fan":
        detector["row_pitch_mm"], detector["pixel_mm"] = detector["pixel_mm"]
    elif np.ptp(scan.source[:, 2]) > SAME * reach and turns[-1] != turns[0]:
        rise = (scan.source[-1, 2] - scan.source[0, 2]) / (turns[-1] - turns[0])
        return {**tables, "beam": "helical", "helix": {"pitch_mm": _neat(2 * np.pi * rise)}}
    return {**tables, "axis": {"shift_mm": -along(scan.source, tangent) + 0.0}}


def _angle_tables(degrees: np.ndarray) -> Iterator[Tables]:
    # trust: the unit of computed angles is known.
    known = {"unit": "deg", "trust": True}
    degrees = degrees - 360 * np.floor(_neat(degrees[0], 360) / 360)
    if degrees.size > 1:
        step = (degrees[-1] - degrees[0]) / (degrees.size - 1)
        yield {**known, "start": _neat(degrees[0], 360), "step": _neat(step, 360), "count": degrees.size}
    if degrees.size <= MOST_LISTED:
        yield {**known, "list": [_neat(angle, 360) for angle in degrees]}


def _pixels(scan: ScanGeometry) -> Tables:
    return {"rows": scan.detector_shape[0], "columns": scan.detector_shape[1]}


def _reach(scan: ScanGeometry) -> float:
    """From the source to the far end of the detector, the longest length of the scan in mm."""
    panel = np.hypot(*np.multiply(scan.pixel_vu_mm, scan.detector_shape))
    return float(np.linalg.norm(scan.directions(), axis=1).max() + panel)


def _neat(value: float, scale: float = 0.0) -> float:
    """The value to twelve digits, and 0 where it is nothing beside `scale`."""
    return 0.0 if abs(value) <= 1e-12 * scale else float(f"{value:.12g}")
