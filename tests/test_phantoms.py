"""Closed forms against brute force, and what every seed of the anatomy promises."""

import numpy as np
import pytest

from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry
from volrecon.phantoms import anatomy, ball, ball_line_integral, box, box_line_integral
from volrecon.phantoms.canvas import Canvas, Place
from volrecon.phantoms.texture import Lattice
from volrecon.phantoms.tubes import Tubes, grow, path

CENTRE, RADIUS = (1.3, -2.1, 0.7), 4.2
LOW, HIGH = (-3.3, -4.1, 0.2), (2.6, 1.9, 5.4)


def cube(n):
    return VolumeGeometry((n, n, n), (380 / n,) * 3)


def halved(array):
    a, b, c = (n // 2 for n in array.shape)
    return array.reshape(a, 2, b, 2, c, 2).mean(axis=(1, 3, 5))


@pytest.fixture(scope="module")
def patient():
    return anatomy(cube(64), seed=1)


def random_lines(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-6, 6, (count, 3)), rng.standard_normal((count, 3))


def sampled_integral(origin, direction, inside):
    """Midpoint rule over 40 mm of a line."""
    t = (np.arange(40_000) + 0.5) / 1000 - 20
    points = origin + t[:, None] * direction / np.linalg.norm(direction)
    return inside(points).mean() * 40


def test_ball_line_integral_is_the_sampled_one():
    origin, direction = random_lines(25)
    closed = ball_line_integral(origin, direction, CENTRE, RADIUS, 0.5)
    inside = lambda p: np.linalg.norm(p - CENTRE, axis=1) <= RADIUS  # noqa: E731
    sampled = [0.5 * sampled_integral(o, d, inside) for o, d in zip(origin, direction, strict=True)]
    assert (closed > 0).any()
    np.testing.assert_allclose(closed, sampled, atol=2e-3)


def test_box_line_integral_is_the_sampled_one():
    origin, direction = random_lines(25, seed=1)
    direction[:3] = [[0, 0, 1], [1, 0, 0], [0, 1, -1]]
    closed = box_line_integral(origin, direction, LOW, HIGH, 0.5)
    inside = lambda p: ((p >= LOW) & (p <= HIGH)).all(axis=1)  # noqa: E731
    sampled = [0.5 * sampled_integral(o, d, inside) for o, d in zip(origin, direction, strict=True)]
    assert (closed > 0).any()
    np.testing.assert_allclose(closed, sampled, atol=2e-3)


def test_line_integrals_know_the_chord_through_the_middle_whatever_the_direction_is_scaled_by():
    for scale in (1.0, -3.0, 1e-6):
        assert ball_line_integral(np.array(CENTRE), np.array([0, scale, 0]), CENTRE, RADIUS, 2.0) == pytest.approx(
            4 * RADIUS
        )
        along_x = box_line_integral(np.array([99.0, 0, 1]), np.array([scale, 0, 0]), LOW, HIGH, 2.0)
        assert along_x == pytest.approx(2 * 5.9)


def test_lines_past_a_shape_give_exactly_zero():
    origin, direction = np.array([[0, 0, 50.0]]), np.array([[1.0, 0, 0]])
    assert ball_line_integral(origin, direction, CENTRE, RADIUS, 1.0).tolist() == [0.0]
    assert box_line_integral(origin, direction, LOW, HIGH, 1.0).tolist() == [0.0]


def test_line_integrals_broadcast_one_source_over_many_directions():
    directions = np.random.default_rng(3).standard_normal((4, 5, 3))
    assert ball_line_integral(np.array([0, -20.0, 0]), directions, CENTRE, RADIUS, 1.0).shape == (4, 5)
    assert box_line_integral(np.array([0, -20.0, 0]), directions, LOW, HIGH, 1.0).shape == (4, 5)


@pytest.mark.parametrize("voxel_zyx_mm", [(0.5, 0.5, 0.5), (0.9, 0.5, 0.6)])
def test_ball_and_box_hold_their_volume_and_centre(voxel_zyx_mm):
    grid = VolumeGeometry((26, 30, 28), voxel_zyx_mm, (0.2, -0.3, 0.1))
    cell = np.prod(voxel_zyx_mm)
    sphere = ball(grid, CENTRE, RADIUS, 0.02)
    assert sphere.dtype == np.float32
    assert sphere.shape == grid.shape
    assert sphere.sum(dtype=float) * cell == pytest.approx(0.02 * 4 / 3 * np.pi * RADIUS**3, rel=2e-3)
    brick = box(grid, LOW, HIGH, 0.02)
    assert brick.sum(dtype=float) * cell == pytest.approx(0.02 * np.prod(np.subtract(HIGH, LOW)), rel=1e-5)
    for array, middle in ((sphere, CENTRE), (brick, np.add(LOW, HIGH) / 2)):
        indices = [np.average(np.arange(n), weights=array.sum(axis=others, dtype=float))
                   for n, others in zip(grid.shape, [(1, 2), (0, 2), (0, 1)], strict=True)]  # fmt: skip
        found = grid.origin_xyz_mm + grid.voxel_xyz_mm * indices[::-1]
        np.testing.assert_allclose(found, middle, atol=0.01)


def test_ball_far_outside_the_grid_and_ball_around_it():
    grid = VolumeGeometry((4, 4, 4), (1, 1, 1))
    assert not ball(grid, (50, 0, 0), 3, 1.0).any()
    assert (ball(grid, (0, 0, 0), 50, 1.0) == 1).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda g: ball(g, (0, 0, 0), 0.0, 1.0),
        lambda g: ball(g, (0, 0), 1.0, 1.0),
        lambda g: ball(g, (0, 0, np.nan), 1.0, 1.0),
        lambda g: box(g, (0, 0, 0), (1, 1, 0), 1.0),
        lambda g: ball_line_integral(np.zeros(3), np.zeros(3), (0, 0, 0), 1.0, 1.0),
        lambda g: box_line_integral(np.zeros((2, 2)), np.ones(3), LOW, HIGH, 1.0),
        lambda g: anatomy(g, seed=-1),
        lambda g: anatomy(g, seed=0, water_per_mm=0.0),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(call):
    with pytest.raises(ConfigError):
        call(VolumeGeometry((4, 4, 4), (1, 1, 1)))


def test_anatomy_is_one_object_per_seed_and_leaves_the_global_rng_alone(patient):
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again, other = anatomy(cube(64), seed=1), anatomy(cube(64), seed=2)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert again.tobytes() == patient.tobytes()
    assert np.abs(other - patient).max() > 0.01


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_anatomy_lies_in_air_and_is_never_negative(seed):
    grid = anatomy(VolumeGeometry((50, 40, 44), (2, 3, 3)), seed)
    assert grid.dtype == np.float32
    assert np.isfinite(grid).all()
    assert grid.min() == 0
    for axis, n in enumerate(grid.shape):
        rim = np.abs((np.arange(n) + 0.5) * 2 / n - 1) > 0.92
        assert not grid.compress(rim, axis=axis).any()


def test_anatomy_looks_the_same_at_half_the_resolution(patient):
    small = anatomy(cube(32), seed=1)
    assert np.corrcoef(halved(patient).ravel(), small.ravel())[0, 1] > 0.98
    assert small.mean() == pytest.approx(patient.mean(), rel=0.05)


def test_thick_slices_are_means_of_thin_ones(patient):
    thick = anatomy(VolumeGeometry((16, 64, 64), (20, 5, 5)), seed=1)
    np.testing.assert_allclose(thick, patient.reshape(16, 4, 64, 64).mean(axis=1), atol=1e-7)


def test_anatomy_does_not_depend_on_how_it_is_cut_into_slabs(patient, monkeypatch):
    monkeypatch.setattr("volrecon.phantoms.patient.SLAB_VOXELS", 5 * 64 * 64)
    np.testing.assert_allclose(anatomy(cube(64), seed=1), patient, atol=1e-7)


def test_anatomy_has_the_tissues_of_a_ct_and_scales_with_water(patient):
    hu = 1000 * (patient / 0.02 - 1)
    body = hu[patient > 0]
    for low, high, least in ((-950, -750, 0.05), (-140, -60, 0.08), (30, 90, 0.1), (90, 200, 0.05), (300, 1200, 0.01)):
        assert np.mean((body > low) & (body < high)) > least, (low, high)
    np.testing.assert_allclose(anatomy(cube(64), seed=1, water_per_mm=0.04), 2 * patient, rtol=1e-5)


def test_texture_has_unit_variance_and_no_trace_of_the_grid():
    rng = np.random.Generator(np.random.Philox(0))
    lattice = Lattice.draw(rng, 20)
    axis = (np.arange(80) + 0.5) / 40 - 1
    fine = lattice.on((axis, axis, axis), 1e-3)
    assert np.std(fine) == pytest.approx(1, abs=0.05)
    coarse_axis = (np.arange(40) + 0.5) / 20 - 1
    coarse = lattice.on((coarse_axis,) * 3, 2 / 40)
    np.testing.assert_allclose(halved(lattice.on((axis,) * 3, 2 / 80)), coarse, atol=0.02)


@pytest.mark.parametrize("radius", [0.004, 0.02, 0.05, 0.15])
def test_a_tube_keeps_its_mass_when_it_is_thinner_than_a_voxel(radius):
    axis = (np.arange(24, dtype=np.float32) + 0.5) / 12 - 1
    flat = np.zeros((24, 24, 24), np.float32)
    x, y = np.broadcast_to(axis, flat.shape), np.broadcast_to(axis[:, None], flat.shape)
    canvas = Canvas((axis,) * 3, 2 / 24, Place(x, y, axis[:, None, None], flat, flat), flat.copy(), flat.copy())
    tube = path(np.array([[0.013, 0.021, -3.0], [0.013, 0.021, 3.0]]), radius, 1)
    area = tube.coverage(canvas)[12].sum() * (2 / 24) ** 2
    assert area == pytest.approx(np.pi * radius**2, rel=0.12)


def test_a_tree_reaches_every_target_and_thins_out():
    rng = np.random.Generator(np.random.Philox(5))
    targets = rng.uniform(0.2, 1.0, (60, 3))
    tree = grow(np.zeros(3), targets, 0.01, rng)
    gaps = np.linalg.norm(targets[:, None] - tree.end[None], axis=2).min(axis=1)
    assert gaps.max() < 1e-12
    assert isinstance(tree, Tubes)
    assert tree.start_radius.max() == tree.start_radius[0] > 4 * tree.start_radius.min()
