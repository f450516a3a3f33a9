"""Projectors: `projector(volume, scan)` gives the Operator `A` of a scan.

To add a backend, write one class that derives from `Operator` in a file of its own and name it in `BACKENDS`; the
contract suite (tests/contracts/test_projectors.py) runs on whatever stands there.
"""

from importlib import import_module
from typing import Literal

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.projectors.operator import Operator, dot_test

BACKENDS: dict[str, str] = {
    "joseph": "volrecon.projectors.joseph:Joseph",
    "astra": "volrecon.projectors.astra:Astra2D",
    "astra-cuda": "volrecon.projectors.astra:Astra3D",
    "astra-cuda-fan": "volrecon.projectors.astra:AstraFan3D",
}


def backend_class(name: str) -> type[Operator]:
    """The class behind a backend's name, imported only now."""
    if name not in BACKENDS:
        raise ConfigError(f"projector backend {name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    found: type[Operator] = getattr(import_module(module), attribute)
    return found


def projector(
    volume_geometry: VolumeGeometry,
    scan_geometry: ScanGeometry,
    backend: str = "auto",
    device: Literal["cpu", "cuda"] = "cpu",
) -> Operator:
    """The operator of a scan on a grid.

    Args:
        backend: a name of `BACKENDS`, or "auto": `joseph` on the CPU, ASTRA on a GPU.
        device: where the arrays live.

    Raises:
        ConfigError: the backend cannot serve the geometry or this machine; the message says why.
    """
    if device == "cuda" and backend in ("auto", "astra"):
        backend = "astra-cuda-fan" if scan_geometry.beam == "fan" else "astra-cuda"
    elif backend == "auto":
        backend = "joseph"
    elif device == "cuda" and not backend.startswith("astra-cuda"):
        raise ConfigError(f"backend {backend} runs on the CPU; for device='cuda' use auto or astra")
    return backend_class(backend)(volume_geometry, scan_geometry)


__all__ = ["BACKENDS", "Operator", "backend_class", "dot_test", "projector"]
