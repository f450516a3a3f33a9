"""A scan stated by hand in a geometry.toml; `configs/geometry/` has examples with every key explained."""

from pathlib import Path
from typing import Any

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.base import Frame, GeometryFormat, StatedScan
from volrecon.formats.files import reading
from volrecon.formats.geometry_toml_writer import write
from volrecon.formats.number_files import read_vectors
from volrecon.formats.scan_tables import Cone, Fan, Helical, Parallel, Stated, Vectors
from volrecon.geometry import from_vectors
from volrecon.strict_toml import Strict, key_paths, load_toml, validated

BEAMS: dict[str, type[Stated]] = {"cone": Cone, "fan": Fan, "parallel": Parallel, "helical": Helical}

MODELS: tuple[type[Strict], ...] = (*BEAMS.values(), Vectors)

KNOWN_KEYS = frozenset(path for model in MODELS for path in key_paths(model))


def read(path: Path, frame: Frame | None) -> StatedScan:
    """The scan that a geometry.toml states.

    Args:
        path: the TOML file; files it names are looked for beside it.
        frame: for `from_data = true`, the angles that the projections' own file states.

    Raises:
        ConfigError: not TOML, or all problems with its keys and values, each with its key path.
        GeometryError: distances or angles that no scanner has (degrees taken for radians, say).
        DataError: the angles or vectors file is damaged, or the number of views is not that of the data.
    """
    tables = load_toml(path)
    angles = frame.angles if frame else None
    with reading(path):
        stated = _from_vectors(path, tables) if "vectors" in tables else _from_beam(path, tables, angles)
        if angles is not None and stated.scan.views != angles.size:
            raise DataError(f"states {stated.scan.views} views, the projections' file has {angles.size} angles")
        return stated


def _from_vectors(path: Path, tables: dict[str, Any]) -> StatedScan:
    table = validated(path, Vectors, tables, KNOWN_KEYS)
    vectors = read_vectors(path.parent / table.vectors.file)
    scan = from_vectors(table.beam, (table.detector.rows, table.detector.columns), vectors)
    note = f"{table.beam} beam of {scan.views} views from the vectors in {table.vectors.file}, mm"
    return StatedScan(scan, table.grid.geometry() if table.grid else None, (note,))


def _from_beam(path: Path, tables: dict[str, Any], data_angles: np.ndarray | None) -> StatedScan:
    beam = tables.get("beam")
    if not isinstance(beam, str) or beam not in BEAMS:
        found = "is missing" if beam is None else f"is {beam!r:.80}"
        raise ConfigError(f"{path}: beam {found}; choose one of {', '.join(BEAMS)}")
    table = validated(path, BEAMS[beam], tables, KNOWN_KEYS)
    angles = table.angles.gantry(path.parent, data_angles, table.most_turns)
    notes = (*table.notes(), table.angles.note(angles))
    return StatedScan(table.scan(angles), table.grid.geometry() if table.grid else None, notes)


FORMAT = GeometryFormat("geometry.toml", (".toml",), read, write)
