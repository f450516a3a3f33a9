"""Scans of an .xtekct: their rays against closed forms and against what CIL makes of them."""

import numpy as np
import pytest

from tests.nikon_scans import (
    COLUMNS,
    COUNTS,
    DEGREES,
    GEOMETRY,
    MEASURED,
    NIKON,
    REGION,
    ROWS,
    VIEWS,
    ang,
    as_nikon,
    check_same,
    ctdata,
    pixels_of,
    save,
    state,
    text,
)
from volrecon.errors import DataError
from volrecon.formats import Hints, format_of, read_geometry
from volrecon.geometry import fan


def test_images_are_counts_of_a_stated_scan(tmp_path):
    path = save(tmp_path)
    assert format_of(path) is NIKON
    data = NIKON.read_projections(path, Hints())
    assert data.projections.shape == (ROWS, VIEWS, COLUMNS)
    np.testing.assert_array_equal(data.projections[1:4], COUNTS.swapaxes(0, 1)[1:4])
    assert data.counts.white == 60_000
    assert data.pixels.size_vu_mm == (0.5, 0.4)
    check_same(data.stated.scan, as_nikon())
    grid = data.stated.grid
    assert (grid.shape, grid.voxel_zyx_mm, grid.centre_xyz_mm) == ((4, 7, 7), (0.2, 0.1, 0.1), (0.0, 0.0, -0.3))
    notes = "\n".join([*data.notes, *data.stated.notes])
    for said in ("part 1_0001.tif to part 1_0005.tif", "WhiteLevel = 60000", "left as seen from the source", "top",
                 "no centre of rotation is stated", "-170 to 110 deg counter-clockwise", "MaskRadius"):  # fmt: skip
        assert said in notes
    assert len(notes.splitlines()) == len(data.notes) + len(data.stated.notes)


def test_the_object_turns_clockwise_before_images_seen_from_behind(tmp_path):
    """A point of the object, turned about the axis by hand, falls on the pixel on which the scan says it does."""
    stated = state(tmp_path, ObjectOffsetX=0.7, DetectorOffsetX=-1.2, DetectorOffsetY=2.5)
    point = np.array([1.3, -0.8, 0.9])
    turned = np.deg2rad(DEGREES - 180)  # clockwise seen from above
    right = np.cos(turned) * point[0] + np.sin(turned) * point[1] - 0.7
    ahead = 100 - np.sin(turned) * point[0] + np.cos(turned) * point[1]
    on_panel = 400 * right / ahead, 400 * point[2] / ahead
    rows, columns = pixels_of(stated.scan, point[None])
    np.testing.assert_allclose(columns[:, 0], 3.5 - (on_panel[0] + -1.2) / 0.4, atol=1e-9)
    np.testing.assert_allclose(rows[:, 0], 2.5 - (on_panel[1] - 2.5) / 0.5, atol=1e-9)


@pytest.mark.parametrize(
    "keys",
    [
        {"CentreOfRotationTop": 2.8, "CentreOfRotationBottom": 2.8},
        {"ObjectOffsetX": 0.7, "ObjectOffsetY": 0.0, "ObjectTilt": 0.0, "ObjectRoll": 0.0},
        {"ObjectOffsetX": 0.7, "CentreOfRotationTop": 2.8, "CentreOfRotationBottom": 2.8},
        {"ObjectOffsetX": 0.7, "CentreOfRotationTop": 0.0, "CentreOfRotationBottom": 0.0},
    ],
    ids=["older", "newer", "both", "newer, older empty"],
)
def test_centre_of_rotation_in_both_conventions(tmp_path, keys):
    """0.7 mm at the axis is 2.8 mm on the detector; the axis is seen that much further along the columns."""
    stated = state(tmp_path, DetectorOffsetX=3.0, DetectorOffsetY=-2.0, **keys)
    check_same(stated.scan, as_nikon(shift=0.7, offset_vu=(-2.0, 3.0)))
    _, columns = pixels_of(state(tmp_path, **keys).scan, np.array([[0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(columns, 3.5 + 2.8 / 0.4, atol=1e-9)


@pytest.mark.parametrize(("top", "bottom"), [(1.1, -0.3), (-2.0, 0.5)])
def test_a_leaning_axis_meets_the_panels_edges_where_the_older_keys_say(tmp_path, top, bottom):
    scan = state(tmp_path, CentreOfRotationTop=top, CentreOfRotationBottom=bottom).scan
    rows, columns = pixels_of(scan, np.array([[0.0, 0.0, 0.2], [0.0, 0.0, -0.2]]))
    slope = (columns[:, 1] - columns[:, 0]) / (rows[:, 1] - rows[:, 0])
    for row, expected in ((-0.5, top), (ROWS - 0.5, bottom)):
        np.testing.assert_allclose(columns[:, 0] + slope * (row - rows[:, 0]), 3.5 + expected / 0.4, atol=1e-9)


def test_tilt_and_roll_are_cils(tmp_path):
    """The numbers of CIL's own test of its reader: axis at (0.03, 50, 0) mm along (1.745e-4, 0.5, 0.866)."""
    stated = state(
        tmp_path, SrcToObject=50, SrcToDetector=300, InitialAngle=-3, AngularStep=0.2, Projections=2,
        ObjectOffsetX=-0.03, ObjectRoll=0.01, ObjectTilt=30,
    )  # fmt: skip
    for source, detector, u, v in stated.scan.vectors.reshape(-1, 4, 3):
        right, up = -u / np.linalg.norm(u), -v / np.linalg.norm(v)
        seen = np.stack([right, np.cross(up, right), up])
        np.testing.assert_allclose(seen @ (detector - source), [0, 300, 0], atol=1e-9)
        np.testing.assert_allclose(seen @ -source, [0.03, 50, 0], atol=1e-9)
        np.testing.assert_allclose(seen @ [0, 0, 1], [1.74532924e-04, 0.5, 0.866025391], atol=1e-8)
    first, second = stated.scan.source[:, :2] @ [1, 1j]
    assert np.angle(second / first, deg=True) == pytest.approx(0.2, abs=1e-9)
    assert any("ObjectTilt 30 deg" in note for note in stated.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("_ctdata.txt", ctdata()),
        ("part 1_ctdata.txt", ctdata()),
        ("part 1.ang", ang()),
        ("part 1.ang", ang(separator=": ")),
    ],
    ids=["ctdata", "named ctdata", "ang", "ang with blanks"],
)
def test_angle_files_count_from_the_initial_angle(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    stated = state(tmp_path)
    check_same(stated.scan, as_nikon(degrees=10 + MEASURED[:VIEWS]))
    assert any(name in note and "of 6 in it" in note for note in stated.notes)


def test_an_ang_of_the_images_goes_before_a_ctdata(tmp_path):
    (tmp_path / "_ctdata.txt").write_text(ctdata(MEASURED + 1))
    (tmp_path / "part 1.ang").write_text(ang())
    check_same(state(tmp_path).scan, as_nikon(degrees=10 + MEASURED[:VIEWS]))


def test_angles_may_fall_back_to_0_at_a_full_turn(tmp_path):
    (tmp_path / "_ctdata.txt").write_text(ctdata((MEASURED + 100) % 360))
    check_same(state(tmp_path).scan, as_nikon(degrees=110 + MEASURED[:VIEWS]))


def test_images_of_a_region_lie_where_it_lies_on_the_panel(tmp_path):
    images = COUNTS[:, 1:4, 3:7]
    stated = NIKON.read_projections(save(tmp_path, images, **REGION, ObjectOffsetX=0.7), Hints()).stated
    whole = as_nikon(shift=0.7)
    np.testing.assert_allclose(stated.scan.rays()[:, 3], whole.rays()[:, 3] + whole.v + 3 * whole.u, atol=1e-9)
    assert any("region from (1, 3)" in note for note in stated.notes)


def test_whole_images_stay_whole_whatever_region_was_reconstructed(tmp_path):
    stated = NIKON.read_projections(save(tmp_path, **REGION), Hints()).stated
    check_same(stated.scan, as_nikon())
    assert any("taken as whole" in note for note in stated.notes)
    check_same(state(tmp_path, **REGION).scan, as_nikon())


def test_one_row_is_a_fan_in_images_or_a_sinogram(tmp_path):
    expected = fan(
        source_to_object_mm=100, source_to_detector_mm=400, columns=COLUMNS, pixel_mm=0.4, row_pitch_mm=0.125,
        angles=np.deg2rad(DEGREES - 180), axis_shift_mm=-0.7,
    )  # fmt: skip
    keys = {"DetectorPixelsY": 1, "RegionPixelsY": 1, "ObjectOffsetX": 0.7}
    data = NIKON.read_projections(save(tmp_path, COUNTS[:, :1], **keys), Hints())
    rows = COUNTS.swapaxes(0, 1)[:1]
    np.testing.assert_array_equal(data.projections[:], rows)
    assert data.stated.scan.beam == "fan"
    # Columns run the other way than in the constructor, and so do rows.
    np.testing.assert_allclose(data.stated.scan.vectors[:, :6], expected.vectors[:, :6], atol=1e-9)
    np.testing.assert_allclose(data.stated.scan.vectors[:, 6:], -expected.vectors[:, 6:], atol=1e-9)
    for image in tmp_path.glob("*.tif"):
        image.unlink()
    path = save(tmp_path, COUNTS[None, :, 0], **keys).rename(tmp_path / "part.xtek2dct")
    sinogram = NIKON.read_projections(path, Hints())
    np.testing.assert_array_equal(sinogram.projections[:], rows)
    assert "sinogram" in sinogram.notes[0]
    check_same(sinogram.stated.scan, data.stated.scan)


def test_images_in_the_input_folder_and_with_other_names(tmp_path):
    inner = tmp_path / "raw"
    inner.mkdir()
    save(inner, start="img-", images=COUNTS)
    path = save(tmp_path, [], InputFolderName="raw", InputName="img", InputSeparator="-", InputDigits=4)
    np.testing.assert_array_equal(NIKON.read_projections(path, Hints()).projections[:], COUNTS.swapaxes(0, 1))


def test_further_images_are_left_out_and_said(tmp_path):
    data = NIKON.read_projections(save(tmp_path, Projections=3, AngularStep=70), Hints())
    assert data.projections.shape == (ROWS, 3, COLUMNS)
    assert "2 more are numbered above Projections" in data.notes[0]


def test_odd_but_readable_files(tmp_path):
    path = tmp_path / "scan.XTEKCT"
    path.write_bytes(
        b"\xef\xbb\xbf" + text().replace("[XTekCT]", "[XtekCT]").replace("Operator", "Op\xe9rator").encode()
    )
    check_same(read_geometry(path).scan, as_nikon())
    path.write_bytes(text(OperatorID="J\xf6rg").encode("latin-1"))
    check_same(read_geometry(path).scan, as_nikon())
    with pytest.raises(DataError, match="no such file"):
        GEOMETRY.read(tmp_path / "absent.xtekct", None)


def test_what_is_not_applied_is_said(tmp_path):
    stated = state(tmp_path, CoefX2=0.25, CoefX1=0.75, MaskRadius=0, ObjectOffsetY=0.1, BeamHardeningLUTFile="a.lut")
    assert "CoefX4..0 = [0.0, 0.0, 0.25, 0.75, 0.0], beam hardening table, ObjectOffsetY 0.1 mm" in stated.notes[-1]
    assert state(tmp_path, VoxelsZ=None).grid is None
