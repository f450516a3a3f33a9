"""The bridge against a module with tomosipo's documented conventions, and against tomosipo itself where installed.

No operator of tomosipo is ever applied here: without a GPU that ends the process.
"""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from volrecon.errors import ConfigError, GeometryError
from volrecon.geometry import VolumeGeometry, cone, fan, parallel
from volrecon.geometry.astra_dicts import scan_to_astra, volume_to_astra
from volrecon.geometry.tomosipo import (
    from_tomosipo_scan,
    from_tomosipo_volume,
    to_tomosipo_scan,
    to_tomosipo_volume,
)

ANGLES = np.array([0.0, 0.7, 2.1, 4.0])
VOLUME = VolumeGeometry((5, 6, 7), (0.5, 0.75, 1.25), (1.0, 2.0, 3.0))
CONE = cone(
    source_to_object_mm=60,
    source_to_detector_mm=90,
    detector_shape=(5, 9),
    pixel_mm=(0.9, 0.6),
    angles=ANGLES,
    detector_offset_mm=(0.2, 1.1),
    tilt=(0.02, 0.01, -0.03),
)
PARALLEL = parallel(detector_shape=(5, 9), pixel_mm=(0.9, 0.6), angles=ANGLES, elevation=0.2)
FAN = fan(source_to_object_mm=60, source_to_detector_mm=90, columns=9, pixel_mm=0.6, angles=ANGLES, rows=3)
AXES = {
    "pos": np.array([(3.0, 2.0, 1.0)]),
    "w": np.array([(0.5, 0.0, 0.0)]),
    "v": np.array([(0.0, 0.75, 0.0)]),
    "u": np.array([(0.0, 0.0, 1.25)]),
}
"""VOLUME as the arguments of ts.volume_vec; arrays, which even a tomosipo that numpy 2 breaks accepts."""

SCANS = pytest.mark.parametrize("scan", [CONE, PARALLEL], ids=["cone", "parallel"])


def fake_tomosipo(breaks_under_numpy_2: bool) -> ModuleType:
    """tomosipo's constructors by its documentation: keywords only, (z, y, x) triples, (v, u) detector shapes."""
    ts, types = ModuleType("tomosipo"), ModuleType("tomosipo.types")
    types.np = np

    def to_vec(value):
        if not breaks_under_numpy_2:
            return np.atleast_2d(np.asarray(value, dtype=np.float64))
        try:
            return types.np.array(value, dtype=types.np.float64, copy=False, ndmin=2)
        except ValueError:
            raise TypeError(f"Could not convert vector to np.array. Got: {value!r}.") from None

    def volume_vec(*, shape, pos, w, v, u):
        pos, w, v, u = np.broadcast_arrays(*(to_vec(value) for value in (pos, w, v, u)))
        return SimpleNamespace(shape=shape, pos=pos, w=w, v=v, u=u)

    def volume(*, shape, pos=(0, 0, 0), size=(1, 1, 1)):
        shape = (shape,) * 3 if isinstance(shape, int) else shape
        w, v, u = np.diag(np.array(size) / shape)
        return volume_vec(shape=shape, pos=pos, w=w, v=v, u=u)

    def projection(is_cone, shape, names, values):
        vectors = dict(zip(names, (to_vec(value) for value in values), strict=True))
        return SimpleNamespace(is_cone=is_cone, is_parallel=not is_cone, det_shape=shape, **vectors)

    def cone_vec(*, shape, src_pos, det_pos, det_v, det_u):
        names = ("src_pos", "det_pos", "det_v", "det_u")
        return projection(True, shape, names, (src_pos, det_pos, det_v, det_u))

    def parallel_vec(*, shape, ray_dir, det_pos, det_v, det_u):
        names = ("ray_dir", "det_pos", "det_v", "det_u")
        return projection(False, shape, names, (ray_dir, det_pos, det_v, det_u))

    ts.volume, ts.volume_vec, ts.cone_vec, ts.parallel_vec, ts.types = (
        volume,
        volume_vec,
        cone_vec,
        parallel_vec,
        types,
    )
    return ts


@pytest.fixture(params=["healthy", "breaks under numpy 2"])
def fake(request, monkeypatch):
    ts = fake_tomosipo(breaks_under_numpy_2=request.param != "healthy")
    monkeypatch.setitem(sys.modules, "tomosipo", ts)
    monkeypatch.setitem(sys.modules, "tomosipo.types", ts.types)
    return ts


@pytest.fixture
def real():
    return pytest.importorskip("tomosipo")


def same_volume(a: VolumeGeometry, b: VolumeGeometry) -> None:
    assert a.shape == b.shape
    np.testing.assert_allclose(a.voxel_zyx_mm, b.voxel_zyx_mm, rtol=1e-12)
    np.testing.assert_allclose(a.centre_xyz_mm, b.centre_xyz_mm, rtol=1e-12)


# Against the documented conventions


def test_volume_arguments(fake):
    made = to_tomosipo_volume(VOLUME)
    assert made.shape == (5, 6, 7)
    np.testing.assert_array_equal(made.pos, [(3.0, 2.0, 1.0)])
    np.testing.assert_allclose([made.w[0], made.v[0], made.u[0]], np.diag((0.5, 0.75, 1.25)))
    same_volume(from_tomosipo_volume(made), VOLUME)


@SCANS
def test_scan_vectors_are_reversed(fake, scan):
    made = to_tomosipo_scan(scan)
    assert made.det_shape == (5, 9)
    source = made.src_pos if scan.beam == "cone" else made.ray_dir
    for ours, theirs in zip(
        (scan.source, scan.detector, scan.u, scan.v), (source, made.det_pos, made.det_u, made.det_v), strict=True
    ):
        np.testing.assert_array_equal(theirs, ours[:, ::-1])
    assert (made.is_cone, made.is_parallel) == (scan.beam == "cone", scan.beam == "parallel")
    assert from_tomosipo_scan(made) == scan


def test_a_volume_that_stands_still_may_have_many_steps(fake):
    still = fake.volume_vec(shape=(5, 6, 7), **{**AXES, "pos": np.repeat(AXES["pos"], 4, axis=0)})
    same_volume(from_tomosipo_volume(still), VOLUME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": [(0.5, 0.1, 0)]}, r"axes w, v, u are \[\[0.5, 0.1, 0.0\].*inverse turn"),
        ({"u": [(0, 0, -1.25)]}, "inverse turn"),
        ({"pos": [(3, 2, 1), (3, 2, 1.1)]}, "moves over its 2 steps.*inverse motion"),
        ({"w": [(0.5, 0, 0), (0.6, 0, 0)]}, "moves over its 2 steps"),
    ],
)
def test_turned_mirrored_and_moving_volumes_are_refused(fake, change, message):
    changed = {name: np.array(value, dtype=float) for name, value in change.items()}
    geometry = fake.volume_vec(shape=(5, 6, 7), **{**AXES, **changed})
    with pytest.raises(GeometryError, match=message):
        from_tomosipo_volume(geometry)


def test_other_objects_are_refused(fake):
    with pytest.raises(GeometryError, match="tomosipo volume geometry was expected, but ndarray is none"):
        from_tomosipo_volume(np.zeros((5, 6, 7)))
    with pytest.raises(GeometryError, match="tomosipo projection geometry was expected, but SimpleNamespace"):
        from_tomosipo_scan(to_tomosipo_volume(VOLUME))
    with pytest.raises(GeometryError, match="neither a cone nor a parallel beam"):
        from_tomosipo_scan(SimpleNamespace(is_cone=False, is_parallel=False))


def test_numpy_is_replaced_only_inside_a_tomosipo_that_needs_it(monkeypatch):
    array = np.array
    for breaks in (False, True):
        ts = fake_tomosipo(breaks)
        monkeypatch.setitem(sys.modules, "tomosipo", ts)
        monkeypatch.setitem(sys.modules, "tomosipo.types", ts.types)
        to_tomosipo_volume(VOLUME)
        needed = breaks and int(np.__version__.partition(".")[0]) >= 2
        assert (ts.types.np is not np) == needed
    assert np.array is array


def test_fan_stack_is_refused():
    with pytest.raises(GeometryError, match="fan stack of 3 rows has no tomosipo geometry"):
        to_tomosipo_scan(FAN)


def test_missing_tomosipo_says_where_it_comes_from(monkeypatch):
    monkeypatch.setitem(sys.modules, "tomosipo", None)
    for call in (
        lambda: to_tomosipo_volume(VOLUME),
        lambda: to_tomosipo_scan(CONE),
        lambda: from_tomosipo_volume(None),
        lambda: from_tomosipo_scan(None),
    ):
        with pytest.raises(ConfigError, match=r"not on the package index.*ahendriksen/tomosipo"):
            call()


def test_the_bridge_does_not_import_tomosipo():
    code = "import sys, volrecon.geometry.tomosipo; sys.exit('tomosipo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Against tomosipo itself


def test_real_volume(real):
    made = to_tomosipo_volume(VOLUME)
    same_volume(from_tomosipo_volume(made), VOLUME)
    same_volume(from_tomosipo_volume(made.to_vec()), VOLUME)
    theirs, ours = made.to_astra(), volume_to_astra(VOLUME)
    assert theirs.keys() == ours.keys()
    assert theirs["option"] == pytest.approx(ours["option"], abs=1e-12)
    assert from_tomosipo_volume(real.volume(shape=4)) == VolumeGeometry((4, 4, 4), (1, 1, 1))


@SCANS
def test_real_scan(real, scan):
    made = to_tomosipo_scan(scan)
    assert from_tomosipo_scan(made) == scan
    theirs, ours = made.to_astra(), scan_to_astra(scan)
    np.testing.assert_array_equal(theirs.pop("Vectors"), ours.pop("Vectors"))
    assert theirs == ours


@SCANS
def test_real_points_fall_on_the_same_pixels(real, scan):
    point = np.array([1.5, -2.0, 0.7])
    forms = scan.pixel_forms() @ [*point, 1.0]
    row, column = forms[:, 1] / forms[:, 3], forms[:, 0] / forms[:, 2]
    from_centre = to_tomosipo_scan(scan).project_point(tuple(point[::-1]))
    centre = (np.array(scan.detector_shape) - 1) / 2
    # project_point measures along u and v by dot products: exact where they are orthogonal, as here.
    np.testing.assert_allclose(np.stack([row, column], axis=1), from_centre + centre, atol=1e-9)


def test_real_circular_cone_is_ours(real):
    theirs = real.cone(angles=ANGLES, shape=(5, 9), size=(4.5, 5.4), src_orig_dist=60, src_det_dist=90)
    ours = cone(
        source_to_object_mm=60,
        source_to_detector_mm=90,
        detector_shape=(5, 9),
        pixel_mm=(0.9, 0.6),
        angles=ANGLES,
    )
    found = from_tomosipo_scan(theirs)
    assert found.beam == "cone"
    np.testing.assert_allclose(found.vectors, ours.vectors, atol=1e-12)


def test_real_parallel_is_ours_but_for_the_direction_along_the_ray(real):
    theirs = real.parallel(angles=ANGLES, shape=(5, 9), size=(4.5, 5.4))
    ours = parallel(detector_shape=(5, 9), pixel_mm=(0.9, 0.6), angles=ANGLES)
    found = from_tomosipo_scan(theirs)
    assert found.beam == "parallel"
    np.testing.assert_allclose(found.source, -ours.source, atol=1e-12)
    np.testing.assert_allclose(found.vectors[:, 3:], ours.vectors[:, 3:], atol=1e-12)


def test_real_turned_and_moving_volumes_are_refused(real):
    volume = to_tomosipo_volume(VOLUME).to_vec()
    turn = real.rotate(pos=0, axis=(1, 0, 0), angles=[0.3])
    with pytest.raises(GeometryError, match="inverse turn"):
        from_tomosipo_volume(turn * volume)
    with pytest.raises(GeometryError, match="moves over its 2 steps"):
        from_tomosipo_volume(real.translate([(0, 0, 0), (1, 0, 0)]) * volume)


def test_real_objects_of_the_other_kind_are_refused(real):
    with pytest.raises(GeometryError, match="volume geometry was expected, but ConeVectorGeometry"):
        from_tomosipo_volume(to_tomosipo_scan(CONE))
    with pytest.raises(GeometryError, match="projection geometry was expected, but VolumeGeometry"):
        from_tomosipo_scan(to_tomosipo_volume(VOLUME))
