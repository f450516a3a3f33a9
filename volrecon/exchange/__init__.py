"""Outside files into scans and volumes of ours, and back."""

from volrecon.exchange.scans import export_scan, import_scan, preprocess_scan, select_views, states_scan
from volrecon.exchange.volumes import export_volume, import_volume, read_any_volume, water_of

__all__ = [
    "export_scan",
    "export_volume",
    "import_scan",
    "import_volume",
    "preprocess_scan",
    "read_any_volume",
    "select_views",
    "states_scan",
    "water_of",
]
