"""geometry.toml: every beam against its constructor, and every way to state a scan that cannot be meant."""

import re
from pathlib import Path

import numpy as np
import pytest

from volrecon.errors import ConfigError, DataError, GeometryError, GeometryWarning, VolreconError
from volrecon.formats import Frame, read_geometry, write_vectors
from volrecon.geometry import ScanGeometry, VolumeGeometry, cone, fan, from_vectors, helical, parallel

CONFIGS = Path(__file__).parents[2] / "configs" / "geometry"

CONE = """
beam = "cone"
source_to_object_mm = 500
source_to_detector_mm = 1000.0
[detector]
rows = 8
columns = 10
pixel_mm = 0.4
[angles]
unit = "deg"
start = 10.0
step = 3.0
count = 100
"""
ANGLES = np.radians(10 + 3.0 * np.arange(100))
DISTANCES = {"source_to_object_mm": 500.0, "source_to_detector_mm": 1000.0}


def read(tmp_path: Path, text: str, data_angles: np.ndarray | None = None):
    path = tmp_path / "geometry.toml"
    path.write_text(text, encoding="utf-8")
    frame = None if data_angles is None else Frame((1, 1), len(data_angles), np.asarray(data_angles))
    return read_geometry(path, frame)


def refused(tmp_path: Path, text: str, kind: type[VolreconError] = ConfigError, data_angles=None) -> str:
    with pytest.raises(kind) as caught:
        read(tmp_path, text, data_angles)
    message = str(caught.value)
    assert "geometry.toml" in message
    return message


def close(scan: ScanGeometry, expected: ScanGeometry) -> bool:
    assert (scan.beam, scan.shape) == (expected.beam, expected.shape)
    return np.allclose(scan.vectors, expected.vectors, rtol=0, atol=1e-12)


def test_cone_with_everything(tmp_path):
    text = CONE.replace("0.4", "[0.4, 0.5]\noffset_mm = [1, -2]\ntilt_deg = [1, 2, 3]") + "[axis]\nshift_mm = 0.7\n"
    stated = read(tmp_path, text)
    expected = cone(
        **DISTANCES,
        detector_shape=(8, 10),
        pixel_mm=(0.4, 0.5),
        angles=ANGLES,
        detector_offset_mm=(1, -2),
        axis_shift_mm=0.7,
        tilt=tuple(np.radians([1, 2, 3])),
    )
    assert close(stated.scan, expected)
    assert stated.grid is None
    notes = " ".join(stated.notes)
    assert "100 angles in deg" in notes
    assert "offset (1.0, -2.0)" in notes
    assert "shifted by 0.7" in notes
    assert "tilted by (1.0, 2.0, 3.0)" in notes


def test_fan(tmp_path):
    text = CONE.replace('"cone"', '"fan"').replace("0.4", "0.4\nrow_pitch_mm = 2\noffset_mm = [0, 3]")
    expected = fan(**DISTANCES, rows=8, columns=10, pixel_mm=0.4, row_pitch_mm=2, detector_offset_mm=3, angles=ANGLES)
    assert close(read(tmp_path, text).scan, expected)


def test_parallel(tmp_path):
    text = CONE.replace('"cone"', '"parallel"').replace("0.4", "[0.4, 0.5]\noffset_mm = [1, 2]")
    text = re.sub(r"source_to.*\n", "", text) + "[axis]\nshift_mm = -1\n"
    expected = parallel(
        detector_shape=(8, 10), pixel_mm=(0.4, 0.5), detector_offset_mm=(1, 2), axis_shift_mm=-1, angles=ANGLES
    )
    assert close(read(tmp_path, text).scan, expected)


def test_helical(tmp_path):
    text = CONE.replace('"cone"', '"helical"').replace("count = 100", "count = 900") + "[helix]\npitch_mm = 10\n"
    angles = np.radians(10 + 3.0 * np.arange(900))
    expected = helical(**DISTANCES, detector_shape=(8, 10), pixel_mm=0.4, angles=angles, pitch_mm=10)
    assert close(read(tmp_path, text).scan, expected)
    clockwise = read(tmp_path, text.replace("step", 'direction = "clockwise"\nstep')).scan
    np.testing.assert_allclose(clockwise.source[:, 2], expected.source[:, 2], atol=1e-12)
    assert clockwise.source[-1, 2] > clockwise.source[0, 2]


@pytest.mark.parametrize("beam", ["cone", "fan", "parallel"])
@pytest.mark.parametrize("name", ["vectors.txt", "vectors.npy"])
def test_vectors(tmp_path, beam, name):
    vectors = cone(**DISTANCES, detector_shape=(8, 10), pixel_mm=0.4, angles=ANGLES).vectors
    write_vectors(tmp_path / name, vectors)
    text = f'beam = "{beam}"\ndetector = {{rows = 8, columns = 10}}\nvectors = {{file = "{name}"}}\n'
    assert read(tmp_path, text).scan == from_vectors(beam, (8, 10), vectors)
    message = refused(tmp_path, text + 'source_to_object_mm = 1\n[angles]\nunit = "deg"')
    assert "source_to_object_mm: does not go with" in message
    assert "angles: does not go with" in message
    assert "vectors.file: missing" in refused(tmp_path, text.replace(f'file = "{name}"', ""))
    (tmp_path / name).unlink()
    assert f"{name}: there is no such file" in refused(tmp_path, text, DataError)


def test_grid(tmp_path):
    stated = read(tmp_path, CONE + "[grid]\nshape = [4, 5, 6]\nvoxel_mm = 0.5\ncentre_mm = [1, 2, 3]\n")
    assert stated.grid == VolumeGeometry((4, 5, 6), (0.5, 0.5, 0.5), (1, 2, 3))
    stated = read(tmp_path, CONE + "[grid]\nshape = [4, 5, 6]\nvoxel_mm = [1, 2, 3]\n")
    assert stated.grid == VolumeGeometry((4, 5, 6), (1, 2, 3))


SOURCE = "start = 10.0\nstep = 3.0\ncount = 100\n"


def test_sources_of_angles(tmp_path):
    expected = read(tmp_path, CONE).scan
    degrees = 3.0 * np.arange(100)
    (tmp_path / "angles.txt").write_text("\n".join(map(repr, degrees.tolist())))
    listed = CONE.replace(SOURCE, f"start = 10\nlist = {degrees.tolist()}\n")
    filed = CONE.replace(SOURCE, 'start = 10\nfile = "angles.txt"\n')
    from_data = CONE.replace(SOURCE, "start = 10\nfrom_data = true\n")
    assert close(read(tmp_path, listed).scan, expected)
    assert close(read(tmp_path, filed).scan, expected)
    assert close(read(tmp_path, from_data, np.radians(degrees)).scan, expected)
    in_rad = CONE.replace('"deg"', '"rad"').replace(SOURCE, f"list = {ANGLES.tolist()}\n")
    assert close(read(tmp_path, in_rad).scan, expected)


def test_clockwise_is_the_other_way(tmp_path):
    stated = read(tmp_path, CONE.replace("count", 'direction = "clockwise"\ncount'))
    assert close(stated.scan, cone(**DISTANCES, detector_shape=(8, 10), pixel_mm=0.4, angles=-ANGLES))
    # Seen from +z, the source goes from -y to -x.
    assert stated.scan.source[20, 0] < 0
    assert any("clockwise seen from +z" in note for note in stated.notes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("step = 1", "step and count belong together"),
        ("start = 1", "give exactly one of"),
        ("step = 1\ncount = 3\nlist = [1]", "give exactly one of"),
        ("from_data = true", "states no angles"),
        ("list = []", "angles.list: .*at least 1"),
        ("step = 1\ncount = 0", "angles.count: should be greater than or equal to 1, found 0"),
        ("step = 1\ncount = 3.0", "angles.count: should be a valid integer, found 3.0"),
        ("step = '1'\ncount = 3", "angles.step: should be a valid number, found '1'"),
        ("step = 1\ncount = 1_000_000_000", "angles.count: should be less"),
    ],
)
def test_sources_that_cannot_be_meant(tmp_path, source, message):
    assert re.search(message, refused(tmp_path, CONE.replace(SOURCE, source + "\n")))


def test_number_of_views_must_be_that_of_the_data(tmp_path):
    assert "states 100 views, the projections' file has 99" in refused(tmp_path, CONE, DataError, np.zeros(99))


def test_all_problems_in_one_message(tmp_path):
    text = (
        CONE.replace("rows = 8", "row = 8")
        .replace("0.4", '"0.4"')
        .replace("500", "-5")
        .replace("1000.0", "nan")
        .replace('"deg"', '"degree"')
        + "[grid]\nshape = [4, 5]\nvoxel_mm = true\n[axes]\nshift_mm = 0\n"
    )
    message = refused(tmp_path, text)
    assert message.splitlines()[0].endswith("geometry.toml: 9 problems")
    for line in (
        "source_to_object_mm: should be greater than 0, found -5",
        "source_to_detector_mm: should be a finite number, found nan",
        "detector.rows: missing",
        "detector.row: unknown key; did you mean detector.rows?",
        "detector.pixel_mm: should be a valid tuple, found '0.4'",
        "angles.unit: should be 'deg' or 'rad', found 'degree'",
        "grid.shape.2: missing",
        "grid.voxel_mm: should be a valid tuple, found True",
        "axes: unknown key; did you mean axis?",
    ):
        assert f"\n  {line}" in message


def test_keys_of_other_beams_and_other_tables(tmp_path):
    fan_text = CONE.replace('"cone"', '"fan"').replace("0.4", "0.4\nrow_pitch_mm = 1\ntilt_deg = [0, 0, 0]")
    assert "detector.tilt_deg: does not go with the other keys" in refused(tmp_path, fan_text)
    assert "rows: unknown key; did you mean detector.rows?" in refused(tmp_path, "rows = 3\n" + CONE)
    assert "helix.pitch_mm" not in refused(tmp_path, "pitch = 3\n" + CONE)
    assert "source_to_object_mm: missing" in refused(tmp_path, re.sub("source_to_object.*", "", CONE))


def test_fan_stack_needs_its_pitch_and_has_no_v_offset(tmp_path):
    text = CONE.replace('"cone"', '"fan"')
    assert "detector: 8 rows need row_pitch_mm" in refused(tmp_path, text)
    assert "no offset along v" in refused(tmp_path, text.replace("0.4", "0.4\noffset_mm = [1, 0]"))
    assert any("(assumed)" in note for note in read(tmp_path, text.replace("rows = 8", "rows = 1")).notes)


@pytest.mark.parametrize("beam", ['""', '"spiral"', "3", "[]"])
def test_unknown_beam(tmp_path, beam):
    assert "choose one of cone, fan, parallel, helical" in refused(tmp_path, CONE.replace('"cone"', beam))


def test_missing_beam(tmp_path):
    assert "beam is missing" in refused(tmp_path, CONE.replace('beam = "cone"', ""))


def test_distances_that_no_scanner_has(tmp_path):
    message = refused(tmp_path, CONE.replace("1000.0", "400.0"), GeometryError)
    assert "source_to_detector_mm (400 mm)" in message
    assert "source_to_object_mm (500 mm)" in message
    assert "between 1e-06 and 100000 mm" in refused(tmp_path, CONE.replace("0.4", "1e-9"), GeometryError)


def test_radians_stated_as_degrees(tmp_path):
    text = CONE.replace("step = 3.0", "step = 0.0628")
    message = refused(tmp_path, text, GeometryError)
    assert "100 angles run over only 6.217 degrees: they look like radians (356.2 degrees)" in message
    assert "angles.trust = true" in message
    assert read(tmp_path, text + "trust = true\n").scan.views == 100
    assert read(tmp_path, text.replace("count = 100", "count = 30")).scan.views == 30
    in_data = CONE.replace(SOURCE, "from_data = true\n")
    assert "look like radians" in refused(tmp_path, in_data, GeometryError, np.radians(np.linspace(0, 6.28, 100)))


def test_degrees_stated_as_radians(tmp_path):
    text = CONE.replace('"deg"', '"rad"')
    message = refused(tmp_path, text, GeometryError)
    assert "297 rad, 47.3 turns: they look like degrees, set angles.unit = 'deg'" in message
    assert read(tmp_path, text + "trust = true\n").scan.views == 100
    assert "750 deg, 2.1 turns: check start and step" in refused(
        tmp_path, CONE.replace("step = 3.0", "step = 7.5").replace("count = 100", "count = 101"), GeometryError
    )


def test_repeated_angles_warn(tmp_path):
    text = CONE.replace("step = 3.0", "step = 90.0").replace("count = 100", "count = 5")
    with pytest.warns(GeometryWarning, match="1 of 5 angles repeat"):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read \(No such file"):
        read_geometry(tmp_path / "none.toml")


def test_flipped_bytes(tmp_path):
    whole = (CONFIGS / "cone-example.toml").read_bytes()
    rng = np.random.default_rng(11)
    path = tmp_path / "geometry.toml"
    refusals = []
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            read_geometry(path)
        except VolreconError as error:
            refusals.append(str(error))
    assert all(str(path) in message for message in refusals)
    assert 0 < len(refusals) < 200


def test_example_of_a_cone():
    stated = read_geometry(CONFIGS / "cone-example.toml")
    angles = np.radians(0.5 * np.arange(720))
    assert close(stated.scan, cone(**DISTANCES, detector_shape=(256, 256), pixel_mm=0.4, angles=angles))
    assert stated.grid == VolumeGeometry((256, 256, 256), (0.2, 0.2, 0.2))


def test_example_of_htc2022():
    t = np.radians(0.5 * np.arange(720))
    scan = read_geometry(CONFIGS / "htc2022.toml", Frame((1, 560), len(t), t)).scan
    # The data's own frame: source at SOD (cos t, sin t), detector columns along (-sin t, cos t).
    np.testing.assert_allclose(scan.source[:, :2], 410.66 * np.stack([np.cos(t), np.sin(t)], 1), atol=1e-9)
    np.testing.assert_allclose(scan.u[:, :2], 0.2 * np.stack([-np.sin(t), np.cos(t)], 1), atol=1e-12)
    np.testing.assert_allclose(scan.source_to_detector_mm, 553.74)
    assert scan.shape == (1, 720, 560)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_key_of_the_examples_is_explained(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line.partition("#")[0]:
            assert "#" in line, line
