"""DICOM-CT-PD: what is read is held against the exact line integrals of the flat geometry that the reader states."""

import itertools

import numpy as np
import pydicom
import pytest
from balls import CENTRE, GRID, MU, RADIUS, ball_projections
from ct_pd_scans import (
    CENTRAL,
    DICOM,
    DISTANCE,
    PEAK,
    RHO,
    SHAPE,
    SIGMA,
    SIZE,
    SLOPE,
    cylindrical,
    exact,
    of_ball,
    of_blob,
    read,
    save,
    save_scan,
)

import volrecon as vr
from volrecon.errors import DataError, VolreconError
from volrecon.exchange import import_scan
from volrecon.formats import Hints, format_of
from volrecon.formats.curved_detector import CurvedDetector


def test_flat_detector(tmp_path):
    folder = save_scan(tmp_path / "scan", "FLAT", of_ball, pitch=1.5)
    assert format_of(folder) is DICOM
    values, data = read(folder)
    scan = data.stated.scan
    assert values.shape == scan.shape == (40, 8, 64)
    np.testing.assert_allclose(values, ball_projections(scan), atol=0.6 * SLOPE)
    np.testing.assert_array_equal(data.projections[7:9], values[7:9])
    np.testing.assert_allclose(scan.source[3], cylindrical(RHO, 0.3 - 2.7, 4.5), atol=1e-4)
    np.testing.assert_allclose(data.angles, np.mod(0.3 - 0.9 * np.arange(8) + np.pi, 2 * np.pi), atol=1e-6)
    notes = " ".join((*data.notes, *data.stated.notes))
    for said in (
        "InstanceNumber 1 to 8",
        "(columns, rows)",
        "0.0192",
        ", clockwise about +z, z 0 to 10.5 mm",
        "mirror",
    ):
        assert said in notes


@pytest.mark.parametrize("shift", [(0, 0, 0), (5.0, 0.01, -0.7)], ids=["still", "flying"])
@pytest.mark.parametrize("form", ["FLAT", "CYLINDRICAL"])
def test_blob(tmp_path, form, shift):
    values, data = read(save_scan(tmp_path / "scan", form, of_blob, shift=shift, pitch=1.5))
    expected = exact(data.stated.scan, of_blob)
    assert expected.max() > 0.99 * PEAK
    # Bilinear interpolation is off by at most an eighth of the second differences; at the blob a pixel is 2.4 x 2 mm.
    bound = 0.6 * SLOPE + (PEAK * (2.0**2 + 2.4**2) / SIGMA**2 / 8 if form == "CYLINDRICAL" else 0)
    assert np.abs(values - expected).max() < bound
    assert any("flying focal spot" in note for note in data.stated.notes) == any(shift)


def test_flat_rays_end_in_the_curved_pixels(tmp_path):
    """What a linear function of the curved pixel's place shows: no interpolation error, only where it is looked up."""
    folder = save_scan(tmp_path / "scan", "CYLINDRICAL", of_blob, views=1)
    ds = pydicom.dcmread(folder / "p01.dcm")
    columns = np.broadcast_to(1000 * np.arange(SHAPE[1])[:, None], SHAPE[::-1])
    rows = np.broadcast_to(1000 * np.arange(SHAPE[0]), SHAPE[::-1])
    for stored, axis in ((columns, "u"), (rows, "v")):
        ds.RescaleSlope, ds.PixelData = 1e-3, stored.astype("<u2").tobytes()
        save(ds, folder / "p01.dcm")
        values, data = read(folder)
        scan = data.stated.scan
        u = (np.arange(scan.shape[2]) - (scan.shape[2] - 1) / 2) * SIZE[1]
        u += (scan.detector[0] - cylindrical(RHO, 0.3, 0)) @ scan.u[0] / SIZE[1]
        w = (np.arange(SHAPE[0]) + 1 - CENTRAL[1]) * SIZE[0]
        fan = np.arctan(u / DISTANCE)
        if axis == "u":
            expected = np.broadcast_to(CENTRAL[0] - 1 + fan * DISTANCE / SIZE[1], values[:, 0].shape)
        else:
            expected = CENTRAL[1] - 1 + w[:, None] * np.cos(fan) / SIZE[0]
        np.testing.assert_allclose(values[:, 0], expected, atol=1e-5)
        assert np.ptp(fan) > 0.5
        assert len(u) > SHAPE[1]


def test_flat_pixels_are_those_whose_rays_meet_the_curved_detector():
    angles, heights = (np.arange(64) - 30.25) / 120, (np.arange(40) - 20.0) * 3
    curved = CurvedDetector(300.0, angles, heights, 3.0)
    still, flying = np.zeros((1, 3)), np.array([[0, 0, 0], [90.0, -5.0, 30.0]])
    for sources in (still, flying):
        u, w = curved.flat_grid(sources)
        for source, x, y in itertools.product(sources, u[[0, -1]], w[[0, -1]]):
            # The ray is followed in small steps until it is 300 mm from the axis.
            steps = np.linspace(0, 1.2, 200_001)[:, None]
            ray = source + steps * (np.array([x, 300.0, y]) - source)
            hit = ray[np.searchsorted(np.hypot(ray[:, 0], ray[:, 1]), 300.0)]
            angle = np.arctan2(hit[0], hit[1])
            assert angles[0] - 0.501 / 120 <= angle <= angles[-1] + 0.501 / 120
            assert heights[0] - 1.51 <= hit[2] <= heights[-1] + 1.51
    assert len(curved.flat_grid(still)[0]) > len(u)
    assert len(curved.flat_grid(still)[1]) == 40


def test_shadow_of_a_ball_on_a_cylinder(tmp_path):
    values, data = read(save_scan(tmp_path / "scan", "CYLINDRICAL", of_ball))
    expected = ball_projections(data.stated.scan)
    assert np.abs(values - expected).max() < 0.25 * expected.max()  # at the rim, where the chord rises like a root
    assert np.abs(values - expected).mean() < 0.002 * expected.max()
    v, u = np.arange(values.shape[0])[:, None], np.arange(values.shape[2])
    for k in range(values.shape[1]):
        for axis in (v, u):
            theirs, ours = ((axis * p[:, k]).sum() / p[:, k].sum() for p in (expected, values))
            assert abs(theirs - ours) < 0.1


def test_least_squares_finds_the_ball(tmp_path):
    """Directions, signs and order: conjugate gradients with the projector put the ball where it was."""
    values, data = read(save_scan(tmp_path / "scan", "CYLINDRICAL", of_ball, views=12))
    A = vr.projector(GRID, data.stated.scan)
    x = np.zeros(GRID.shape, np.float32)
    gradient = A.T(values)
    direction, size = gradient, float((gradient**2).sum())
    for _ in range(6):
        shadow = A(direction)
        step = size / float((shadow**2).sum())
        x, gradient = x + step * direction, gradient - step * A.T(shadow)
        direction, size = gradient + direction * (float((gradient**2).sum()) / size), float((gradient**2).sum())
    places = [
        np.arange(n) * d + o for n, d, o in zip(GRID.shape, GRID.voxel_zyx_mm, GRID.origin_xyz_mm[::-1], strict=True)
    ]
    inside = x > MU / 2
    found = [float(place[index].mean()) for place, index in zip(places, np.nonzero(inside), strict=True)]
    np.testing.assert_allclose(found[::-1], CENTRE, atol=0.5)
    assert inside.sum() * np.prod(GRID.voxel_zyx_mm) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.15)


def test_import_as_a_scan(tmp_path):
    folder = save_scan(tmp_path / "scan", "CYLINDRICAL", of_ball, views=3)
    notes = import_scan(folder, None, tmp_path / "scan.zarr", Hints())
    values, data = read(folder)
    scan = vr.open_scan(tmp_path / "scan.zarr")
    assert scan.geometry == data.stated.scan
    np.testing.assert_array_equal(scan.projections[:], values)
    assert notes == [*data.notes, *data.stated.notes]
    assert any("resampled linearly to a flat one" in note for note in notes)


def test_elements_without_a_type_and_images_of_rows(tmp_path):
    """Published files hold private elements as bytes (VR UN); others may store (rows, columns)."""
    folder = save_scan(tmp_path / "scan", "FLAT", of_ball, views=2)
    typed, _ = read(folder)
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        for element in [e for e in ds if e.tag.is_private and not e.tag.is_private_creator]:
            kind = {"US": "<u2", "FL": "<f4"}.get(element.VR)
            text = str(element.value).encode()
            data = np.atleast_1d(element.value).astype(kind).tobytes() if kind else text + b"\0" * (len(text) % 2)
            ds[element.tag] = pydicom.DataElement(element.tag, "UN", data)
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").reshape(SHAPE[::-1]).T.tobytes()
        ds.Rows, ds.Columns = SHAPE
        save(ds, path)
    values, data = read(folder)
    np.testing.assert_array_equal(values, typed)
    assert "images are (rows, columns)" in data.notes[1]


def changed(folder, name, tag=None, value=None, **elements):
    """Change a private element (None removes it) or public ones of one file."""
    ds = pydicom.dcmread(folder / name)
    if tag is not None and value is None:
        del ds[tag]
    elif tag is not None:
        ds[tag].value = value
    ds.update(elements)
    return save(ds, folder / name)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (0x70311001, None, r"no focal centre \(7031,1001\)"),
        (0x70311002, None, r"no element \(7031,1002\)"),
        (0x70311002, float("nan"), r"\(7031,1002\) is nan; expected 1 finite"),
        (0x70311033, [1.0, 2.0, 3.0], r"\(7031,1033\) is .*; expected 2 finite"),
        (0x70311003, -1.0, "-1.0 mm from the axis"),
        (0x70291002, 0.0, r"pixels of \(3\.0, 0\.0\) mm"),
        (0x70291010, 41, r"has \(64, 40\) pixels and a detector of \(41, 64\)"),
        (0x70391009, "NO", "LogFlag"),
        (0x70331063, 2, "different detectors or spectra"),
        (0x70311031, 310.0, "different detectors or spectra"),
    ],
    ids=str,
)
def test_elements_that_are_refused(tmp_path, tag, value, message):
    folder = save_scan(tmp_path / "scan", "FLAT", of_ball, views=2)
    changed(folder, "p01.dcm", tag, value)
    with pytest.raises(DataError, match=rf"p01\.dcm.*{message}"):
        read(folder)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"InstanceNumber": 2}, "both are InstanceNumber 2"),
        ({"RescaleSlope": None}, "RescaleSlope"),
        ({"RescaleSlope": 0}, "RescaleSlope 0"),
        ({"Rows": 65}, "PixelData claims 5120"),
    ],
    ids=str,
)
def test_public_elements_that_are_refused(tmp_path, elements, message):
    folder = save_scan(tmp_path / "scan", "FLAT", of_ball, views=2)
    changed(folder, "p02.dcm", **elements)
    with pytest.raises(DataError, match=rf"p02\.dcm.*{message}"):
        read(folder)


def test_detectors_that_cannot_be_made_flat(tmp_path):
    folder = save_scan(tmp_path / "scan", "SPHERICAL", of_ball, views=1)
    with pytest.raises(DataError, match="has a SPHERICAL detector; only FLAT and CYLINDRICAL"):
        read(folder)
    changed(folder, "p01.dcm", 0x7029100B, "CYLINDRICAL")
    changed(folder, "p01.dcm", 0x70291002, 14.0)
    with pytest.raises(DataError, match=r"64 columns from -80\.9 to 87\.6 degrees"):
        read(folder)
    changed(folder, "p01.dcm", 0x70291002, 2.5)
    changed(folder, "p01.dcm", 0x7033100D, 400.0)
    with pytest.raises(DataError, match="not within its detector's radius 300"):
        read(folder)
    changed(folder, "p01.dcm", 0x7033100D, 0.0)
    changed(folder, "p01.dcm", 0x7033100C, 5000.0)
    with pytest.raises(DataError, match="no flat one serves all"):
        read(folder)


def test_what_the_notes_say_of_gaps_and_of_other_makers(tmp_path):
    folder = save_scan(tmp_path / "scan", "FLAT", of_ball, views=4)
    (folder / "p02.dcm").unlink()
    changed(folder, "p04.dcm", Manufacturer="GE MEDICAL SYSTEMS")
    _, data = read(folder)
    assert "InstanceNumber 1 to 4, 1 numbers missing" in data.notes[0]
    assert "central column" in data.stated.notes[-1]


def test_volumes_and_projections_are_not_confused(tmp_path):
    folder = save_scan(tmp_path / "scan", "FLAT", of_ball, views=2)
    with pytest.raises(DataError, match=r"p01\.dcm: holds a projection \(DICOM-CT-PD\)"):
        DICOM.read_volume(folder, Hints())
    DICOM.write_volume(tmp_path / "a.dcm", np.zeros(GRID.shape), GRID, "hu")
    with pytest.raises(DataError, match=r"slice_0001\.dcm: holds no DICOM-CT-PD projection.*Is it an image"):
        read(tmp_path / "a.dcm")


def test_damaged_files(tmp_path):
    folder = save_scan(tmp_path / "scan", "CYLINDRICAL", of_ball, views=2)
    whole = (folder / "p01.dcm").read_bytes()
    (folder / "p01.dcm").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"p01\.dcm: is not whole"):
        read(folder)
    rng = np.random.default_rng(2)
    for _ in range(100):
        data = bytearray(whole)
        for place in rng.integers(128, 1400, rng.integers(1, 5)):
            data[place] = rng.integers(0, 256)
        (folder / "p01.dcm").write_bytes(data)
        try:
            assert np.isfinite(read(folder)[0]).all()
        except VolreconError as error:
            assert str(folder) in str(error)  # noqa: PT017 - both outcomes are right
