"""Nikon scans that are damaged, incomplete, hostile, or of two minds: refused with what was found."""

import re

import numpy as np
import pytest
import tifffile

from tests.nikon_scans import (
    COLUMNS,
    COUNTS,
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
    save,
    state,
    text,
)
from volrecon.errors import ConfigError, DataError, GeometryError, VolreconError
from volrecon.formats import Frame, Hints


def test_conventions_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"part\.xtekct.*ObjectOffsetX = 0 mm, but .*0\.7 mm there"):
        state(tmp_path, ObjectOffsetX=0.0, CentreOfRotationTop=2.8, CentreOfRotationBottom=2.8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("_ctdata.txt", ctdata(views=6), r"line 2 is '6.*Projections=5"),
        ("_ctdata.txt", ctdata(MEASURED[:3]), "no angle for projection 4 "),
        ("_ctdata.txt", ctdata(-MEASURED), "turns by -.* in the other sense"),
        ("part 1.ang", ang(-MEASURED), "turns by -.* in the other sense"),
        ("part 1.ang", ang(MEASURED / 2), "turns by 34.* another scan's"),
        ("part 1.ang", ang().replace("2:", "1:"), r"line 3 is.*given twice"),
        ("part 1.ang", ang().replace("-70.2", "nan"), "no angle in degrees"),
        ("part 1.ang", ang().replace("-70.2", "-70,2"), "expected a number and an angle"),
        ("part 1.ang", "3: 4", r"line 1 must name the column Angle\(deg\)"),
        ("part 1.ang", "", "line 1 must name"),
        ("_ctdata.txt", "\x00\xff" * 50, "line 3 must name"),
    ],
)
def test_angle_files_of_other_scans_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message) as caught:
        state(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("keys", [{}, {**REGION, "RegionStartX": 5}], ids=["no region", "region beyond the panel"])
def test_images_of_another_size_are_refused(tmp_path, keys):
    with pytest.raises(DataError, match=r"part\.xtekct.*images have \(3, 4\) pixels.*detector \(6, 8\)"):
        NIKON.read_projections(save(tmp_path, COUNTS[:, :3, :4], **keys), Hints())


def test_images_that_are_not_what_the_file_says(tmp_path):
    path = save(tmp_path)
    third = tmp_path / "part 1_0003.tif"
    whole = third.read_bytes()
    third.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"part 1_0003\.tif"):
        NIKON.read_projections(path, Hints()).projections[:]
    tifffile.imwrite(third, COUNTS[2].astype(np.float32), photometric="minisblack")
    with pytest.raises(DataError, match=r"0003\.tif.*float32, the first"):
        NIKON.read_projections(path, Hints()).projections[:]
    tifffile.imwrite(third, COUNTS[:2], photometric="minisblack")
    with pytest.raises(DataError, match=r"0003\.tif: 2 pages"):
        NIKON.read_projections(path, Hints()).projections[:]
    (tmp_path / "part 1_0002.tiff").write_bytes(whole)
    with pytest.raises(DataError, match=r"6 images .* only 5 different numbers"):
        NIKON.read_projections(path, Hints())
    (tmp_path / "part 1_0002.tiff").unlink()
    third.rename(tmp_path / "part 1_3.tif")
    with pytest.raises(DataError, match=r"Projections=5, but 1 of the images .* the first is number 3"):
        NIKON.read_projections(path, Hints())
    for image in tmp_path.glob("*.tif"):
        image.unlink()
    with pytest.raises(DataError, match=r"no image part 1_0001\.tif in"):
        NIKON.read_projections(path, Hints())


def test_a_hint_of_other_axes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="drop the hint axes"):
        NIKON.read_projections(save(tmp_path), Hints(axes="v,angle,u"))


@pytest.mark.parametrize(
    "keys",
    [{"Name": "../part"}, {"Name": "/etc/part"}, {"Name": "a\\b"}, {"Name": "C:x"}, {"Name": "a\0b"},
     {"InputName": "../x"}, {"InputSeparator": "/../_"}, {"Name": "absent", "InputFolderName": ".."},
     {"Name": "absent", "InputFolderName": "../raw"}, {"Name": "absent", "InputFolderName": "C:\\scans"}],
    ids=str,
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, keys):
    with pytest.raises(DataError, match="only a plain file name"):
        NIKON.read_projections(save(tmp_path, **keys), Hints())


def test_every_problem_of_the_keys_is_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        state(
            tmp_path, SrcToObject=None, AngularStep="", DetectorPixelSizeX="nan", WhiteLevel=0, Units="cm",
            Projections=10**9, VoxelsX="1e300", DetectorPixelsY=2.5, ObjectTilt=90, InitialAngle="0,5",
        )  # fmt: skip
    message = str(caught.value)
    assert "10 problems" in message
    for key in ("SrcToObject: missing", "AngularStep: missing", "DetectorPixelSizeX", "WhiteLevel", "Units",
                "Projections", "VoxelsX", "DetectorPixelsY", "ObjectTilt", "InitialAngle"):  # fmt: skip
        assert re.search(rf"\n  {key}", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "needs one section"),
        (b"Name=a\n", "not an .xtekct.*no section"),
        (b"[Xrays]\nXraykV=7\n", r"needs one section \[xtekct\]; it has the sections Xrays"),
        (b"[XTekCT]\nName=a\nName=b\n", "not an .xtekct.*already exists"),
        (b"[XTekCT]\n\xff\xfe\x00\x01\n", "not an .xtekct"),
        (b"[XTekCT]\nName=" + b"a" * 2**20, "more than 1048576 bytes"),
        (text(SrcToDetector=90).encode(), r"SrcToDetector \(90\) must be larger than SrcToObject"),
        (text(DetectorPixelSizeX=1e-8).encode(), "detector pixel in u is 1e-08 mm"),
    ],
    ids=["empty", "no section", "other section", "twice", "binary", "large", "distances", "pixel"],
)
def test_what_is_no_xtekct_is_refused(tmp_path, content, message):
    path = tmp_path / "part.xtekct"
    path.write_bytes(content)
    with pytest.raises((ConfigError, DataError, GeometryError), match=message) as caught:
        GEOMETRY.read(path, None)
    assert str(path) in str(caught.value)


def test_a_frame_of_other_projections_is_refused(tmp_path):
    check_same(state(tmp_path, Frame((ROWS, COLUMNS), VIEWS)).scan, as_nikon())
    with pytest.raises(DataError, match="Projections=5, but there are 4"):
        state(tmp_path, Frame((ROWS, COLUMNS), 4))
    with pytest.raises(DataError, match=r"images have \(8, 6\) pixels"):
        state(tmp_path, Frame((COLUMNS, ROWS), VIEWS))


@pytest.mark.parametrize("damaged", ["part.xtekct", "part 1.ang", "_ctdata.txt", "part 1_0002.tif"])
def test_flipped_bytes(tmp_path, damaged):
    path = save(tmp_path)
    if damaged.startswith("part 1.") or damaged.startswith("_"):
        (tmp_path / damaged).write_text(ang() if damaged.endswith("ang") else ctdata())
    whole = (tmp_path / damaged).read_bytes()
    rng = np.random.default_rng(11)
    outcomes = [survives(path, tmp_path / damaged, whole, rng) for _ in range(150)]
    assert any(outcomes)
    assert not all(outcomes)


def survives(path, damaged, whole, rng) -> bool:
    """Whether a scan with a damaged file can still be read; any error but ours fails the test."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    damaged.write_bytes(data)
    try:
        read = NIKON.read_projections(path, Hints())
        shape = read.projections[:].shape
    except VolreconError as error:
        message = str(error)
    else:
        assert shape == read.stated.scan.shape
        return True
    assert str(damaged.parent) in message
    return False
