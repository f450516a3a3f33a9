"""volrecon: large CT volumes from few or limited-angle projections, in a stated amount of memory.

    import volrecon as vr
    scan = vr.open_scan("scan.zarr")
    volume = vr.reconstruct(scan, method="tv")     # float32 (z, y, x), attenuation in 1/mm

Names are loaded when they are first used: importing volrecon imports neither torch nor astra nor cupy.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "Measurement": "volrecon.solvers",
    "Method": "volrecon.solvers",
    "Noise": "volrecon.noise",
    "Operator": "volrecon.projectors",
    "ScanGeometry": "volrecon.geometry",
    "VolumeGeometry": "volrecon.geometry",
    "compare": "volrecon.metrics",
    "cone": "volrecon.geometry",
    "fan": "volrecon.geometry",
    "from_vectors": "volrecon.geometry",
    "helical": "volrecon.geometry",
    "open_scan": "volrecon.store",
    "open_volume": "volrecon.store",
    "parallel": "volrecon.geometry",
    "projector": "volrecon.projectors",
    "reconstruct": "volrecon.engine",
    "suggest_grid": "volrecon.geometry",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'volrecon' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_NAMES)
