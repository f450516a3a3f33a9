"""Pictures of what a file holds: a scan with its geometry, projections, a volume with mm along its axes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from volrecon.errors import ConfigError
from volrecon.figures.bounded_reading import cross_sections, middle_slice, rows_to_read, thinned
from volrecon.figures.geometry_figure import GeometryRow, Stage, shown_angles
from volrecon.figures.panels import (
    MARGIN,
    Look,
    colour_bar,
    common_shape,
    mark_axes,
    new_axes,
    new_figure,
    percentiles,
    save,
    show,
    write,
)
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.metrics import VolumeLike, spread

WIDTH = 14.0
TITLE, HEAD, GAP, BAR_STRIP = 0.35, 0.38, 0.1, 0.8
TALLEST = 5.0
"""Height of a volume's panels, in inches."""

NARROWEST, THINNEST = 2.9, 0.35
"""Width that a panel's name needs, and the least side of a panel: thinner ones are stretched."""

LABELS = 0.85
"""Room for the numbers and names of an axis."""

UNIT_LABELS = {"per_mm": "attenuation in 1/mm", "hu": "Hounsfield units", None: "values of a unit not stated"}


@dataclass(frozen=True)
class ProjectionRow:
    """The sinogram of the middle detector row and three views, v upwards, side by side, 14 inches wide.

    Attributes:
        shape: of the projections, (v, angle, u).
        sinogram: (angle, u), thinned.
        views: (v, u) images of the views `chosen`, thinned.
    """

    shape: tuple[int, int, int]
    sinogram: np.ndarray
    chosen: np.ndarray
    views: list[np.ndarray]
    angles_rad: np.ndarray | None
    pixel_vu_mm: tuple[float, float]

    @classmethod
    def of(
        cls, projections: VolumeLike, angles_rad: np.ndarray | None, pixel_vu_mm: tuple[float, float]
    ) -> "ProjectionRow":
        """Read what is shown: of large projections a part of the rows."""
        shape = common_shape([projections])
        if angles_rad is not None and len(angles_rad) != shape[1]:
            raise ConfigError(f"{len(angles_rad)} angles were given for {shape[1]} views")
        chosen = spread(shape[1], 3)
        views, _ = cross_sections(projections, rows_to_read(projections), chosen, np.array([], int))
        images = [thinned(view) for view in views.swapaxes(0, 1)]
        return cls(shape, middle_slice(projections), chosen, images, angles_rad, pixel_vu_mm)

    @property
    def look(self) -> Look:
        low, high = percentiles([self.sinogram, *self.views])
        return Look("gray", (low, high), f"projections, shown from {low:.3g} to {high:.3g}")

    @property
    def slope(self) -> float:
        """Height of a view by its width."""
        return self.shape[0] * self.pixel_vu_mm[0] / (self.shape[2] * self.pixel_vu_mm[1])

    @property
    def panel(self) -> float:
        """Inches that a view may be wide."""
        return (WIDTH - 1.2 - MARGIN - 4 * GAP) / (1.35 + len(self.chosen))

    @property
    def wide(self) -> float:
        return min(self.panel, 1.6 * self.panel / self.slope)

    @property
    def tall(self) -> float:
        return max(self.wide * self.slope, 1.1 * self.panel)

    @property
    def height(self) -> float:
        return HEAD + self.tall + 0.35 + BAR_STRIP

    def draw(self, figure: Figure, top: float) -> None:
        """Draw with the upper edge `top` inches from the figure's."""
        panel, wide, height, look = self.panel, self.wide, self.tall, self.look
        over, left = top + HEAD, 1.2 + 1.35 * panel
        self._draw_sinogram(new_axes(figure, 0.8, over, 1.35 * panel, height), look)
        name = f"sinogram, row {self.shape[0] // 2} of {self.shape[0]}"
        write(figure, 0.8 + 0.675 * panel, over - 0.16, name, size=12)
        for place, (index, view) in enumerate(zip(self.chosen, self.views, strict=True)):
            at = left + place * (panel + GAP) + (panel - wide) / 2
            high = max(wide * self.slope, THINNEST)  # a single detector row is no more than a line
            inside = over + (height - high) / 2
            axes = new_axes(figure, at, inside, wide, high)
            axes.set_axis_off()
            show(axes, view, look, "lower")
            angle = "" if self.angles_rad is None else f", {np.degrees(self.angles_rad[index]):.4g}°"
            write(figure, at + wide / 2, inside - 0.16, f"view {index}{angle}", size=12)
        colour_bar(figure, look, left, over + height + 0.35, WIDTH - left - MARGIN)

    def _draw_sinogram(self, axes: Axes, look: Look) -> None:
        _, views, columns = self.shape
        show(axes, self.sinogram, look, "upper", (-0.5, columns - 0.5, views - 0.5, -0.5))
        axes.set_xlabel("u [pixel]")
        axes.set_ylabel("view" if self.angles_rad is None else "angle [°]")
        marks = np.unique(np.linspace(0, views - 1, 6).astype(int))
        names = marks if self.angles_rad is None else np.degrees(self.angles_rad[marks])
        axes.set_yticks(marks, [f"{name:.4g}" for name in names])


def projections_figure(
    path: Path | str,
    projections: VolumeLike,
    *,
    angles_rad: np.ndarray | None = None,
    pixel_vu_mm: tuple[float, float] = (1.0, 1.0),
    title: str = "",
) -> None:
    """The sinogram of the middle detector row and three views, v upwards.

    Args:
        path: the PNG to write, about 1400 pixels wide.
        projections: (v, angle, u); of more than 1 GiB only evenly spaced rows are read.
        angles_rad: gantry angles, (views,); without them views are numbered.
        pixel_vu_mm: detector pixel size, for the views' aspect.
        title: one line.

    Raises:
        ConfigError: a number of angles other than the views.
        DataError: projections that are not 3D.
    """
    row = ProjectionRow.of(projections, angles_rad, pixel_vu_mm)
    head = TITLE * bool(title)
    figure = new_figure(WIDTH, head + row.height, title)
    row.draw(figure, head)
    save(figure, path)


def scan_figure(
    path: Path | str, projections: VolumeLike, scan: ScanGeometry, grid: VolumeGeometry, *, title: str = ""
) -> None:
    """The sinogram, three views, and below them the geometry from above and from the side.

    Arguments and errors as in `projections_figure` and `geometry_figure`.
    """
    row = ProjectionRow.of(projections, shown_angles(scan), scan.pixel_vu_mm)
    drawing = GeometryRow(Stage(scan, grid))
    figure = new_figure(WIDTH, TITLE + row.height + drawing.height, title)
    row.draw(figure, TITLE)
    drawing.draw(figure, TITLE + row.height - 0.3)
    save(figure, path)


def volume_figure(
    path: Path | str,
    volume: VolumeLike,
    grid: VolumeGeometry,
    quantity: Literal["hu", "per_mm"] | None,
    *,
    title: str = "",
) -> None:
    """The middle axial, coronal and sagittal slice at one scale, mm along the axes, the window below.

    Args:
        path: the PNG to write, at most about 1400 pixels wide.
        volume: (z, y, x); of more than 1 GiB the coronal and sagittal slices have evenly spaced rows only.
        quantity: what its numbers are, None where that is not known.
        title: one line.

    Raises:
        DataError: a volume that is not 3D.
    """
    shape = common_shape([volume])
    coronal, sagittal = cross_sections(
        volume, rows_to_read(volume), np.array([shape[1] // 2]), np.array([shape[2] // 2])
    )
    images = [middle_slice(volume), thinned(coronal[:, 0]), thinned(sagittal[:, :, 0])]
    panels = slice_panels(grid)
    low, high = percentiles(images)
    look = Look("gray", (low, high), f"{UNIT_LABELS[quantity]}, shown from {low:.4g} to {high:.4g}")
    head = TITLE * bool(title) + HEAD
    tallest = max(panel.tall for panel in panels)
    needed = sum(panel.column + LABELS for panel in panels)
    width = max(7.0, needed + 0.2)
    figure = new_figure(width, head + tallest + 0.7 + BAR_STRIP, title)
    left = (width - needed) / 2 + LABELS - 0.05
    for panel, image in zip(panels, images, strict=False):
        at, over = left + (panel.column - panel.wide) / 2, head + (tallest - panel.tall) / 2
        panel.draw(new_axes(figure, at, over, panel.wide, panel.tall), image, look)
        write(figure, at + panel.wide / 2, over - 0.16, panel.name, size=12)
        left += panel.column + LABELS
    colour_bar(figure, look, 0, head + tallest + 0.7, width)
    save(figure, path)


@dataclass(frozen=True)
class SlicePanel:
    """One plane through a volume: its size in inches and the world mm at its edges (left, right, bottom, top)."""

    name: str
    axes: str
    wide: float
    tall: float
    edges_mm: tuple[float, float, float, float]

    @property
    def column(self) -> float:
        """Width that the panel and its name need."""
        return max(self.wide, NARROWEST)

    def draw(self, axes: Axes, image: np.ndarray, look: Look) -> None:
        upwards = self.edges_mm[2] < self.edges_mm[3]
        show(axes, image, look, "lower" if upwards else "upper", self.edges_mm)
        axes.set(xlabel=f"{self.axes[0]} [mm]", ylabel=f"{self.axes[1]} [mm]")
        mark_axes(axes, self.wide, self.tall)


def slice_panels(grid: VolumeGeometry) -> list[SlicePanel]:
    """Axial (y downwards, as in reports), coronal and sagittal, at one scale; a single slice has the axial only."""
    names = ["axial", "coronal", "sagittal"][: 3 if grid.shape[0] > 1 else 1]
    sizes = grid.size_xyz_mm.tolist()
    scale = _scale((sizes[0], sizes[1], sizes[2]), len(names))
    ends = {n: (c - s / 2, c + s / 2) for n, c, s in zip("xyz", grid.centre_xyz_mm, sizes, strict=True)}
    first, step = (dict(zip("xyz", numbers, strict=True)) for numbers in (grid.origin_xyz_mm, grid.voxel_xyz_mm))
    middle = dict(zip("zyx", (n // 2 for n in grid.shape), strict=True))
    panels = []
    for name, right, up, through in zip(names, "xxy", "yzz", "zyx", strict=False):
        wide, tall = (scale * (ends[axis][1] - ends[axis][0]) for axis in (right, up))
        stretched = " (stretched)" * (min(wide, tall) < THINNEST)
        label = f"{name}, {through} = {first[through] + middle[through] * step[through]:.4g} mm{stretched}"
        bottom, top = ends[up] if up == "z" else ends[up][::-1]
        edges = (*ends[right], bottom, top)
        panels.append(SlicePanel(label, right + up, max(wide, THINNEST), max(tall, THINNEST), edges))
    return panels


def _scale(size_xyz_mm: tuple[float, float, float], panels: int) -> float:
    """Inches a mm at which the panels fit the page, each in a column of at least `NARROWEST`."""
    x, y, z = size_xyz_mm
    room = WIDTH - 0.2 - LABELS * panels
    if panels == 1:
        return min(room / x, TALLEST / y)
    return min(room / (2 * x + y), (room - NARROWEST) / (2 * x), (room - 2 * NARROWEST) / y, TALLEST / max(y, z))
