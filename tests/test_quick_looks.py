"""Quick looks: what is drawn is where the scan and the volume say it is, and of large arrays little is read."""

import numpy as np
import pytest
from balls import GRID, ball_projections, small_scan
from matplotlib.image import imread
from matplotlib.patches import Polygon

from volrecon.errors import ConfigError, DataError
from volrecon.figures import bounded_reading, geometry_figure, projections_figure, scan_figure, volume_figure
from volrecon.figures.bounded_reading import cross_sections, middle_slice, rows_to_read, thinned
from volrecon.figures.geometry_figure import GeometryRow, Stage, rotation_sense, shown_angles
from volrecon.figures.panels import new_figure
from volrecon.figures.quick_look import LABELS, slice_panels
from volrecon.geometry import ScanGeometry, VolumeGeometry, cone, fan, parallel, suggest_grid

ANGLES = np.deg2rad(np.arange(0, 360, 6.0))
CONE = {"source_to_object_mm": 200.0, "source_to_detector_mm": 300.0, "detector_shape": (36, 32), "pixel_mm": 3.0}
BEAMS = ["cone", "fan", "parallel", "helical"]


class Counted:
    """An array of large claims that counts what is read of it."""

    def __init__(self, shape):
        self.shape, self.dtype, self.rows, self.most = shape, np.dtype(np.float32), 0, 0

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        self.rows, self.most = self.rows + stop - start, max(self.most, stop - start)
        block = np.zeros((stop - start, *self.shape[1:]), np.float32)
        return block + np.arange(start, stop, dtype=np.float32)[:, None, None]


def decoded(path, width):
    assert path.stat().st_size > 5_000
    image = imread(path)
    assert image.shape[1] == pytest.approx(width, abs=1)
    assert np.ptp(image[..., :3]) > 0.5
    return image


def drawn(scan, grid=GRID):
    """The axes seen from above and from the side."""
    row = GeometryRow(Stage(scan, grid))
    figure = new_figure(14.0, row.height, "")
    above, beside = row.draw(figure, 0.0)
    figure.canvas.draw()
    return above, beside


def polygons(axes):
    return [np.asarray(patch.get_xy())[:4] for patch in axes.patches if isinstance(patch, Polygon)]


@pytest.mark.parametrize("beam", ["cone", "fan", "helical"])
def test_dots_are_the_sources(beam):
    scan = small_scan(beam, 30)
    above, beside = drawn(scan)
    for axes, plane in ((above, [0, 1]), (beside, [1, 2])):
        (dots,) = axes.collections
        np.testing.assert_allclose(dots.get_offsets(), scan.source[:, plane], atol=1e-12)
        np.testing.assert_array_equal(dots.get_array(), np.arange(30))


@pytest.mark.parametrize("beam", BEAMS)
def test_panels_and_box_are_where_they_are(beam):
    scan = small_scan(beam, 30)
    stage = Stage(scan, GRID)
    assert stage.panels[0] == 0
    for axes, plane in zip(drawn(scan), ([0, 1], [1, 2]), strict=True):
        box, *panels = polygons(axes)
        half = GRID.size_xyz_mm / 2
        np.testing.assert_allclose(box.min(0), -half[plane])
        np.testing.assert_allclose(box.max(0), half[plane])
        for view, panel in zip(stage.panels, panels, strict=True):
            np.testing.assert_allclose(panel, stage.corners(view)[:, plane], atol=1e-9)


def test_corners_are_the_outer_edges_of_the_corner_pixels():
    scan = cone(**CONE, angles=ANGLES, detector_offset_mm=(5.0, 7.0), tilt=(0.1, 0.2, 0.3))
    for view in (0, 17):
        first = scan.rays()[view, 0] + scan.rays()[view, 3]  # pixel (0, 0) of a cone beam
        corner = first - scan.u[view] / 2 - scan.v[view] / 2
        corners = Stage(scan, GRID).corners(view)
        np.testing.assert_allclose(corners[0], corner, atol=1e-9)
        np.testing.assert_allclose(corners[2] - corners[0], 32 * scan.u[view] + 36 * scan.v[view], atol=1e-9)
        np.testing.assert_allclose(corners[1] - corners[0], 32 * scan.u[view], atol=1e-9)


@pytest.mark.parametrize("beam", BEAMS)
def test_the_beam_of_view_0_is_its_corner_rays(beam):
    scan = small_scan(beam, 12)
    stage = Stage(scan, GRID)
    origins, corners = stage.origins(0), stage.corners(0)
    rows, columns = scan.detector_shape
    rays = scan.rays()[0]
    for k, (row, column) in enumerate([(-0.5, -0.5), (-0.5, columns - 0.5), (rows - 0.5, columns - 0.5)]):
        start = rays[0] + column * rays[1] + row * rays[2]
        direction = rays[3] + column * rays[4] + row * rays[5]
        for point in (origins[k], corners[k]):
            np.testing.assert_allclose(np.cross(point - start, direction), 0, atol=1e-6)


def test_a_parallel_beam_is_put_on_both_sides_of_the_volume():
    scan = parallel(detector_shape=(10, 20), pixel_mm=2.0, angles=ANGLES, axis_shift_mm=4.0, elevation=0.3)
    grid = VolumeGeometry((10, 20, 20), (2.0, 2.0, 2.0), (3.0, -2.0, 1.0))
    stage = Stage(scan, grid)
    ray = scan.source / np.linalg.norm(scan.source, axis=1, keepdims=True)
    centre = np.array(grid.centre_xyz_mm)
    assert ((stage.sources - centre) * ray).sum(1).max() < -np.linalg.norm(grid.size_xyz_mm) / 2
    for view in (0, 20):
        panel = stage.corners(view).mean(0)
        assert (panel - centre) @ ray[view] > np.linalg.norm(grid.size_xyz_mm) / 2
        np.testing.assert_allclose(np.cross(panel - scan.detector[view], ray[view]), 0, atol=1e-9)
        np.testing.assert_allclose(np.cross(panel - stage.sources[view], ray[view]), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("angles", "sense", "words"),
    [(ANGLES, 1, "counter-clockwise"), (-ANGLES[:20], -1, " clockwise"), (ANGLES[:1], 0, "single view"),
     (np.tile(ANGLES[:2], 9), 0, "no order"), (ANGLES * 3, 1, "counter-clockwise")],
)  # fmt: skip
def test_the_sense_of_rotation(angles, sense, words):
    scan = cone(**CONE, angles=angles, trust_angles=True)
    assert rotation_sense(scan) == sense
    above, _ = drawn(scan)
    assert any(words in text.get_text() for text in above.figure.texts)
    arc = Stage(scan, GRID).arc
    assert (arc is None) == (sense == 0)
    if arc is not None:
        turned = np.unwrap(np.arctan2(arc[:, 1], arc[:, 0]))
        assert (sense * np.diff(turned) > 0).all()
        np.testing.assert_allclose(np.hypot(arc[:, 0], arc[:, 1]), 220.0)
        np.testing.assert_allclose(shown_angles(scan), angles, atol=1e-9)


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("views", [1, 2, 30])
def test_everything_is_inside_axes_of_equal_scale(beam, views):
    scan = small_scan(beam, views)
    above, beside = drawn(scan)
    scales = []
    for axes in (above, beside):
        assert axes.get_aspect() == 1.0
        window = axes.get_window_extent()
        assert 0 <= window.x0 < window.x1 <= 1400
        scales += [window.width / np.ptp(axes.get_xlim()), window.height / np.ptp(axes.get_ylim())]
        points = np.concatenate([axes.collections[0].get_offsets(), *polygons(axes)])
        assert (points.min(0) > (axes.get_xlim()[0], axes.get_ylim()[0])).all()
        assert (points.max(0) < (axes.get_xlim()[1], axes.get_ylim()[1])).all()
    np.testing.assert_allclose(scales, scales[0], rtol=1e-6)
    assert (above.get_xlabel(), above.get_ylabel()) == ("x [mm]", "y [mm]")
    assert (beside.get_xlabel(), beside.get_ylabel()) == ("y [mm]", "z [mm]")


@pytest.mark.parametrize(
    "scan",
    [
        cone(**{**CONE, "detector_shape": (1, 4)}, angles=[0.0]),
        fan(source_to_object_mm=1e4, source_to_detector_mm=2e4, columns=9, pixel_mm=1e-3, angles=ANGLES),
        ScanGeometry("cone", (9, 9), np.tile([0, 0, -90, 0, 0, 90, 1, 0, 0, 0, 1, 0.0], (5, 1))),  # along the axis
        small_scan("helical", 2000),
    ],
    ids=["one view", "tiny detector", "along z", "many views"],
)
def test_odd_scans_can_be_drawn(tmp_path, scan):
    grid = VolumeGeometry((2, 2, 2), (1e-3, 1e-3, 1e-3))
    geometry_figure(tmp_path / "g.png", scan, grid, title="$odd$")
    decoded(tmp_path / "g.png", 1400)


def test_a_scan_figure_holds_the_projections_and_the_geometry(tmp_path):
    scan = small_scan("cone", 24)
    scan_figure(tmp_path / "s.png", ball_projections(scan), scan, suggest_grid(scan), title="scan.zarr")
    scanned = decoded(tmp_path / "s.png", 1400)
    projections_figure(tmp_path / "p.png", ball_projections(scan), title="scan.zarr")
    geometry_figure(tmp_path / "g.png", scan, suggest_grid(scan))
    heights = [decoded(tmp_path / name, 1400).shape[0] for name in ("p.png", "g.png")]
    assert scanned.shape[0] == pytest.approx(sum(heights), abs=3)
    with pytest.raises(ConfigError, match="24 angles were given for 12 views"):
        scan_figure(tmp_path / "no.png", ball_projections(small_scan("cone", 12)), scan, GRID)
    assert not (tmp_path / "no.png").exists()


def test_slices_have_the_worlds_mm_at_their_edges():
    grid = VolumeGeometry((10, 20, 30), (3.0, 2.0, 1.0), (100.0, 10.0, -5.0))
    axial, coronal, sagittal = slice_panels(grid)
    assert axial.edges_mm == (85, 115, 30, -10)  # y downwards
    assert coronal.edges_mm == (85, 115, -20, 10)
    assert sagittal.edges_mm == (-10, 30, -20, 10)
    assert (axial.axes, coronal.axes, sagittal.axes) == ("xy", "xz", "yz")
    assert [panel.name for panel in (axial, coronal, sagittal)] == [
        "axial, z = -3.5 mm", "coronal, y = 11 mm", "sagittal, x = 100.5 mm",
    ]  # fmt: skip
    np.testing.assert_allclose([axial.wide / 30, axial.tall / 40, coronal.tall / 30], sagittal.wide / 40)


@pytest.mark.parametrize("size", [(1, 1, 1), (300, 5, 5), (2, 400, 300), (50, 2, 900), (50, 900, 2), (1, 90, 80)])
def test_no_page_of_slices_is_too_large(tmp_path, size):
    grid = VolumeGeometry(size, (1.0, 1.0, 1.0))
    panels = slice_panels(grid)
    assert len(panels) == (1 if size[0] == 1 else 3)
    assert sum(panel.column + LABELS for panel in panels) <= 14.3
    assert all(0.3 < panel.wide < 13.5 and 0.3 < panel.tall < 5.1 for panel in panels)
    volume_figure(tmp_path / "v.png", np.zeros(size, np.int16), grid, None)
    assert imread(tmp_path / "v.png").shape[1] <= 1450


def test_a_voxel_is_drawn_at_its_place(tmp_path):
    grid = VolumeGeometry((40, 40, 40), (1.0, 1.0, 1.0))
    volume = np.zeros(grid.shape, np.float32)
    volume[20, :10, :10] = 1  # in the axial slice: low y, low x
    volume_figure(tmp_path / "v.png", volume, grid, "per_mm")
    image = decoded(tmp_path / "v.png", 1400)[..., 0]
    axial, *_ = slice_panels(grid)
    left, top = LABELS + 0.05, 0.38
    row, column = int((top + axial.tall / 8) * 100), int((left + axial.wide / 8) * 100)
    assert image[row, column] > 0.95
    assert image[row + int(axial.tall * 70), column] < 0.05
    assert image[row, column + int(axial.wide * 70)] < 0.05


def test_what_is_missing_is_not_drawn_as_air(tmp_path):
    volume = np.full((8, 16, 16), np.nan, np.float32)
    volume_figure(tmp_path / "v.png", volume, VolumeGeometry(volume.shape, (1.0, 1.0, 1.0)), "hu")
    image = decoded(tmp_path / "v.png", 1400)
    assert ((image[..., 0] > 0.6) & (image[..., 1] < 0.3)).mean() > 0.1


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(DataError, match="three axes"):
        volume_figure(tmp_path / "v.png", np.zeros((3, 3)), GRID, "hu")
    with pytest.raises(DataError, match="three axes"):
        projections_figure(tmp_path / "v.png", np.zeros((3, 0, 3)))
    assert list(tmp_path.iterdir()) == []


def test_of_a_large_array_few_rows_are_read():
    array = Counted((5000, 3000, 3000))  # 180 GB
    rows = rows_to_read(array)
    assert (rows[0], rows[-1], len(rows)) == (0, 4999, 32)
    first, second = cross_sections(array, rows, np.array([5]), np.array([7, 8]))
    assert (first.shape, second.shape) == ((32, 1, 3000), (32, 3000, 2))
    np.testing.assert_array_equal(first[:, 0, 0], rows)
    np.testing.assert_array_equal(second[:, 9, 1], rows)
    assert (array.rows, array.most) == (32, 1)
    assert middle_slice(array).shape == (2048, 2048)


@pytest.mark.parametrize("limit", [2**30, 10 * 4 * 30, 1])
def test_cross_sections_are_those_of_the_rows(monkeypatch, limit):
    monkeypatch.setattr(bounded_reading, "MOST_BYTES", limit)
    monkeypatch.setattr(bounded_reading, "LEAST_ROWS", 3)
    monkeypatch.setattr(bounded_reading, "AT_ONCE", 4 * 4 * 30)
    array = np.random.default_rng(0).integers(0, 9, (21, 5, 6))
    rows = rows_to_read(array)
    assert len(rows) == {2**30: 21, 1200: 10, 1: 3}[limit]
    first, second = cross_sections(array, rows, np.array([1, 4]), np.array([], int))
    np.testing.assert_array_equal(first, array[rows][:, [1, 4]])
    assert second.shape == (len(rows), 5, 0)


def test_thinning_keeps_the_ends():
    image = np.arange(5000 * 3).reshape(5000, 3)
    assert thinned(image).shape == (2048, 3)
    np.testing.assert_array_equal(thinned(image)[[0, -1]], image[[0, -1]])
    np.testing.assert_array_equal(thinned(image[:2048]), image[:2048])


def test_the_same_input_gives_the_same_bytes(tmp_path):
    scan = small_scan("cone", 12)
    for name in ("a.png", "b.png"):
        scan_figure(tmp_path / name, ball_projections(scan), scan, GRID, title="s")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
