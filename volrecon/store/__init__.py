"""What is on disk: scans, volumes, scratch. With `formats/` the only code that touches it."""

from volrecon.store.arrays import StoredArray, create_array, our_attributes
from volrecon.store.generations import Generation, Generations
from volrecon.store.lock import locked
from volrecon.store.output import replacing
from volrecon.store.scans import Scan, ScanHeader, open_scan, write_scan
from volrecon.store.scratch import ZarrSpace, temporary_space
from volrecon.store.volumes import StoredVolume, open_volume, verify, write_volume

__all__ = [
    "Generation",
    "Generations",
    "Scan",
    "ScanHeader",
    "StoredArray",
    "StoredVolume",
    "ZarrSpace",
    "create_array",
    "locked",
    "open_scan",
    "open_volume",
    "our_attributes",
    "replacing",
    "temporary_space",
    "verify",
    "write_scan",
    "write_volume",
]
