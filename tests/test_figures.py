"""Figures are files of the expected size that show what they were given; nothing global is touched."""

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from volrecon.errors import ConfigError, DataError
from volrecon.figures import difference_figure, projections_figure, report_figure
from volrecon.figures.pages import Layout
from volrecon.geometry import VolumeGeometry
from volrecon.phantoms import ball

GRID = VolumeGeometry((40, 48, 48), (2.0, 1.5, 1.5))


class Stored:
    """Slices along axis 0 only, as from a Zarr array."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self.array[rows]


@pytest.fixture(scope="module")
def sphere():
    return ball(GRID, (0, 0, 0), 25.0, 0.02)


def decoded(path):
    assert path.stat().st_size > 8_000
    image = imread(path)
    assert np.isfinite(image).all()
    return image


def test_report_figure_has_a_column_a_volume_and_a_table(tmp_path, sphere):
    table = [["method", "PSNR", "SSIM"], ["FDK", "21.2", "0.512"], ["result", "33.1", "0.934"]]
    names = {"FDK": Stored(0.8 * sphere), "result": sphere, "reference": Stored(sphere)}
    path = tmp_path / "report.png"
    report_figure(path, names, GRID.voxel_zyx_mm, title="one scan", water_per_mm=0.02, table=table)
    with_table = decoded(path)
    assert with_table.shape[1] == pytest.approx(1400, abs=15)
    report_figure(path, names, GRID.voxel_zyx_mm, title="one scan", water_per_mm=0.02)
    assert with_table.shape[0] - decoded(path).shape[0] == pytest.approx(3.7 * 27, abs=2)


def test_the_window_sets_the_grey_of_the_pixels(tmp_path, sphere):
    path = tmp_path / "grey.png"
    report_figure(path, {"ball": sphere}, GRID.voxel_zyx_mm, window=(0.0, 0.04))
    image = decoded(path)
    layout = Layout((80.0, 72.0, 72.0), 1, 0.38)
    left, top = layout.panel_at(0, 0)
    wide, tall = layout.sizes[0]
    middle = image[int((top + tall / 2) * 100), int((left + wide / 2) * 100)]
    np.testing.assert_allclose(middle[:3], 0.5, atol=0.01)


def test_z_points_up_and_y_down(tmp_path):
    marked = np.zeros(GRID.shape, np.float32)
    marked[30:] = 1  # near the head: upper part of coronal and sagittal
    marked[:, :10] = 1  # in front: upper part of axial
    path = tmp_path / "up.png"
    report_figure(path, {"up": marked}, GRID.voxel_zyx_mm, window=(0, 1))
    image = decoded(path)[..., 0]
    layout = Layout((80.0, 72.0, 72.0), 1, 0.38)
    for row, (wide, tall) in enumerate(layout.sizes):
        left, top = layout.panel_at(row, 0)
        column = int((left + 0.7 * wide) * 100)
        assert image[int((top + 0.05 * tall) * 100), column] > 0.9
        assert image[int((top + 0.6 * tall) * 100), column] < 0.1


def test_panels_keep_the_aspect_of_the_voxels():
    (wide, tall), (_, coronal), (sagittal, _) = Layout((30.0, 60.0, 120.0), 3, 0.4).sizes
    assert wide / tall == pytest.approx(2)
    assert coronal / wide == pytest.approx(0.25)
    assert sagittal / wide == pytest.approx(0.5)


@pytest.mark.parametrize("columns", [1, 2, 3, 6])
def test_no_panel_leaves_the_page_or_meets_another(columns):
    for extent in ((100.0, 100.0, 100.0), (3.0, 100.0, 80.0), (400.0, 50.0, 90.0)):
        layout = Layout(extent, columns, 0.7)
        assert layout.width <= 14.01
        for row, (wide, tall) in enumerate(layout.sizes):
            left, top = layout.panel_at(row, columns - 1)
            assert left + wide <= layout.width
            assert top + tall <= layout.row(row + 1)


def test_missing_values_are_not_drawn_as_air(tmp_path, sphere):
    broken = sphere.copy()
    broken[:, :24] = np.nan
    path = tmp_path / "broken.png"
    report_figure(path, {"$broken$": broken}, GRID.voxel_zyx_mm)
    image = decoded(path)
    red = (image[..., 0] > 0.6) & (image[..., 1] < 0.3)
    assert red.mean() > 0.1


def test_difference_figure_is_white_where_nothing_changed(tmp_path, sphere):
    path = tmp_path / "difference.png"
    changed = sphere.copy()
    changed[18:22, 20:28, 20:28] += 0.005
    difference_figure(path, Stored(sphere), changed, GRID.voxel_zyx_mm, names=("before", "after"), water_per_mm=0.02)
    image = decoded(path)
    assert image.shape[1] == pytest.approx(1400, abs=15)
    assert ((image[..., 0] > 0.3) & (image[..., 2] < 0.2)).any()
    difference_figure(path, sphere, sphere, GRID.voxel_zyx_mm)
    same = decoded(path)
    assert not (np.ptp(same[: same.shape[0] - 90, :, :3], axis=2) > 0.1).any()


def test_projections_figure(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rows, columns = np.mgrid[-20:20, -30:30]
    views = np.stack([np.exp(-((rows / 9) ** 2) - ((columns - 8 * np.sin(a)) / 9) ** 2) for a in angles], axis=1)
    path = tmp_path / "projections.png"
    projections_figure(path, Stored(views), angles_rad=angles, pixel_vu_mm=(0.8, 0.8), title="scan.zarr")
    assert decoded(path).shape[1] == 1400
    projections_figure(path, views[:1])
    assert decoded(path).shape[1] == 1400


def test_a_constant_volume_can_be_drawn(tmp_path):
    path = tmp_path / "flat.png"
    report_figure(path, {"zero": np.zeros((3, 12, 12), np.float32)}, (1, 1, 1))
    decoded(path)


def test_the_same_input_gives_the_same_bytes_and_pyplot_stays_out(tmp_path, sphere):
    for name in ("one.png", "two.png"):
        report_figure(tmp_path / name, {"ball": sphere}, GRID.voxel_zyx_mm)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_what_cannot_be_drawn_is_refused(tmp_path, sphere):
    path, voxel = tmp_path / "never.png", GRID.voxel_zyx_mm
    with pytest.raises(ConfigError, match="at least one"):
        report_figure(path, {}, voxel)
    with pytest.raises(ConfigError, match="'truth'"):
        report_figure(path, {"a": sphere}, voxel, reference="truth")
    with pytest.raises(ConfigError, match="window"):
        report_figure(path, {"a": sphere}, voxel, window=(0.02, 0.02))
    with pytest.raises(ConfigError, match="cells"):
        report_figure(path, {"a": sphere}, voxel, table=[["a"], ["b", "c"]])
    with pytest.raises(DataError, match="one shape"):
        difference_figure(path, sphere, sphere[:9], voxel)
    with pytest.raises(ConfigError, match="3 angles were given for 48 views"):
        projections_figure(path, sphere, angles_rad=np.zeros(3))
    assert not path.exists()
