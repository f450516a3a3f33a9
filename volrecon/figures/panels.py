"""The parts of a figure, placed in inches from its top left: images, scale and colour bars, text, tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from volrecon.errors import ConfigError, DataError
from volrecon.metrics import VolumeLike

DPI = 100
MARGIN, TABLE_ROW = 0.25, 0.27

NOT_FINITE = "#b03060"
"""Colour of NaN: what is missing must not look like air."""

Window = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """How values become colours, and the words under the colour bar."""

    colormap: str
    window: Window
    label: str


def common_shape(volumes: Sequence[VolumeLike]) -> tuple[int, int, int]:
    """The shape that all arrays have, three axes and none of them empty."""
    if not volumes:
        raise ConfigError("give at least one volume to draw")
    shapes = [tuple(volume.shape) for volume in volumes]
    shape = shapes[0]
    if len(shape) != 3 or min(shape) < 1 or set(shapes) != {shape}:
        raise DataError(f"a figure needs arrays of three axes and one shape; got {shapes}")
    return shape[0], shape[1], shape[2]


def percentiles(arrays: Sequence[np.ndarray]) -> Window:
    """1st and 99.5th percentile of the finite values; when they coincide, a range above them."""
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 0.0)
    return float(low), float(high if high > low else low + (abs(low) or 1.0))


def grey_look(window: Window | None, planes: Sequence[np.ndarray], source: str, water_per_mm: float | None) -> Look:
    """The grey scale of attenuation, with its window in words."""
    low, high = window if window is not None else percentiles(planes)
    if not low < high:
        raise ConfigError(f"the window runs from {low} to {high} 1/mm; low must be below high")
    words = f"attenuation, shown from {low:.3g} to {high:.3g} 1/mm"
    if water_per_mm is not None:
        words += f" (about {1000 * (low / water_per_mm - 1):.0f} to {1000 * (high / water_per_mm - 1):.0f} HU)"
    if window is None:
        words += f"; 1st to 99.5th percentile of {source}"
    return Look("gray", (low, high), words)


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty page of this size in inches with its title."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    write(figure, MARGIN, MARGIN, title, ha="left", size=14)
    return figure


def new_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the top left."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def write(
    figure: Figure, x: float, y: float, text: str, *, ha: str = "center", size: float = 11, rotation: float = 0
) -> None:
    """Text whose anchor lies `x`, `y` inches from the top left."""
    across, down = figure.get_size_inches()
    at = (x / across, 1 - y / down)
    # A dollar in a file's name is not mathematics.
    figure.text(*at, text, ha=ha, va="center", fontsize=size, rotation=rotation, parse_math=False)


def show(
    axes: Axes,
    image: np.ndarray,
    look: Look,
    origin: Literal["upper", "lower"],
    edges: tuple[float, float, float, float] | None = None,
) -> None:
    """Fill the axes with the image; their own shape sets the aspect.

    `edges` are the coordinates at the image's left, right, bottom and top; by default pixels are counted.
    """
    colours = mpl.colormaps[look.colormap].with_extremes(bad=NOT_FINITE)
    low, high = look.window
    axes.imshow(image, cmap=colours, vmin=low, vmax=high, origin=origin, aspect="auto", extent=edges)


def mark_axes(axes: Axes, wide: float, tall: float) -> None:
    """Round numbers along both axes, as many as `wide` and `tall` inches have room for."""
    for axis, inches in ((axes.xaxis, wide), (axes.yaxis, tall)):
        axis.set_major_locator(MaxNLocator(max(1, int(inches / 0.55)), steps=[1, 2, 5, 10], min_n_ticks=1))


def scale_bar(axes: Axes, extent_mm: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten, at most 30% of the panel's width."""
    power = 10.0 ** math.floor(math.log10(0.3 * extent_mm))
    length = power * max(step for step in (1, 2, 5) if step * power <= 0.3 * extent_mm)
    edge = [withStroke(linewidth=3.5, foreground="black")]
    start, stop = 0.04, 0.04 + length / extent_mm
    axes.plot([start, stop], [0.05, 0.05], color="white", lw=2, transform=axes.transAxes, path_effects=edge)
    axes.text(
        (start + stop) / 2,
        0.07,
        f"{length:g} mm",
        color="white",
        ha="center",
        va="bottom",
        fontsize=10,
        transform=axes.transAxes,
        path_effects=edge,
    )


def colour_bar(figure: Figure, look: Look, left: float, top: float, width: float) -> None:
    """A flat bar of at most 5 inches, centred over `width`, its window stated below."""
    bar = min(width, 5.0)
    axes = new_axes(figure, left + (width - bar) / 2, top, bar, 0.12)
    colours = ScalarMappable(Normalize(*look.window), mpl.colormaps[look.colormap])
    ticks = MaxNLocator(int(bar / 0.7), steps=[1, 2, 5, 10])
    figure.colorbar(colours, cax=axes, orientation="horizontal", ticks=ticks)
    axes.set_xlabel(look.label, parse_math=False)


def draw_table(figure: Figure, table: Sequence[Sequence[str]], left: float, top: float, width: float) -> None:
    """Cells of equal width, the first left-aligned and the rest right-aligned, a rule below the heading."""
    if not table:
        return
    across, down = figure.get_size_inches()
    cell = width / len(table[0])
    for i, row in enumerate(table):
        y = top + (i + 0.5) * TABLE_ROW
        for j, text in enumerate(row):
            write(figure, left + (j + (j > 0)) * cell, y, text, ha="right" if j else "left")
    rule = 1 - (top + TABLE_ROW) / down
    figure.add_artist(Line2D([left / across, (left + width) / across], [rule, rule], color="black", lw=0.8))


def save(figure: Figure, path: Path | str) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
