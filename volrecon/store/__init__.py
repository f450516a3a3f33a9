"""What is on disk: scans, volumes, scratch. With `formats/` the only code that touches it."""

from volrecon.store.arrays import StoredArray, create_array, our_attributes
from volrecon.store.output import replacing
from volrecon.store.scans import Scan, ScanHeader, open_scan, write_scan
from volrecon.store.scratch import ZarrSpace
from volrecon.store.volumes import StoredVolume, open_volume, verify, write_volume

__all__ = [
    "Scan",
    "ScanHeader",
    "StoredArray",
    "StoredVolume",
    "ZarrSpace",
    "create_array",
    "open_scan",
    "open_volume",
    "our_attributes",
    "replacing",
    "verify",
    "write_scan",
    "write_volume",
]
