"""RTK's XML: files that itk-rtk 2.7 wrote, against the matrices in them, and files that cannot be meant."""

import re

import numpy as np
import pytest

from volrecon.errors import ConfigError, DataError, GeometryError, VolreconError
from volrecon.formats import Frame, PixelGrid, geometry_format_of, read_geometry
from volrecon.geometry import ScanGeometry, cone, fan, from_vectors, helical, parallel

# AddProjection(500, 800, 10, 3, -2, 1.5, -2.5, 0.75, -0.5) and (510, 800, 130, 3, -1, 1.5, 0, 0.75, -0.5).
CONE = """<?xml version="1.0"?>
<!DOCTYPE RTKGEOMETRY>
<RTKThreeDCircularGeometry version="3">
    <SourceToDetectorDistance>800</SourceToDetectorDistance>
    <SourceOffsetX>0.75</SourceOffsetX>
    <SourceOffsetY>-0.5</SourceOffsetY>
    <ProjectionOffsetX>3</ProjectionOffsetX>
    <OutOfPlaneAngle>1.5</OutOfPlaneAngle>
  <Projection>
    <GantryAngle>10</GantryAngle>
    <SourceToIsocenterDistance>500</SourceToIsocenterDistance>
    <ProjectionOffsetY>-2</ProjectionOffsetY>
    <InPlaneAngle>357.5</InPlaneAngle>
    <Matrix>
        -787.328301601347    34.9424502062562    137.470844803988                1725
         -37.737988067021   -799.003963588948   -13.0675332716022               -1150
        0.173588672773404 -0.0261769483078732   0.984470283991373                -500
    </Matrix>
  </Projection>
  <Projection>
    <GantryAngle>130</GantryAngle>
    <SourceToIsocenterDistance>510</SourceToIsocenterDistance>
    <ProjectionOffsetY>-1</ProjectionOffsetY>
    <InPlaneAngle>0</InPlaneAngle>
    <Matrix>
         512.507078386885  0.0588981336927146    614.281331015643              1747.5
        -15.6592736618368     -799.7389484546    13.1396907541514                -655
        0.765781938820708 -0.0261769483078732  -0.642567342426679                -510
    </Matrix>
  </Projection>
</RTKThreeDCircularGeometry>
"""

# AddProjection(1000, 0, gantry, 1.25, -2) at 0 and 300 degrees.
PARALLEL = """<?xml version="1.0"?>
<!DOCTYPE RTKGEOMETRY>
<RTKThreeDCircularGeometry version="3">
    <SourceToIsocenterDistance>1000</SourceToIsocenterDistance>
    <ProjectionOffsetX>1.25</ProjectionOffsetX>
    <ProjectionOffsetY>-2</ProjectionOffsetY>
  <Projection>
    <GantryAngle>0</GantryAngle>
    <Matrix>
                        1                   0                   0               -1.25
                        0                   1                   0                   2
                        0                   0                   0                   1
    </Matrix>
  </Projection>
  <Projection>
    <GantryAngle>300</GantryAngle>
    <Matrix>
                      0.5                   0   0.866025403784439               -1.25
                        0                   1                   0                   2
                        0                   0                   0                   1
    </Matrix>
  </Projection>
</RTKThreeDCircularGeometry>
"""

RADIUS = "RadiusCylindricalDetector"
PIXELS = PixelGrid((0.8, 0.4), (-3.25, 10.5))
FRAME = Frame((6, 8), 2, None, PIXELS)
FAR = {"source_to_object_mm": 500.0, "source_to_detector_mm": 800.0}
CENTRED = {**FAR, "detector_shape": (6, 8), "pixel_mm": (0.8, 0.4)}


def read(tmp_path, text: str, frame: Frame | None = FRAME):
    path = tmp_path / "geometry.xml"
    path.write_text(text, encoding="utf-8")
    return read_geometry(path, frame)


def refused(tmp_path, text: str, kind=DataError, frame=FRAME) -> str:
    with pytest.raises(kind) as caught:
        read(tmp_path, text, frame)
    assert "geometry.xml" in str(caught.value)
    return str(caught.value)


def write(path, scan: ScanGeometry) -> str:
    geometry_format_of(path).write(path, scan)
    return path.read_text(encoding="ascii")


def centred(scan: ScanGeometry) -> Frame:
    (size_v, size_u), (rows, columns) = scan.pixel_vu_mm, scan.detector_shape
    first = (-(rows - 1) / 2 * size_v, -(columns - 1) / 2 * size_u)
    return Frame(scan.detector_shape, scan.views, None, PixelGrid((size_v, size_u), first))


@pytest.mark.parametrize("text", [CONE, PARALLEL], ids=["cone", "parallel"])
def test_points_fall_where_rtks_matrices_put_them(tmp_path, text):
    stated = read(tmp_path, text)
    scan = stated.scan
    matrices = np.array([block.split() for block in re.findall("<Matrix>(.*?)</Matrix>", text, re.DOTALL)], float)
    world = np.random.default_rng(2).uniform(-60, 60, (50, 3))
    in_rtk = np.stack([world[:, 0], world[:, 2], -world[:, 1], np.ones(50)])  # y is the axis, z points to the source
    image = matrices.reshape(2, 3, 4) @ in_rtk
    forms = scan.pixel_forms() @ np.concatenate([world, np.ones((50, 1))], axis=1).T
    for axis, first, size in ((0, 10.5, 0.4), (1, -3.25, 0.8)):
        pixel = forms[:, axis] / forms[:, axis + 2]
        np.testing.assert_allclose(first + size * pixel, image[:, axis] / image[:, 2], atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(scan.v, axis=1), 0.8, rtol=1e-14)
    assert (scan.beam, scan.shape) == ("parallel" if text is PARALLEL else "cone", (6, 2, 8))
    assert stated.grid is None
    assert "axes (x, -z, y) taken as ours" in stated.notes[0]
    assert "first at (-3.25, 10.5) mm" in stated.notes[1]


def test_source_and_detector_are_where_rtk_has_them(tmp_path):
    scan = read(tmp_path, CONE).scan
    matrix = np.array(re.findall("<Matrix>(.*?)</Matrix>", CONE, re.DOTALL)[1].split(), float).reshape(3, 4)
    x, y, z = np.linalg.solve(matrix[:, :3], -matrix[:, 3])  # the source is what the matrix sends nowhere
    np.testing.assert_allclose(scan.source[1], (x, -z, y), atol=1e-9)
    np.testing.assert_allclose(scan.source_to_detector_mm, 800, rtol=1e-12)


def test_the_gantry_angle_is_ours(tmp_path):
    angles = np.radians([0, 90, 200])
    scan = cone(**CENTRED, angles=angles)
    text = write(tmp_path / "a.xml", scan)
    assert re.findall("<GantryAngle>(.*)</GantryAngle>", text) == ["0.0", "90.0", "200.0"]
    np.testing.assert_allclose(read(tmp_path, text, centred(scan)).scan.angles, angles, atol=1e-12)


def test_written_as_rtk_does(tmp_path):
    text = write(tmp_path / "a.xml", cone(**CENTRED, angles=[0.0, 1.0], detector_offset_mm=(0.0, 2.5)))
    start = text.index("<Projection>")
    assert text.startswith('<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n<RTKThreeDCircularGeometry version="3">\n')
    assert re.findall(r"<(\w+)>([-\d.e]+)<", text[:start]) == [
        ("SourceToIsocenterDistance", "500.0"),
        ("SourceToDetectorDistance", "800.0"),
        ("ProjectionOffsetX", "2.5"),
    ]
    assert re.findall(r"<(\w+)>", text[start:]) == ["Projection", "GantryAngle", "Matrix"] * 2


def test_a_parallel_source_is_outside_of_what_is_seen(tmp_path):
    text = write(tmp_path / "a.xml", parallel(detector_shape=(6, 8), pixel_mm=400.0, angles=[0.0, 1.0]))
    assert float(re.search("<SourceToIsocenterDistance>(.*?)<", text)[1]) > 2000
    assert "SourceToDetectorDistance" not in text


@pytest.mark.parametrize("degrees", [90, -90, 89.9999])
def test_a_detector_seen_from_above(tmp_path, degrees):
    tipped = cone(**CENTRED, angles=[0.3]).vectors.reshape(4, 3)
    a = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    scan = from_vectors("cone", (6, 8), (tipped @ turn.T).reshape(1, 12))
    text = write(tmp_path / "a.xml", scan)
    np.testing.assert_allclose(read(tmp_path, text, centred(scan)).scan.vectors, scan.vectors, atol=1e-9)


def test_a_mirrored_detector(tmp_path):
    scan = cone(**CENTRED, angles=[0.3, 2.0], detector_offset_mm=(1.0, 2.0))
    vectors = scan.vectors * np.repeat([1, 1, -1, 1], 3)
    mirrored = from_vectors("cone", (6, 8), vectors)
    again = read(tmp_path, write(tmp_path / "a.xml", mirrored), centred(mirrored)).scan
    np.testing.assert_allclose(again.vectors, vectors, atol=1e-9)


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (fan(source_to_object_mm=5, source_to_detector_mm=8, columns=8, pixel_mm=1, angles=[0]), "no stack of fans"),
        (parallel(detector_shape=(2, 2), pixel_mm=1.0, angles=[0.0]), None),
        (helical(**CENTRED, angles=[0, 1, 2], pitch_mm=30), None),
    ],
    ids=["fan", "parallel", "helix"],
)
def test_beams(tmp_path, scan, message):
    if message is None:
        write(tmp_path / "a.xml", scan)
        return
    with pytest.raises(GeometryError, match=message):
        write(tmp_path / "a.xml", scan)
    assert not (tmp_path / "a.xml").exists()


def test_detectors_that_rtk_cannot_hold(tmp_path):
    scan = cone(**CENTRED, angles=[0.0, 1.0])
    scale = np.ones((2, 12))
    scale[1, 6:9] = 1.01
    larger = from_vectors("cone", (6, 8), scan.vectors * scale)
    with pytest.raises(GeometryError, match=r"sizes vary by 0\.01"):
        write(tmp_path / "a.xml", larger)
    sheared = scan.vectors.copy()
    sheared[:, 6:9] += 0.01 * scan.v
    with pytest.raises(GeometryError, match=r"1\.1\d deg from square"):
        write(tmp_path / "a.xml", from_vectors("cone", (6, 8), sheared))
    oblique = parallel(detector_shape=(6, 8), pixel_mm=1.0, angles=[0.0, 1.0]).vectors.copy()
    for ray in ([0.1, 1.0, 0.0], [0.0, -1.0, 0.0]):
        oblique[0, :3] = ray
        with pytest.raises(GeometryError, match="right angle"):
            write(tmp_path / "a.xml", from_vectors("parallel", (6, 8), oblique))


def test_without_pixels_the_projections_are_asked_for(tmp_path):
    for frame in (None, Frame((6, 8), 2), Frame((6, 8), 2, None, PixelGrid((1.0, 1.0)))):
        assert "needs projections whose file has a pixel size" in refused(tmp_path, CONE, ConfigError, frame)


def test_number_of_views(tmp_path):
    three = Frame((6, 8), 3, None, PIXELS)
    assert "states 2 views, the projections' file has 3" in refused(tmp_path, CONE, frame=three)
    assert "more views than the 1" in refused(tmp_path, CONE, frame=Frame((6, 8), 1, None, PIXELS))


def test_versions_and_what_is_ignored(tmp_path):
    expected = read(tmp_path, CONE).scan
    assert read(tmp_path, CONE.replace('version="3"', 'version="2"')).scan == expected
    collimated = CONE.replace("  <Projection>\n", "  <Projection>\n<CollimationUInf>12</CollimationUInf>\n")
    stated = read(
        tmp_path, collimated.replace("  <Projection>", "<CollimationVSup>1e9</CollimationVSup><Projection>", 1)
    )
    assert stated.scan == expected
    assert stated.notes[-1] == "not used: collimation"
    flat = f"<{RADIUS}>0</{RADIUS}><SourceToDet"
    assert read(tmp_path, CONE.replace("<SourceToDet", flat, 1)).scan == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version="3"', 'version="4"', "version '4'"),
        (' version="3"', "", "version ''"),
        ("RTKThreeDCircularGeometry", "RTKOther", "'RTKOther'"),
        ("<SourceToDet", f"<{RADIUS}>1536</{RADIUS}><SourceToDet", "radius of 1536 mm"),
        (">130<", ">131<", "Matrix of view 1 does not agree"),
        ("1747.5", "1747.6", "Matrix of view 1 does not agree"),
        (">800<", ">0<", "Matrix of view 0 does not agree"),
        (">800<", ">nan<", "SourceToDetectorDistance holds 'nan'"),
        (">800<", ">8e999<", "SourceToDetectorDistance holds '8e999'"),
        (">800<", ">800 800<", "SourceToDetectorDistance holds '800 800'"),
        (">800<", "><", "SourceToDetectorDistance holds ''"),
        (">800<", ">" + "8" * 5000 + "<", "more than 4096 characters"),
        (">800<", ">1<b/><", "unknown element"),
        ("<GantryAngle>10<", "<Gantry>10<", "mismatched tag|unknown element"),
        ("<GantryAngle>10</GantryAngle>", "<Projection>", "unknown element"),
        ("    <SourceOffsetX>", "words <SourceOffsetX>", None),
        ("  </Projection>\n", "words </Projection>", "outside of any parameter"),
        ("    <InPlaneAngle>0</InPlaneAngle>\n", "", "InPlaneAngle: stated by some views but not by view 1"),
        ("    <SourceOffsetX>", "<SourceOffsetX>1</SourceOffsetX><SourceOffsetX>", "SourceOffsetX twice"),
        ("</Projection>\n</RTK", "</Projection><SourceOffsetX>1</SourceOffsetX></RTK", "twice|after the first"),
        ("</Projection>\n</RTK", "</Projection><InPlaneAngle>1</InPlaneAngle></RTK", "after the first Projection"),
        ("         512.507078386885", "", "expected 12 finite"),
        ("<!DOCTYPE RTKGEOMETRY>", '<!DOCTYPE a [<!ENTITY b "800">]>', "declares or fetches"),
        ("<!DOCTYPE RTKGEOMETRY>", '<!DOCTYPE a SYSTEM "file:///etc/passwd">', "declares or fetches"),
        (">800<", ">&b;<", "undefined entity"),
        ("</RTKThreeDCircularGeometry>", "", "no element found"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_meant(tmp_path, old, new, message):
    assert old in CONE
    if message is None:
        assert read(tmp_path, CONE.replace(old, new)).scan == read(tmp_path, CONE).scan
        return
    found = refused(tmp_path, CONE.replace(old, new))
    assert any(part in found for part in message.split("|")), found


def test_no_matrix(tmp_path):
    assert "view 0 has no Matrix" in refused(tmp_path, re.sub("<Matrix>.*?</Matrix>", "", CONE, flags=re.DOTALL))


def test_a_parallel_view_among_divergent_ones(tmp_path):
    text = re.sub(".*<SourceToDetectorDistance>.*\n", "", CONE)
    for distance in ("800", "0"):
        text = text.replace("<InPlane", f"<SourceToDetectorDistance>{distance}</SourceToDetectorDistance><In-Plane", 1)
    assert "view 1 is parallel" in refused(tmp_path, text.replace("In-Plane", "InPlane"))


def test_depth_size_and_repetition_are_bounded(tmp_path):
    refused(tmp_path, CONE.replace(">800<", ">" + "<a>" * 100_000 + "<"))
    refused(tmp_path, CONE.replace("  <Projection>", "<Projection/>" * 100_000 + "<Projection>", 1))
    with (tmp_path / "geometry.xml").open("wb") as stream:
        stream.truncate(65 * 2**20)
    with pytest.raises(DataError, match="68157440 bytes; a geometry may have"):
        read_geometry(tmp_path / "geometry.xml", FRAME)


def test_flipped_bytes(tmp_path):
    whole = CONE.encode()
    path = tmp_path / "geometry.xml"
    rng = np.random.default_rng(13)
    expected = read(tmp_path, CONE).scan
    messages, same = [], 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            scan = read_geometry(path, FRAME).scan
        except VolreconError as error:
            messages.append(str(error))
        else:
            # The matrices guard the parameters: what is read is right to RTK's own tolerance.
            same += 1
            np.testing.assert_allclose(scan.vectors, expected.vectors, atol=0.01)
    assert same
    assert len(messages) > 100
    assert all(str(path) in message for message in messages)
