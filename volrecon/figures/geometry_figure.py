"""A scan drawn to scale from above and from the side: sources, detector panels, the volume, the sense of rotation."""

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Polygon

from volrecon.figures.panels import DPI, Look, colour_bar, mark_axes, new_axes, new_figure, save, write
from volrecon.geometry import ScanGeometry, VolumeGeometry

WIDTH = 14.0
TOP, LEFT, BETWEEN, UNDER, KEY = 0.75, 1.0, 1.0, 0.6, 0.95
TALLEST, LOWEST = 6.2, 1.3
"""Heights of a panel, in inches."""

NAMES = 3.6
"""Inches from the middle of one panel to that of the other which their names need."""

MOST_SOURCES, MOST_PANELS = 1500, 6
MARGIN = 0.06
ARROW_RADIUS, ARROW_GAP, ARROW_LENGTH = 1.1, math.radians(6), math.radians(40)
BOX, AXIS, BEAM = "#c0392b", "#555555", "#9aa5b1"
COLOURS = "viridis"
ABOVE, SIDE = (0, 1), (1, 2)
"""The world's axes that lie to the right and upwards, seen from +z and from +x."""


@dataclass(frozen=True)
class Stage:
    """Where everything is drawn, in world mm.

    A parallel beam has no source, and its detector may lie anywhere along the rays: both are put beside the volume.
    """

    scan: ScanGeometry
    grid: VolumeGeometry

    @property
    def sources(self) -> np.ndarray:
        """(views, 3)."""
        if self.scan.beam != "parallel":
            return self.scan.source
        return self._middle - 1.25 * self._reach * self._along

    def corners(self, view: int) -> np.ndarray:
        """Corners of a panel's outer edge, (4, 3): (v, u) low low, low high, high high, high low."""
        scan = self.scan
        centre = scan.detector[view]
        if scan.beam == "parallel":
            centre = (self._middle + self._reach * self._along)[view]
        return centre + self._edges(view)

    def origins(self, view: int) -> np.ndarray:
        """Where the rays to the corners of a panel start, (4, 3)."""
        if self.scan.beam == "cone":
            return np.repeat(self.scan.source[view : view + 1], 4, axis=0)
        if self.scan.beam == "fan":
            rows = self.scan.detector_shape[0]
            return self.scan.source[view] + np.outer([-1, -1, 1, 1], rows / 2 * self.scan.v[view])
        return self.sources[view] + self._edges(view)

    @property
    def box(self) -> np.ndarray:
        """Corners of the volume, (8, 3)."""
        signs = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5], indexing="ij"), -1).reshape(-1, 3)
        return np.array(self.grid.centre_xyz_mm) + signs * self.grid.size_xyz_mm

    @property
    def panels(self) -> np.ndarray:
        """The views whose panels are drawn, the first among them."""
        views = self.scan.views
        return np.unique(np.linspace(0, views, min(views, MOST_PANELS), endpoint=False).astype(int))

    @property
    def arc(self) -> np.ndarray | None:
        """The arrow about the z axis in the sense of the views, (points, 3); None where they have none."""
        sense = rotation_sense(self.scan)
        x, y, z = self.sources[0]
        if not sense or math.hypot(x, y) == 0:
            return None
        turned = math.atan2(y, x) + sense * np.linspace(ARROW_GAP, ARROW_GAP + ARROW_LENGTH, 30)
        radius = ARROW_RADIUS * math.hypot(x, y)
        return np.stack([radius * np.cos(turned), radius * np.sin(turned), np.full(30, z)], axis=1)

    @property
    def limits(self) -> np.ndarray:
        """Lowest and highest of everything along x, y, z with a margin, (3, 2)."""
        arc = self.arc
        points = [self.sources, *(self.corners(view) for view in self.panels), self.box, np.zeros((1, 3))]
        points += [self.origins(0)] if arc is None else [self.origins(0), arc]
        all_points = np.concatenate(points)
        low, high = all_points.min(0), all_points.max(0)
        margin = MARGIN * (high - low).max()
        return np.stack([low - margin, high + margin], axis=1)

    def _edges(self, view: int) -> np.ndarray:
        rows, columns = self.scan.detector_shape
        v, u = rows / 2 * self.scan.v[view], columns / 2 * self.scan.u[view]
        return np.stack([-v - u, -v + u, v + u, v - u])

    @property
    def _along(self) -> np.ndarray:
        return self.scan.source / np.linalg.norm(self.scan.source, axis=1, keepdims=True)

    @property
    def _middle(self) -> np.ndarray:
        """The detector's centre, moved along the rays to where it is nearest to the volume's."""
        away = self.scan.detector - np.array(self.grid.centre_xyz_mm)
        return self.scan.detector - (away * self._along).sum(1, keepdims=True) * self._along

    @property
    def _reach(self) -> float:
        rows, columns = self.scan.detector_shape
        pixel_v, pixel_u = self.scan.pixel_vu_mm
        return 0.8 * max(float(np.linalg.norm(self.grid.size_xyz_mm)), rows * pixel_v, columns * pixel_u)


def rotation_sense(scan: ScanGeometry) -> int:
    """1 where the views turn counter-clockwise seen from +z, -1 clockwise, 0 where they do neither."""
    steps = np.diff(np.unwrap(scan.angles))
    for sense in (1, -1):
        if steps.size and (sense * steps > 1e-9).mean() > 0.9:
            return sense
    return 0


def shown_angles(scan: ScanGeometry) -> np.ndarray:
    """Gantry angles in radians, counter-clockwise, running on past a whole turn where the views have a sense."""
    return np.unwrap(scan.angles) if rotation_sense(scan) else scan.angles


@dataclass(frozen=True)
class GeometryRow:
    """The two drawings side by side at one scale, 14 inches wide."""

    stage: Stage

    @property
    def sizes(self) -> tuple[float, float, float]:
        """Lengths in inches of the drawn x, y and z; z is widened when it is flat, see `limits`."""
        x, y, z = np.ptp(self.stage.limits, axis=1)
        scale = min((WIDTH - LEFT - BETWEEN - 0.4) / (x + y), TALLEST / max(y, z))
        return x * scale, y * scale, max(z * scale, LOWEST)

    @property
    def limits(self) -> np.ndarray:
        """As the stage's, z so far apart that its panel has the least height."""
        limits = self.stage.limits.copy()
        _, y, z = self.sizes
        middle, half = limits[2].mean(), z / y * np.ptp(limits[1]) / 2
        limits[2] = middle - half, middle + half
        return limits

    @property
    def height(self) -> float:
        return TOP + max(self.sizes[1:]) + UNDER + KEY

    def draw(self, figure: Figure, top: float) -> tuple[Axes, Axes]:
        """Draw with the upper edge `top` inches from the figure's; the axes from above and from the side."""
        x, y, z = self.sizes
        between = max(BETWEEN, NAMES - (x + y) / 2)
        left = LEFT + (WIDTH - LEFT - 0.4 - between - x - y) / 2
        tallest = max(y, z)
        drawn = []
        for plane, at, wide, tall, name in (
            (ABOVE, left, x, y, f"from above (+z): {self._sense}"),
            (SIDE, left + x + between, y, z, "from the side (+x)"),
        ):
            over = top + TOP + (tallest - tall) / 2
            axes = new_axes(figure, at, over, wide, tall)
            _draw(axes, self.stage, plane, self.limits)
            write(figure, at + wide / 2, over - 0.18, name, size=12)
            drawn.append(axes)
        self._draw_key(figure, top + TOP + tallest + UNDER)
        return drawn[0], drawn[1]

    @property
    def _sense(self) -> str:
        sense = rotation_sense(self.stage.scan)
        turning = {1: "the gantry turns counter-clockwise", -1: "the gantry turns clockwise", 0: "views in no order"}
        return turning[sense] if self.stage.scan.views > 1 else "a single view"

    def _draw_key(self, figure: Figure, top: float) -> None:
        scan = self.stage.scan
        first, last = np.rad2deg(shown_angles(scan)[[0, -1]])
        label = f"view: 0 at {first:.6g}° to {scan.views - 1} at {last:.6g}°, counter-clockwise"
        if scan.views > 1:
            colour_bar(figure, Look(COLOURS, (0, scan.views - 1), label), 0, top, WIDTH / 2)
        parallel = scan.beam == "parallel"
        handles = [
            Line2D([], [], marker="o", ls="", color=AXIS, label="rays come from" if parallel else "source"),
            Line2D([], [], lw=3, color=AXIS, label="detector" + ", anywhere along the rays" * parallel),
            Line2D([], [], lw=1, color=BEAM, label="beam of view 0"),
            Line2D([], [], marker="s", mfc="none", ls="", color=AXIS, label="pixel (v, u) = (0, 0) of view 0"),
            Line2D([], [], lw=1.5, color=BOX, label="volume"),
            Line2D([], [], marker="+", ms=10, lw=1, ls="-.", color=AXIS, label="rotation axis"),
        ]
        across, down = figure.get_size_inches()
        at = ((WIDTH * 0.73) / across, 1 - (top - 0.12) / down)
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=at, ncols=2, frameon=False, fontsize=10)


def geometry_figure(path: Path | str, scan: ScanGeometry, grid: VolumeGeometry, *, title: str = "") -> None:
    """Draw a scan and a volume to one scale, seen from +z and from +x, mm along the axes.

    Args:
        path: the PNG to write, about 1400 pixels wide.
        grid: the volume.
        title: one line.
    """
    row = GeometryRow(Stage(scan, grid))
    figure = new_figure(WIDTH, row.height, title)
    row.draw(figure, 0.0)
    save(figure, path)


def _draw(axes: Axes, stage: Stage, plane: tuple[int, int], limits: np.ndarray) -> None:
    """One of the two drawings; `plane` names the world axes to the right and upwards."""
    across, upwards = ("xyz"[axis] for axis in plane)
    axes.set(xlim=limits[plane[0]], ylim=limits[plane[1]], xlabel=f"{across} [mm]", ylabel=f"{upwards} [mm]")
    axes.set_aspect("equal")
    mark_axes(axes, axes.bbox.width / DPI, axes.bbox.height / DPI)
    axes.grid(color="#eeeeee", lw=0.8)
    axes.set_axisbelow(True)
    _draw_axis_and_box(axes, stage, plane)
    _draw_beam(axes, stage, plane)
    colour = mpl.colormaps[COLOURS]
    norm = Normalize(0, max(stage.scan.views - 1, 1))
    for view in stage.panels:
        panel = stage.corners(view)[:, plane]
        axes.add_patch(Polygon(panel, fill=False, ec=colour(norm(view)), lw=1.6 if view else 3.0))
    views = np.linspace(0, stage.scan.views - 1, min(stage.scan.views, MOST_SOURCES)).round().astype(int)
    right, up = stage.sources[views][:, plane].T
    axes.scatter(right, up, c=views, cmap=COLOURS, norm=norm, s=14 if len(views) < 200 else 6, zorder=3)


def _draw_axis_and_box(axes: Axes, stage: Stage, plane: tuple[int, int]) -> None:
    if plane == SIDE:
        axes.axvline(0, color=AXIS, lw=1, ls="-.")
    else:
        axes.plot(0, 0, "+", color=AXIS, ms=12)
        if stage.arc is not None:
            _draw_arrow(axes, stage.arc[:, plane])
    low, high = stage.box[:, plane].min(0), stage.box[:, plane].max(0)
    outline = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    axes.add_patch(Polygon(outline, fill=False, ec=BOX, lw=1.5, label="volume"))


def _draw_arrow(axes: Axes, arc: np.ndarray) -> None:
    axes.plot(*arc.T, color="black", lw=1.5)
    head = FancyArrowPatch(arc[-2], arc[-1], arrowstyle="-|>", mutation_scale=16, color="black", shrinkA=0, shrinkB=0)
    axes.add_patch(head)


def _draw_beam(axes: Axes, stage: Stage, plane: tuple[int, int]) -> None:
    """The rays of view 0 to the corners of its panel, and where its first pixel is."""
    corners, origins = stage.corners(0)[:, plane], stage.origins(0)[:, plane]
    for start, stop in zip(origins, corners, strict=True):
        axes.plot(*zip(start, stop, strict=True), color=BEAM, lw=1)
    axes.plot(*corners[0], marker="s", mfc="none", mec=AXIS, ms=9, ls="", zorder=4)
