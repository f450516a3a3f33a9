"""What every format of geometries must do, run over whatever is registered: hold a scan exactly, or refuse it."""

from pathlib import Path

import numpy as np
import pytest
from scans import ANGLES, CONE, SCANS

from volrecon.errors import ConfigError, DataError, ResourceError, VolreconError
from volrecon.formats import GEOMETRIES, Frame, GeometryFormat, PixelGrid, geometry_format_of, read_geometry
from volrecon.geometry import ScanGeometry, cone, from_vectors

CASES = [(name, suffix) for name, known in GEOMETRIES.items() for suffix in known.suffixes if known.write]

SHIFTED = cone(**CONE, angles=[0.1, 0.2, 0.9, 0.5], detector_offset_mm=(1.0, 4.0), axis_shift_mm=-0.7)

ALL = {name: scan for name, (_, scan) in SCANS.items()} | {"cone, shifted, uneven angles": SHIFTED}

CONES = {name for name, scan in ALL.items() if scan.beam == "cone"}

HELD = {
    "geometry.toml": set(ALL),
    "vectors": CONES,
    "rtk": CONES - {"vectors"} | {"parallel stack", "parallel, inclined"},
    "nikon": CONES - {"vectors", "helix", "cone, offset and tilted"} | {"fan, one slice"},
}
"""Which scans a format must be able to hold; it must refuse the others."""


def frame_of(scan: ScanGeometry) -> Frame:
    """What projections beside the geometry say: the middle of the panel at (0, 0)."""
    (size_v, size_u), (rows, columns) = scan.pixel_vu_mm, scan.detector_shape
    first = (-(rows - 1) / 2 * size_v, -(columns - 1) / 2 * size_u)
    return Frame(scan.detector_shape, scan.views, None, PixelGrid((size_v, size_u), first))


def check_same_rays(found: ScanGeometry, expected: ScanGeometry) -> None:
    assert (found.beam, found.shape) == (expected.beam, expected.shape)
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=1e-9 * np.abs(expected.vectors).max())


@pytest.fixture(params=CASES, ids=lambda case: "".join(case))
def case(request, tmp_path) -> tuple[GeometryFormat, Path]:
    """A format and a scan written by it."""
    name, suffix = request.param
    path = tmp_path / f"geometry{suffix}"
    GEOMETRIES[name].write(path, SHIFTED)
    return GEOMETRIES[name], path


def check_survives(path: Path, data: bytes) -> bool:
    """Whether a damaged file is read as any scan at all; any exception but ours fails the test."""
    path.write_bytes(data)
    try:
        return isinstance(read_geometry(path, frame_of(SHIFTED)).scan, ScanGeometry)
    except VolreconError as error:
        message = str(error)
    assert str(path) in message or str(path.parent) in message
    return False


def test_registry():
    assert all(name == known.name for name, known in GEOMETRIES.items())
    suffixes = [suffix for known in GEOMETRIES.values() for suffix in known.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for known in GEOMETRIES.values():
        assert all(geometry_format_of(Path(f"a.b{suffix.upper()}")) is known for suffix in known.suffixes)
    with pytest.raises(ConfigError, match=r"a\.doc: no geometry format.*rtk \(\.xml\)"):
        geometry_format_of(Path("a.doc"))


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize(("name", "suffix"), CASES, ids=map("".join, CASES))
def test_held_or_refused(tmp_path, name, suffix, which):
    path, scan = tmp_path / f"geometry{suffix}", ALL[which]
    if which in HELD[name]:
        GEOMETRIES[name].write(path, scan)
        stated = read_geometry(path, frame_of(scan))
        check_same_rays(stated.scan, scan)
        assert stated.notes
        assert all("\n" not in note for note in stated.notes)
        return
    with pytest.raises(VolreconError) as caught:
        GEOMETRIES[name].write(path, scan)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_is_read_again_from_what_was_read(case):
    known, path = case
    first = read_geometry(path, frame_of(SHIFTED)).scan
    known.write(path, first)
    check_same_rays(read_geometry(path, frame_of(first)).scan, SHIFTED)


def test_micrometres(case):
    known, path = case
    scan = from_vectors("cone", (5, 7), SHIFTED.vectors * 1e-3)
    path = path.with_stem("small")
    known.write(path, scan)
    check_same_rays(read_geometry(path, frame_of(scan)).scan, scan)


def test_other_numbers_of_views_are_refused(case):
    _, path = case
    frame = frame_of(SHIFTED)
    for views in (1, 3, 5):
        with pytest.raises(DataError, match=rf"\b{views}\b"):
            read_geometry(path, Frame(frame.detector_shape, views, np.zeros(views), frame.pixels))


def test_without_projections_it_is_read_or_they_are_asked_for(case):
    _, path = case
    try:
        check_same_rays(read_geometry(path).scan, SHIFTED)
    except ConfigError as error:
        message = str(error)
        assert str(path) in message
        assert "projections" in message


@pytest.mark.parametrize("keep", [0, 1, 7, 60, 0.3, 0.6, -30, -9])
def test_truncated(case, keep):
    _, path = case
    data = path.read_bytes()
    assert not check_survives(path, data[: int(keep * len(data)) if isinstance(keep, float) else keep]) or keep < 0


def test_wrong_magic(case):
    _, path = case
    for data in (b"this is not a geometry" * 100, b"\x89PNG\r\n\x1a\n" + bytes(999), b"\x80\x04\x95" * 50):
        assert not check_survives(path, data)


def test_missing_file(case):
    _, path = case
    path.unlink()
    with pytest.raises(VolreconError, match=path.name):
        read_geometry(path, frame_of(SHIFTED))


def test_flipped_bytes(case):
    _, path = case
    whole = path.read_bytes()
    rng = np.random.default_rng(17)
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        check_survives(path, bytes(data))


def test_unwritable_place(case, tmp_path):
    known, path = case
    with pytest.raises(ResourceError, match="cannot be written"):
        known.write(tmp_path / "missing" / path.name, SHIFTED)


def test_the_test_finds_a_mirrored_scan():
    check_same_rays(SHIFTED, SHIFTED)
    for wrong in (
        SHIFTED.vectors * np.tile([-1, 1, 1], 4),
        SHIFTED.vectors * np.repeat([1, 1, -1, 1], 3),
        SHIFTED.vectors + 1e-6,
        cone(**CONE, angles=-ANGLES[:4]).vectors,
    ):
        with pytest.raises(AssertionError):
            check_same_rays(from_vectors("cone", SHIFTED.detector_shape, wrong), SHIFTED)
