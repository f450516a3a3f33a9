"""Pictures: slices, differences, projections, geometries; PNG files drawn without any GUI state."""

from volrecon.figures.geometry_figure import geometry_figure
from volrecon.figures.pages import difference_figure, report_figure
from volrecon.figures.quick_look import projections_figure, scan_figure, volume_figure
from volrecon.figures.training import batch_figure, samples_figure, training_figure

__all__ = [
    "batch_figure",
    "difference_figure",
    "geometry_figure",
    "projections_figure",
    "report_figure",
    "samples_figure",
    "scan_figure",
    "training_figure",
    "volume_figure",
]
