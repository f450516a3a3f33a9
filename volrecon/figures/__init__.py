"""Pictures for reports: orthogonal slices, differences, projections; PNG files drawn without any GUI state."""

from volrecon.figures.pages import difference_figure, projections_figure, report_figure
from volrecon.figures.training import batch_figure, training_figure

__all__ = ["batch_figure", "difference_figure", "projections_figure", "report_figure", "training_figure"]
