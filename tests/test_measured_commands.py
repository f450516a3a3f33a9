"""`volrecon import` of counts, and `volrecon preprocess`: options, what they print, exit codes."""

import json
import re

import numpy as np
import pytest
from test_find_axis import SCANS, shadows

from volrecon.preprocess.middle_plane import axis_column, moved_axis
from volrecon.store import ScanHeader, open_scan, open_volume, write_scan

SCAN = SCANS["parallel 180, open end"]
GEOMETRY = """
beam = "parallel"
[detector]
rows = 3
columns = 120
pixel_mm = [3.0, 1.2]
[angles]
unit = "deg"
step = 2.0
count = 90
"""


@pytest.fixture
def counts(tmp_path):
    """raw.npy (angle, v, u), flat.npy, dark.npy and g.toml of a scan whose axis is seen on column 66.4."""
    light = np.exp(-shadows(moved_axis(SCAN, 66.4)))
    np.save(tmp_path / "raw.npy", np.round(100 + 50_000 * light).astype(np.uint16).swapaxes(0, 1))
    np.save(tmp_path / "flat.npy", np.full((3, 3, 120), 50_100, np.uint16))
    np.save(tmp_path / "dark.npy", np.full((3, 120), 100, np.uint16))
    (tmp_path / "g.toml").write_text(GEOMETRY)
    return ["import", "raw.npy", "--axes", "angle,v,u", "--geometry", "g.toml"]


def found(said: str) -> float:
    return float(re.search(r"rotation axis at column ([\d.]+) \+- ", said)[1])


def test_from_counts_to_a_picture_of_the_right_axis(cli, counts):
    said = cli(*counts, "--flat", "flat.npy", "--dark", "dark.npy", "--find-axis", "--out", "scan.zarr")
    assert found(said) == pytest.approx(66.4, abs=0.15)
    assert "nothing speaks against it" in said
    assert "flat: mean of 1 frame(s), median 50100" in said
    scan = open_scan("scan.zarr")
    assert axis_column(scan.geometry) == pytest.approx(found(said), abs=0.01)
    np.testing.assert_allclose(scan.projections[:], shadows(moved_axis(SCAN, 66.4)), atol=1e-3)
    assert scan.provenance["preparation"][0]["done"]["axis"]["column"] == pytest.approx(found(said), abs=0.01)
    assert "dead_pixels" in cli("info", "scan.zarr")
    cli("run", "--scan", "scan.zarr", "--method", "fbp", "--out", "run", "--quiet")
    assert open_volume("run/volume.zarr").data[:].max() > 0.02


def test_every_option_arrives(cli, counts):
    options = ["--white", "50100", "--dark", "dark.npy", "--empty", "0:5,115:120", "--rings", "3", "--bin", "2,3",
               "--rows", "1:3", "--columns", "6:114", "--axis-column", "66.5", "--lowest-transmission", "0.01",
               "--photons", "1e4", "--out", "scan.zarr"]  # fmt: skip
    said = cli(*counts, *options)
    assert "averaged 2 x 3: (1, 36)" in said
    scan = open_scan("scan.zarr")
    assert scan.provenance["preparation"][0]["asked"] == {
        "lowest_transmission": 0.01,
        "empty": [[0, 5], [115, 120]],
        "rings": 3,
        "bin_vu": [2, 3],
        "rows": [1, 3],
        "columns": [6, 114],
        "axis": 66.5,
    }
    assert scan.geometry.shape == (1, 90, 36)
    assert scan.noise.photons == 6e4
    json.dumps(scan.provenance)


def test_a_scan_is_prepared_and_asked_for_its_axis(cli, tmp_path):
    write_scan(tmp_path / "scan.zarr", ScanHeader(SCAN), [shadows(moved_axis(SCAN, 55.0))])
    assert found(cli("preprocess", "scan.zarr", "--find-axis")) == pytest.approx(55, abs=0.15)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.zarr"]
    cli("preprocess", "scan.zarr", "--find-axis", "--bin", "1,2", "--out", "better.zarr")
    assert axis_column(open_scan("better.zarr").geometry) == pytest.approx(27.25, abs=0.15)
    assert found(cli("preprocess", "better.zarr", "--find-axis")) == pytest.approx(27.25, abs=0.15)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "5"], "give a:b"),
        (["--rows", "5:2"], "not inside a detector of 3 rows"),
        (["--columns", "0:500"], "120 columns"),
        (["--empty", "0:5,3:9"], "must follow each other"),
        (["--empty", "a:b"], "give a:b"),
        (["--rings", "4"], "odd"),
        (["--bin", "0"], "at least 1"),
        (["--lowest-transmission", "0"], "greater than 0"),
        (["--axis-column", "nan"], "finite"),
        (["--axis-column", "5", "--find-axis"], "not both"),
        (["--flat", "flat.npy", "--white", "3"], "given twice"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(cli, counts, options, said):
    assert said in cli(*counts, "--white", "50100", *options, "--out", "scan.zarr", code=2)


def test_options_of_volumes_do_not_go_with_projections(cli, counts):
    said = cli(*counts, "--white", "50100", "--quantity", "hu", "--out", "s.zarr", code=2)
    assert "this imports projections" in said


def test_what_is_refused_says_what_to_give(cli, counts, tmp_path):
    assert "--flat FILE" in cli(*counts, "--out", "scan.zarr", code=3)
    assert "--white N" in cli(*counts, "--dark", "dark.npy", "--out", "scan.zarr", code=3)
    assert "brighter" in cli(*counts, "--white", "500", "--out", "scan.zarr", code=3)
    assert "give --geometry" in cli("import", "raw.npy", "--rings", "5", "--out", "scan.zarr", code=2)
    assert "no such file" in cli(*counts, "--flat", "none.npy", "--out", "scan.zarr", code=3)
    assert not (tmp_path / "scan.zarr").exists()
    write_scan(tmp_path / "scan.zarr", ScanHeader(SCAN), [shadows(SCAN)])
    assert "give --out" in cli("preprocess", "scan.zarr", "--rings", "5", code=2)
    assert "nothing to do" in cli("preprocess", "scan.zarr", "--out", "out.zarr", code=2)
