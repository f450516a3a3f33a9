"""scan.zarr: what goes in comes out, in any blocks, and nothing half-written can be opened."""

import hashlib
import itertools
import json

import numpy as np
import pytest
from balls import GRID, ball_projections, small_scan
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import ConfigError, DataError, IntegrityError
from volrecon.geometry import ScanGeometry
from volrecon.noise import Noise
from volrecon.store import ScanHeader, open_scan, verify, write_scan


@pytest.mark.parametrize("beam", ["cone", "fan", "parallel", "helical"])
def test_round_trip(write_ball, beam):
    noise = Noise("poisson", 1e5, 3.0)
    path = write_ball(beam=beam, noise=noise, water_per_mm=0.019, provenance={"note": "a ball"})
    scan, y = open_scan(path), ball_projections(small_scan(beam))
    assert np.array_equal(scan.projections[0 : y.shape[0]], y)
    assert scan.geometry == small_scan(beam)
    assert (scan.grid, scan.noise, scan.water_per_mm) == (GRID, noise, 0.019)
    assert scan.provenance == {"note": "a ball"}
    assert scan.digest == hashlib.sha256(y.tobytes()).hexdigest()
    assert list(verify(path)) == []


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 36), max_size=6), dtype=st.sampled_from(["<f4", ">f4", "<f8", ">f8"]))
def test_any_blocks_give_the_same_bytes(tmp_path_factory, cuts, dtype):
    y = ball_projections(small_scan("cone", 3))
    edges = [0, *sorted(cuts), 36]
    blocks = (np.asfortranarray(y[a:b].astype(dtype)) for a, b in itertools.pairwise(edges))
    path = tmp_path_factory.mktemp("blocks") / "scan.zarr"
    write_scan(path, ScanHeader(small_scan("cone", 3)), blocks)
    assert np.array_equal(open_scan(path).projections[:], y)
    assert open_scan(path).digest == hashlib.sha256(y.tobytes()).hexdigest()


def test_axes_are_named_and_v_is_chunked(write_ball):
    metadata = json.loads((write_ball() / "projections" / "zarr.json").read_text())
    assert metadata["dimension_names"] == ["v", "angle", "u"]
    assert metadata["fill_value"] == "NaN"
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [16, 24, 32]
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "zstd", "crc32c"]


@pytest.mark.parametrize("rows", [35, 37, 0])
def test_a_wrong_number_of_rows_leaves_nothing(tmp_path, rows):
    block = np.zeros((rows, 24, 32), np.float32)
    with pytest.raises(DataError, match=f"{rows} rows|more rows"):
        write_scan(tmp_path / "scan.zarr", ScanHeader(small_scan("cone")), [block])
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_width(tmp_path):
    with pytest.raises(DataError, match=r"\(24, 31\).*\(24, 32\)"):
        write_scan(tmp_path / "scan.zarr", ScanHeader(small_scan("cone")), [np.zeros((36, 24, 31))])


def test_the_callers_array_is_not_masked(tmp_path):
    y = ball_projections(small_scan("cone"))
    y[2, 3, 4] = np.inf
    y.setflags(write=False)
    assert write_scan(tmp_path / "scan.zarr", ScanHeader(small_scan("cone")), [y], bad_pixels="mask") == 1
    assert np.isinf(y[2, 3, 4])
    assert np.isnan(open_scan(tmp_path / "scan.zarr").projections[2:3][0, 3, 4])


@pytest.mark.parametrize("rows", [2, 16])
def test_the_callers_small_blocks_are_not_masked_either(tmp_path, rows):
    y = ball_projections(small_scan("cone"))
    y[2, 3, 4] = np.inf
    blocks = [y[k : k + rows] for k in range(0, 36, rows)]
    write_scan(tmp_path / "scan.zarr", ScanHeader(small_scan("cone")), blocks, bad_pixels="mask")
    assert np.isinf(y[2, 3, 4])


def test_a_short_last_block_is_not_masked_in_place(tmp_path):
    scan = ScanGeometry("cone", (4, 32), small_scan("cone", 3).vectors)
    y = np.zeros(scan.shape, np.float32)
    y[3, 1, 1] = np.inf
    write_scan(tmp_path / "scan.zarr", ScanHeader(scan), [y], bad_pixels="mask")
    assert np.isinf(y[3, 1, 1])


def test_an_unfinished_scan_is_refused(write_ball):
    path = write_ball()
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["volrecon"]["complete"]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(IntegrityError, match="not written to its end"):
        open_scan(path)
    assert any("complete" in fault for fault in verify(path))


def test_writing_over(write_ball):
    path = write_ball()
    with pytest.raises(ConfigError, match="--overwrite"):
        write_ball()
    write_scan(path, ScanHeader(small_scan("fan")), [ball_projections(small_scan("fan"))], overwrite=True)
    assert open_scan(path).geometry.beam == "fan"
    assert [p.name for p in path.parent.iterdir()] == ["scan.zarr"]
