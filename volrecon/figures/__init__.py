"""Pictures for reports: orthogonal slices, differences, projections; PNG files drawn without any GUI state."""

from volrecon.figures.pages import difference_figure, projections_figure, report_figure

__all__ = ["difference_figure", "projections_figure", "report_figure"]
