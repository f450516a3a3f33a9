"""The dictionaries equal those that ASTRA makes; whatever they cannot say is refused."""

import numpy as np
import pytest

from volrecon.errors import GeometryError
from volrecon.geometry import VolumeGeometry, cone, fan, from_vectors, helical, parallel
from volrecon.geometry.astra_dicts import (
    SCAN_TYPES,
    scan_from_astra,
    scan_row_to_astra,
    scan_to_astra,
    volume_from_astra,
    volume_slice_to_astra,
    volume_to_astra,
)

astra = pytest.importorskip("astra")

ANGLES = np.array([0.0, 0.4, 1.3, 2.2, 3.6, 5.0])
VOLUME = VolumeGeometry((5, 20, 28), (0.7, 0.5, 0.5), (1.5, -0.75, 0.35))
CONE = cone(
    source_to_object_mm=60,
    source_to_detector_mm=90,
    detector_shape=(5, 41),
    pixel_mm=(0.9, 0.6),
    angles=ANGLES,
    detector_offset_mm=(0.0, 1.1),
    axis_shift_mm=0.4,
)
FAN = fan(
    source_to_object_mm=60,
    source_to_detector_mm=90,
    columns=41,
    pixel_mm=0.6,
    angles=ANGLES,
    rows=3,
    row_pitch_mm=0.7,
    detector_offset_mm=1.1,
    axis_shift_mm=0.4,
)
PARALLEL = parallel(detector_shape=(3, 41), pixel_mm=(0.7, 0.45), angles=ANGLES, axis_shift_mm=-0.3)
IN_SLICE = {"fan": (FAN, 2), "parallel": (PARALLEL, 0), "cone mid-plane": (CONE, 2)}
"""Scans with a row that ASTRA's 2D geometries can hold."""

BY_ANGLES = {
    "cone": ("cone", 0.6, 0.9, 5, 41, ANGLES, 60.0, 30.0),
    "cone, detector on the axis": ("cone", 0.6, 0.9, 5, 41, ANGLES, 60.0, 0.0),
    "parallel3d": ("parallel3d", 0.6, 0.9, 5, 41, ANGLES),
    "fanflat": ("fanflat", 0.6, 41, ANGLES, 60.0, 30.0),
    "fanflat, detector on the axis": ("fanflat", 0.4, 41, ANGLES, 60.0, 0.0),
    "parallel": ("parallel", 0.6, 41, ANGLES),
}
"""Arguments of astra.create_proj_geom for the types with angles."""


def same_dict(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if key == "option":
            same_dict(ours[key], value)
        elif key == "type":
            assert ours[key] == value
        else:
            np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-12, err_msg=key)


# Volumes


def test_volume_equals_create_vol_geom():
    (sz, sy, sx), (cx, cy, cz) = VOLUME.size_xyz_mm[::-1], VOLUME.centre_xyz_mm
    window = (cx - sx / 2, cx + sx / 2, cy - sy / 2, cy + sy / 2, cz - sz / 2, cz + sz / 2)
    same_dict(volume_to_astra(VOLUME), astra.create_vol_geom(20, 28, 5, *window))
    same_dict(volume_slice_to_astra(VOLUME), astra.create_vol_geom(20, 28, *window[:4]))
    assert astra.geom_size(volume_to_astra(VOLUME)) == VOLUME.shape
    assert astra.geom_size(volume_slice_to_astra(VOLUME)) == VOLUME.shape[1:]


def same_volume(a: VolumeGeometry, b: VolumeGeometry) -> None:
    assert a.shape == b.shape
    np.testing.assert_allclose(a.voxel_zyx_mm, b.voxel_zyx_mm, rtol=1e-12)
    np.testing.assert_allclose(a.centre_xyz_mm, b.centre_xyz_mm, rtol=0, atol=1e-12)


def test_volume_round_trip():
    same_volume(volume_from_astra(volume_to_astra(VOLUME)), VOLUME)
    flat = VolumeGeometry((1, 20, 28), (0.7, 0.5, 0.5), (1.5, -0.75, 0.0))
    same_volume(volume_from_astra(volume_slice_to_astra(VOLUME), slice_mm=0.7), flat)


def test_volume_from_astra_reads_what_astra_makes():
    same_volume(volume_from_astra(astra.create_vol_geom(5, 6, 7)), VolumeGeometry((7, 5, 6), (1, 1, 1)))
    same_volume(volume_from_astra(astra.create_vol_geom(5, 6)), VolumeGeometry((1, 5, 6), (1, 1, 1)))
    moved = astra.functions.move_vol_geom(astra.create_vol_geom(5, 6, 7), (1.0, 2.0, 3.0))
    same_volume(volume_from_astra(moved), VolumeGeometry((7, 5, 6), (1, 1, 1), (1, 2, 3)))
    without_window = {"GridRowCount": 5.0, "GridColCount": 6.0, "GridSliceCount": 7.0}
    same_volume(volume_from_astra(without_window), VolumeGeometry((7, 5, 6), (1, 1, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GridRowCount": 5.5}, "GridRowCount is 5.5; it must be a whole number"),
        ({"GridRowCount": 0}, "shape"),
        ({"GridRowCount": "many"}, "create_vol_geom"),
        ({"option": {"WindowMinX": 4.0, "WindowMaxX": 3.0}}, "voxel size in x"),
        ({"option": {"WindowMinX": "left"}}, "create_vol_geom"),
        ({"option": None}, "create_vol_geom"),
    ],
)
def test_volume_refused(change, message):
    with pytest.raises(GeometryError, match=message):
        volume_from_astra({**astra.create_vol_geom(5, 6, 7), **change})


def test_volume_without_counts_refused():
    with pytest.raises(GeometryError, match=r"KeyError\('GridRowCount'\).*create_vol_geom"):
        volume_from_astra({"option": {}})


# Scans in 3D


def test_cone_equals_geom_2vec():
    theirs = astra.geom_2vec(astra.create_proj_geom(*BY_ANGLES["cone"]))
    ours = cone(
        source_to_object_mm=60,
        source_to_detector_mm=90,
        detector_shape=(5, 41),
        pixel_mm=(0.9, 0.6),
        angles=ANGLES,
    )
    same_dict(scan_to_astra(ours), theirs)
    assert astra.geom_size(scan_to_astra(ours)) == ours.shape


def test_parallel_equals_geom_2vec_but_for_the_direction_along_the_ray():
    theirs = astra.geom_2vec(astra.create_proj_geom(*BY_ANGLES["parallel3d"]))
    ours = scan_to_astra(parallel(detector_shape=(5, 41), pixel_mm=(0.9, 0.6), angles=ANGLES))
    ours["Vectors"][:, :3] *= -1
    same_dict(ours, theirs)


@pytest.mark.parametrize("scan", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_3d_round_trip_is_exact_and_copies(scan):
    geometry = scan_to_astra(scan)
    assert scan_from_astra(geometry) == scan
    geometry["Vectors"][:] = 0
    assert scan.vectors.any()


@pytest.mark.parametrize("name", BY_ANGLES)
def test_types_with_angles_equal_geom_2vec(name):
    geometry = astra.create_proj_geom(*BY_ANGLES[name])
    scan = scan_from_astra(geometry, row_pitch_mm=0.9)
    expected = scan_from_astra(astra.geom_2vec(geometry), row_pitch_mm=0.9)
    assert scan.beam == expected.beam
    assert scan.detector_shape == expected.detector_shape
    ray = slice(0, 3)
    sign = -1 if scan.beam == "parallel" else 1
    np.testing.assert_allclose(scan.vectors[:, ray], sign * expected.vectors[:, ray], atol=1e-12)
    np.testing.assert_allclose(scan.vectors[:, 3:], expected.vectors[:, 3:], atol=1e-12)
    np.testing.assert_allclose(scan.angles, ANGLES, atol=1e-12)


# Scans in 2D


@pytest.mark.parametrize("name", IN_SLICE)
def test_row_has_the_dictionary_of_create_proj_geom(name):
    scan, row = IN_SLICE[name]
    geometry = scan_row_to_astra(scan, row)
    same_dict(geometry, astra.create_proj_geom(geometry["type"], 41, geometry["Vectors"]))
    assert geometry["type"] == ("parallel_vec" if scan.beam == "parallel" else "fanflat_vec")
    assert geometry["Vectors"].flags.c_contiguous


@pytest.mark.parametrize("scan", [FAN, PARALLEL], ids=["fan", "parallel"])
def test_row_round_trip_loses_only_its_height(scan):
    for row in range(3):
        line = scan.crop_rows(row, row + 1)
        vectors = line.vectors.copy()
        vectors[:, [2, 5]] = 0
        back = scan_from_astra(scan_row_to_astra(scan, row), row_pitch_mm=0.7)
        assert back == from_vectors(scan.beam, (1, 41), vectors)


# What is refused


@pytest.mark.parametrize("voxel", [(1, 0.6, 0.4), (1, 0.4, 0.6)])
def test_slices_of_oblong_pixels_are_refused(voxel):
    volume = VolumeGeometry((5, 20, 28), voxel)
    with pytest.raises(GeometryError, match=r"0\.\d mm in y and 0\.\d mm in x.*square"):
        volume_slice_to_astra(volume)
    same_volume(volume_from_astra(volume_to_astra(volume)), volume)


def test_fan_stack_has_no_3d_form():
    with pytest.raises(GeometryError, match=r"3 rows has no 3D ASTRA geometry.*scan_row_to_astra"):
        scan_to_astra(FAN)


def test_rows_that_leave_their_slice_are_refused():
    with pytest.raises(GeometryError, match=r"row 3 was asked for.*cone.*source's height.*scan_to_astra"):
        scan_row_to_astra(CONE, 3)
    even = cone(source_to_object_mm=60, source_to_detector_mm=90, detector_shape=(4, 41), pixel_mm=0.6, angles=ANGLES)
    for row in range(4):
        with pytest.raises(GeometryError, match="do not stay in one slice"):
            scan_row_to_astra(even, row)
    inclined = parallel(detector_shape=(3, 41), pixel_mm=0.6, angles=ANGLES, elevation=0.01)
    with pytest.raises(GeometryError, match=r"parallel beam do not stay.*Use scan_to_astra"):
        scan_row_to_astra(inclined, 1)


def test_a_moving_or_rolled_row_is_refused():
    helix = helical(
        source_to_object_mm=60,
        source_to_detector_mm=90,
        detector_shape=(1, 41),
        pixel_mm=0.6,
        angles=ANGLES,
        pitch_mm=5,
    )
    with pytest.raises(GeometryError, match="do not stay in one slice: in view 5"):
        scan_row_to_astra(helix, 0)
    rolled = cone(
        source_to_object_mm=60,
        source_to_detector_mm=90,
        detector_shape=(5, 41),
        pixel_mm=0.6,
        angles=ANGLES,
        tilt=(0.01, 0, 0),
    )
    with pytest.raises(GeometryError, match="do not stay in one slice"):
        scan_row_to_astra(rolled, 2)
    vectors = FAN.vectors.copy()
    vectors[3, 2] += 1
    with pytest.raises(GeometryError, match=r"in view 3.*No ASTRA geometry describes such a fan"):
        scan_row_to_astra(from_vectors("fan", (3, 41), vectors), 1)


@pytest.mark.parametrize("row", [-1, 3])
def test_row_outside_the_detector_is_refused(row):
    with pytest.raises(GeometryError, match="not inside a detector of 3 rows"):
        scan_row_to_astra(FAN, row)


@pytest.mark.parametrize("kind", ["cyl_cone_vec", "sparse_matrix", "helix", None])
def test_other_types_are_refused_by_name(kind):
    with pytest.raises(GeometryError, match=f"type {kind!r} cannot be imported; choose one of cone, "):
        scan_from_astra({"type": kind, "Vectors": np.zeros((2, 13))})


def test_not_a_dictionary_is_refused():
    with pytest.raises(GeometryError, match="type None cannot be imported"):
        scan_from_astra([1, 2, 3])


@pytest.mark.parametrize("kind", SCAN_TYPES)
def test_missing_entries_are_named(kind):
    with pytest.raises(GeometryError, match=rf"type '{kind}' cannot be read \(KeyError\('\w+'\)\).*create_proj_geom"):
        scan_from_astra({"type": kind})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cone", {"ProjectionAngles": np.arange(0, 360.0)}, "look like degrees"),
        ("cone", {"DetectorRowCount": 2.5}, "DetectorRowCount is 2.5; it must be a whole number"),
        ("cone", {"DistanceOriginDetector": -30.0}, r"DistanceOriginDetector is -30.0 mm; .* not below 0"),
        ("cone", {"DistanceOriginDetector": float("nan")}, "DistanceOriginDetector is nan"),
        ("cone", {"DistanceOriginSource": 0.0}, "source_to_object_mm is 0.0 mm"),
        ("fanflat", {"DetectorWidth": 0.0}, "detector pixel in u is 0 mm"),
        ("parallel", {"ProjectionAngles": "none"}, "cannot be read"),
        ("parallel3d", {"DetectorSpacingY": float("inf")}, "detector pixel in v"),
    ],
)
def test_entries_that_cannot_be_are_refused(name, change, message):
    with pytest.raises(GeometryError, match=message):
        scan_from_astra({**astra.create_proj_geom(*BY_ANGLES[name]), **change})


@pytest.mark.parametrize("kind", ["fanflat_vec", "parallel_vec", "cone_vec", "parallel3d_vec"])
def test_vectors_of_another_width_are_refused(kind):
    counts = {"DetectorCount": 4, "DetectorRowCount": 4, "DetectorColCount": 4}
    with pytest.raises(GeometryError, match=r"\(2, 7\); expected \(views, (6|12)\)"):
        scan_from_astra({"type": kind, "Vectors": np.ones((2, 7)), **counts})


def test_angles_over_many_turns_can_be_trusted():
    angles = np.linspace(0, 20, 50)
    geometry = astra.create_proj_geom("fanflat", 0.6, 41, angles, 60.0, 30.0)
    assert scan_from_astra(geometry, trust_angles=True).views == 50
