"""The figures of reports: volumes side by side, and a difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volrecon.errors import ConfigError
from volrecon.figures.panels import (
    MARGIN,
    TABLE_ROW,
    Look,
    Window,
    colour_bar,
    common_shape,
    draw_table,
    grey_look,
    new_axes,
    new_figure,
    percentiles,
    save,
    scale_bar,
    show,
    write,
)
from volrecon.metrics import VolumeLike, gather_planes

WIDTH = 14.0
"""Widest figure, in inches."""

NARROWEST, LARGEST_PANEL = 7.0, 4.4
LOWEST_ROW, LOWEST_BAR = 1.6, 0.7
"""Room that a row's label needs, and height from which a panel has room for a scale bar."""

TITLE, HEAD, ROW_LABEL, GAP, BAR_STRIP = 0.35, 0.38, 0.4, 0.1, 0.8

Triple = tuple[float, float, float]
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Column:
    """One volume's three central planes, axial (y, x), coronal (z, x) and sagittal (z, y)."""

    name: str
    planes: Planes
    look: Look


def report_figure(
    path: Path | str,
    volumes: Mapping[str, VolumeLike],
    voxel_zyx_mm: Triple,
    *,
    window: Window | None = None,
    reference: str | None = None,
    water_per_mm: float | None = None,
    title: str = "",
    table: Sequence[Sequence[str]] = (),
) -> None:
    """Three orthogonal central slices of every volume, one column each, with a table below.

    Args:
        path: the PNG to write, at most about 1400 pixels wide.
        volumes: name to volume (z, y, x), all of one shape, in 1/mm; 16 slices are read at a time.
        voxel_zyx_mm: voxel size, for aspect and scale bar.
        window: lowest and highest value shown, 1/mm. Default: 1st to 99.5th percentile of the shown slices of
            `reference`, or of the first volume.
        reference: the name of the volume that sets the default window.
        water_per_mm: attenuation of water; given, the window is stated in HU too.
        title: one line.
        table: rows of cells, the first row being the heading.

    Raises:
        ConfigError: no volumes, an unknown reference, an empty window, rows of unequal length.
        DataError: volumes of different shapes or not 3D.
    """
    shape = common_shape(list(volumes.values()))
    planes = {name: _central_planes(volume) for name, volume in volumes.items()}
    source = reference if reference is not None else next(iter(volumes))
    if source not in planes:
        raise ConfigError(f"reference {source!r} is not among the volumes {', '.join(volumes)}")
    if len({len(row) for row in table}) > 1:
        raise ConfigError(f"the table's rows have {sorted({len(row) for row in table})} cells; make them equal")
    look = grey_look(window, planes[source], source, water_per_mm)
    columns = [Column(name, shown, look) for name, shown in planes.items()]
    _draw_page(path, columns, shape, voxel_zyx_mm, title, table)


def difference_figure(
    path: Path | str,
    a: VolumeLike,
    b: VolumeLike,
    voxel_zyx_mm: Triple,
    *,
    names: tuple[str, str] = ("A", "B"),
    window: Window | None = None,
    water_per_mm: float | None = None,
    title: str = "",
) -> None:
    """A, B and B - A in three orthogonal central slices.

    The difference is shown from blue through white to red over plus and minus its own 99.5th percentile, which is
    stated. Other arguments and errors as in `report_figure`; the default window is A's.
    """
    shape = common_shape([a, b])
    first, second = _central_planes(a), _central_planes(b)
    look = grey_look(window, first, names[0], water_per_mm)
    change = (second[0] - first[0], second[1] - first[1], second[2] - first[2])
    reach = percentiles([np.abs(plane) for plane in change])[1]
    signed = Look("RdBu_r", (-reach, reach), f"difference in 1/mm, shown to ±{reach:.3g}")
    columns = [
        Column(names[0], first, look),
        Column(names[1], second, look),
        Column(f"{names[1]} - {names[0]}", change, signed),
    ]
    _draw_page(path, columns, shape, voxel_zyx_mm, title, ())


def _draw_page(
    path: Path | str,
    columns: Sequence[Column],
    shape: tuple[int, int, int],
    voxel_zyx_mm: Triple,
    title: str,
    table: Sequence[Sequence[str]],
) -> None:
    """Rows axial, coronal, sagittal; columns; a colour bar under the columns that share one; the table."""
    z, y, x = (count * size for count, size in zip(shape, voxel_zyx_mm, strict=True))
    # A single slice has nothing to show in the other two planes.
    layout = Layout((z, y, x), len(columns), HEAD + TITLE * bool(title), 1 if shape[0] == 1 else 3)
    under = layout.bottom + BAR_STRIP
    figure = new_figure(layout.width, under + (len(table) + 0.7) * TABLE_ROW * bool(table), title)
    for row, (plane, axis) in enumerate((("axial", "z"), ("coronal", "y"), ("sagittal", "x"))[: layout.rows]):
        wide, tall = layout.sizes[row]
        label = f"{plane}, {axis} {shape[row] // 2} of {shape[row]}"
        write(figure, layout.column(0) - 0.25, layout.row(row) + max(tall, LOWEST_ROW) / 2, label, rotation=90)
        for i, column in enumerate(columns):
            axes = new_axes(figure, *layout.panel_at(row, i), wide, tall)
            axes.set_axis_off()
            show(axes, column.planes[row], column.look, "lower" if row else "upper")
            if i == 0 and tall >= LOWEST_BAR:
                scale_bar(axes, y if row == 2 else x)
    for i, column in enumerate(columns):
        write(figure, layout.column(i) + layout.panel / 2, layout.top - 0.16, column.name, size=12)
    for look in dict.fromkeys(column.look for column in columns):
        own = [i for i, column in enumerate(columns) if column.look == look]
        start, stop = layout.column(own[0]), layout.column(own[-1]) + layout.panel
        colour_bar(figure, look, start, layout.bottom + 0.08, stop - start)
    draw_table(figure, table, MARGIN, under, layout.width - 2 * MARGIN)
    save(figure, path)


def _central_planes(volume: VolumeLike) -> Planes:
    depth, height, width = volume.shape
    coronal, sagittal = gather_planes(volume, np.array([height // 2]), np.array([width // 2]))
    axial = np.asarray(volume[depth // 2 : depth // 2 + 1], np.float32)[0]
    return axial, coronal[0], sagittal[0]


@dataclass(frozen=True)
class Layout:
    """Where panels go, in inches from the top left: rows axial, coronal, sagittal, all at one scale."""

    extent_zyx_mm: Triple
    columns: int
    top: float
    rows: int = 3

    @property
    def panel(self) -> float:
        """Width of a column."""
        return min(LARGEST_PANEL, (WIDTH - 2 * MARGIN - ROW_LABEL) / self.columns - GAP)

    @property
    def sizes(self) -> tuple[Window, ...]:
        """(width, height) of the panels of each row."""
        z, y, x = self.extent_zyx_mm
        scale = min(self.panel / max(x, y), 1.2 * self.panel / max(y, z))
        return ((x * scale, y * scale), (x * scale, z * scale), (y * scale, z * scale))[: self.rows]

    @property
    def width(self) -> float:
        return max(self._needed, NARROWEST)

    @property
    def _needed(self) -> float:
        return 2 * MARGIN + ROW_LABEL + self.columns * (self.panel + GAP) - GAP

    @property
    def bottom(self) -> float:
        return self.row(self.rows)

    def column(self, i: int) -> float:
        """Left edge of column i."""
        return MARGIN + ROW_LABEL + (self.width - self._needed) / 2 + i * (self.panel + GAP)

    def row(self, i: int) -> float:
        """Upper edge of row i."""
        return self.top + sum(max(height, LOWEST_ROW) + GAP for _, height in self.sizes[:i])

    def panel_at(self, row: int, i: int) -> tuple[float, float]:
        """Left and upper edge of a panel, centred in its column and row."""
        wide, tall = self.sizes[row]
        return self.column(i) + (self.panel - wide) / 2, self.row(row) + max(LOWEST_ROW - tall, 0) / 2
