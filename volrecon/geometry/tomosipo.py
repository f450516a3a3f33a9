"""The bridge to tomosipo, which is imported when a function here is called and never before.

tomosipo's world is ours with every triple reversed: (z, y, x) instead of (x, y, z). Its volumes are (z, y, x)
and its projections (v, angle, u), as here.
"""

import sys
from types import ModuleType
from typing import Any

import numpy as np

from volrecon.errors import ConfigError, GeometryError
from volrecon.geometry.scan import ScanGeometry
from volrecon.geometry.volume import VolumeGeometry


def to_tomosipo_volume(volume: VolumeGeometry) -> Any:
    """A `ts.volume` of the same box, in mm.

    Raises:
        ConfigError: tomosipo cannot be imported.
    """
    size = tuple(float(s) for s in volume.size_xyz_mm[::-1])
    return _tomosipo().volume(shape=volume.shape, pos=volume.centre_xyz_mm[::-1], size=size)


def to_tomosipo_scan(scan: ScanGeometry) -> Any:
    """A `ts.cone_vec` of a cone beam, a `ts.parallel_vec` of a parallel beam, in mm.

    Raises:
        GeometryError: the scan is a fan stack, whose rows have a source each: tomosipo has no such geometry.
        ConfigError: tomosipo cannot be imported.
    """
    if scan.beam == "fan":
        raise GeometryError(
            f"a fan stack of {scan.detector_shape[0]} rows has no tomosipo geometry: each row has its own "
            f"source, and tomosipo's cone has one for all. Use a cone or a parallel beam."
        )
    ts = _tomosipo()
    source, detector, u, v = (
        np.ascontiguousarray(part[:, ::-1]) for part in (scan.source, scan.detector, scan.u, scan.v)
    )
    if scan.beam == "cone":
        return ts.cone_vec(shape=scan.detector_shape, src_pos=source, det_pos=detector, det_v=v, det_u=u)
    return ts.parallel_vec(shape=scan.detector_shape, ray_dir=source, det_pos=detector, det_v=v, det_u=u)


def from_tomosipo_volume(geometry: Any) -> VolumeGeometry:
    """The volume of a `ts.volume`, or of a `ts.volume_vec` that neither turns nor moves; lengths become mm.

    Reads `shape`, `pos`, `w`, `v` and `u`.

    Raises:
        GeometryError: no volume geometry, or one that is turned, mirrored or moving: our grids stand still
            along z, y, x.
        ConfigError: tomosipo cannot be imported.
    """
    _tomosipo()
    try:
        shape = tuple(int(n) for n in geometry.shape)
        steps = np.stack([_vectors(geometry, name) for name in ("pos", "w", "v", "u")], axis=1)
    except AttributeError as error:
        raise _not_a("volume", geometry, error) from error
    position, axes = steps[0, 0], steps[0, 1:]
    voxel = axes.diagonal()
    scale = 1e-6 * np.abs(voxel).max()
    if np.abs(axes - np.diag(voxel)).max() > scale or (voxel <= 0).any():
        raise GeometryError(
            f"the tomosipo volume's axes w, v, u are {axes.tolist()}; ours run along z, y, x. Apply the "
            f"inverse turn to the projection geometry instead."
        )
    if np.abs(steps - steps[0]).max() > scale:
        raise GeometryError(
            f"the tomosipo volume moves over its {len(steps)} steps; ours stands still. Apply the inverse "
            f"motion to the projection geometry instead."
        )
    z, y, x = (float(p) for p in position)
    dz, dy, dx = (float(s) for s in voxel)
    return VolumeGeometry((shape[0], shape[1], shape[2]), (dz, dy, dx), (x, y, z))


def from_tomosipo_scan(geometry: Any) -> ScanGeometry:
    """The scan of a cone or parallel geometry of tomosipo, with vectors or with angles; lengths become mm.

    Reads `is_cone`, `is_parallel`, `det_shape`, `det_pos`, `det_v`, `det_u` and `src_pos` or `ray_dir`. The
    rays of `ts.parallel` point towards the source: the same lines, but `angles` of the scan are half a turn off.

    Raises:
        GeometryError: no cone or parallel projection geometry, or rays that cannot be.
        ConfigError: tomosipo cannot be imported.
    """
    _tomosipo()
    try:
        if not (geometry.is_cone or geometry.is_parallel):
            raise GeometryError(
                f"the tomosipo geometry {type(geometry).__name__} is neither a cone nor a parallel beam; "
                f"convert it to one of these"
            )
        source = "src_pos" if geometry.is_cone else "ray_dir"
        parts = [_vectors(geometry, name) for name in (source, "det_pos", "det_u", "det_v")]
        rows, columns = geometry.det_shape
    except AttributeError as error:
        raise _not_a("projection", geometry, error) from error
    vectors = np.concatenate([part[:, ::-1] for part in parts], axis=1)
    return ScanGeometry("cone" if geometry.is_cone else "parallel", (rows, columns), vectors)


def _vectors(geometry: Any, name: str) -> np.ndarray:
    return np.asarray(getattr(geometry, name), dtype=np.float64)


def _not_a(kind: str, geometry: Any, error: AttributeError) -> GeometryError:
    return GeometryError(
        f"a tomosipo {kind} geometry was expected, but {type(geometry).__name__} is none ({error}). Pass what "
        f"tomosipo itself returns."
    )


def _tomosipo() -> Any:
    """The module, made to work under numpy 2.

    Called for objects that tomosipo made as well: under numpy 2 their attributes fail like its functions.
    """
    try:
        import tomosipo as ts
    except ImportError as error:
        raise ConfigError(
            f"tomosipo cannot be imported ({error}). It is not on the package index: install it from its "
            f"repository, ahendriksen/tomosipo on GitHub, beside astra-toolbox."
        ) from error
    try:
        ts.volume(shape=1)
    except (TypeError, ValueError):
        _restore_copy_false()
    return ts


def _restore_copy_false() -> None:
    """Give tomosipo's modules a numpy whose `array(copy=False)` copies where it must, as before numpy 2.

    tomosipo up to 0.6.0 calls it so in some twenty places. numpy itself is left alone, and a tomosipo that works
    under numpy 2 never comes here.
    """
    numpy_1 = ModuleType("numpy")
    vars(numpy_1).update(vars(np), array=_array_of_numpy_1)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "tomosipo" and getattr(module, "np", None) is np:
            module.np = numpy_1  # type: ignore[attr-defined]


def _array_of_numpy_1(value: Any, dtype: Any = None, *, copy: bool = True, ndmin: int = 0) -> np.ndarray:
    return np.array(value, dtype=dtype, copy=copy or None, ndmin=ndmin)
