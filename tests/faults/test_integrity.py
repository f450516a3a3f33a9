"""Fault matrix, integrity of stored arrays (I1-I8) and of outputs that are replaced (K12, K13)."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volrecon import engine
from volrecon.errors import ConfigError, DataError, IntegrityError, ResourceError, VolreconError
from volrecon.geometry import VolumeGeometry
from volrecon.jobs import Job
from volrecon.store import open_scan, open_volume, verify, write_volume
from volrecon.store.output import replacing
from volrecon.swap import MARKER
from volrecon.volume import RamVolume

GRID = VolumeGeometry((40, 6, 5), (1.0, 1.0, 1.0))
VALUES = np.random.default_rng(0).random(GRID.shape, np.float32)


def write(path: Path, values: np.ndarray = VALUES, **options) -> Path:
    write_volume(path, RamVolume(torch.from_numpy(values)), GRID, {}, **options)
    return path


@pytest.fixture
def volume(tmp_path) -> Path:
    return write(tmp_path / "v.zarr")


def chunk(volume: Path, k: int) -> Path:
    return volume / "0" / "c" / str(k) / "0" / "0"


def edit(path: Path, change) -> None:
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(k=st.integers(0, 2), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_I1_any_flipped_bit(volume, k, where, bit):
    whole = chunk(volume, k).read_bytes()
    data = bytearray(whole)
    data[int(where * len(data))] ^= 1 << bit
    chunk(volume, k).write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=rf"v\.zarr/0.*c/{k}/0/0") as caught:
        open_volume(volume).data[:]
    assert caught.value.exit_code == 4
    assert list(verify(volume)) == [f"{volume}/0: chunk c/{k}/0/0 is missing or damaged"]
    others = [z for z in range(40) if z // 16 != k]
    for z in (others[0], others[-1]):
        assert np.array_equal(open_volume(volume).data[z : z + 1], VALUES[z : z + 1])
    chunk(volume, k).write_bytes(whole)


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 0.5, -1], ids=str)
def test_I2_truncated(volume, keep):
    data = chunk(volume, 1).read_bytes()
    chunk(volume, 1).write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(IntegrityError, match="c/1/0/0"):
        open_volume(volume).data[10:20]


@pytest.mark.parametrize("gone", [[0], [2], [0, 1, 2]])
def test_I2_deleted_chunks_are_all_listed(volume, gone):
    for k in gone:
        chunk(volume, k).unlink()
    with pytest.raises(IntegrityError, match=f"{len(gone)} chunks are missing.*c/{gone[0]}/0/0"):
        open_volume(volume).data[:]
    assert [fault.split()[2] for fault in verify(volume)] == [f"c/{k}/0/0" for k in gone]


def test_I2_a_scan_whose_chunk_is_gone_is_not_reconstructed(write_ball, tmp_path):
    (write_ball() / "projections" / "c" / "1" / "0" / "0").unlink()
    job = Job(scan="scan.zarr", out="run", method="fdk")
    with pytest.raises(IntegrityError, match="missing"):
        engine.run(engine.check(job, tmp_path))
    assert not (tmp_path / "run" / "volume.zarr").exists()


def test_I3_incomplete(volume):
    edit(volume / "zarr.json", lambda m: m["attributes"]["volrecon"].pop("complete"))
    chunk(volume, 2).unlink()
    with pytest.raises(IntegrityError, match="--partial"):
        open_volume(volume)
    values = open_volume(volume, partial=True).data[:]
    assert np.array_equal(values[:32], VALUES[:32])
    assert np.isnan(values[32:]).all()


def test_I4_air_is_present(tmp_path):
    path = write(tmp_path / "v.zarr", np.zeros_like(VALUES))
    assert not open_volume(path).data[:].any()
    assert list(verify(path)) == []
    chunk(path, 1).unlink()
    with pytest.raises(IntegrityError):
        open_volume(path).data[:]


DAMAGED = {
    "truncated": lambda path: path.write_text(path.read_text()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(b"\xff\x00" * 50),
    "list": lambda path: path.write_text("[]"),
    "number": lambda path: path.write_text("3"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "format": lambda path: edit(path, lambda m: m.update(zarr_format=2)),
    "format list": lambda path: edit(path, lambda m: m.update(zarr_format=[3])),
    "node": lambda path: edit(path, lambda m: m.update(node_type="thing")),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("node", ["", "0"])
def test_I5_damaged_metadata(volume, node, damage):
    DAMAGED[damage](volume / node / "zarr.json")
    with pytest.raises(DataError, match=r"v\.zarr") as caught:
        open_volume(volume)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("version", [2, 0, "1", None, 1.5])
def test_I5_format_version(volume, version):
    edit(volume / "zarr.json", lambda m: m["attributes"]["volrecon"].update(format_version=version))
    with pytest.raises(DataError, match=rf"format version {version}; this volrecon reads 1 to 1"):
        open_volume(volume)


@pytest.mark.parametrize("attributes", [None, [], {}, {"volrecon": 3}, {"volrecon": {"kind": "scan"}}])
def test_I5_attributes_of_something_else(volume, attributes):
    edit(volume / "zarr.json", lambda m: m.update(attributes=attributes))
    with pytest.raises(DataError, match=r"v\.zarr"):
        open_volume(volume)


SPOILT = [("geometry", {}), ("geometry", {"beam": "cone"}), ("noise", {"kind": "poisson"}), ("noise", 3), ("grid", [1])]
SPOILT += [("water_per_mm", None), ("water_per_mm", 0.0), ("water_per_mm", float("nan")), ("geometry", None)]


@pytest.mark.parametrize(("key", "value"), SPOILT)
def test_I5_spoilt_scan_attributes(write_ball, key, value):
    path = write_ball()
    edit(path / "zarr.json", lambda m: m["attributes"]["volrecon"].update({key: value}))
    with pytest.raises(DataError, match=r"scan\.zarr"):
        open_scan(path)


@pytest.mark.parametrize("value", [{}, {"shape_zyx": [1e400, 1, 1]}, 7, {"shape_zyx": [0, 6, 5]}])
def test_I5_spoilt_volume_geometry(volume, value):
    full = {"voxel_zyx_mm": [1, 1, 1], "centre_xyz_mm": [0, 0, 0]}
    value = {**full, **value} if isinstance(value, dict) else value
    edit(volume / "zarr.json", lambda m: m["attributes"]["volrecon"].update(geometry=value))
    with pytest.raises(DataError, match=r"v\.zarr"):
        open_volume(volume)


def test_I5_unknown_codec(volume):
    edit(volume / "0" / "zarr.json", lambda m: m["codecs"].append({"name": "no-such-codec", "configuration": {}}))
    with pytest.raises(DataError, match=r"v\.zarr/0.*no-such-codec"):
        open_volume(volume)


CLAIMS = {
    "shape": lambda m: m.update(shape=[10**7] * 3),
    "chunk 0": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[0, 6, 5]),
    "chunk -1": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[-16, 6, 5]),
    "chunk huge": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[16, 10**5, 10**5]),
    "chunk text": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=["a", 6, 5]),
    "no chunks": lambda m: m.pop("chunk_grid"),
    "infinite": lambda m: m.update(shape=[float("inf"), 6, 5]),
    "no axes": lambda m: m.update(shape=[]),
    "string": lambda m: m.update(data_type="string"),
    "complex": lambda m: m.update(data_type="complex64"),
    "double": lambda m: m.update(data_type="float64"),
    "object": lambda m: m.update(data_type={"name": "object"}),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_I6_claims_are_refused_from_the_metadata(volume, claim):
    edit(volume / "0" / "zarr.json", CLAIMS[claim])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"v\.zarr/0"):
        open_volume(volume)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_I7_shapes_that_disagree(volume, write_ball):
    edit(volume / "zarr.json", lambda m: m["attributes"]["volrecon"]["geometry"].update(shape_zyx=[40, 5, 6]))
    with pytest.raises(DataError, match=r"\(40, 6, 5\).*\(40, 5, 6\)"):
        open_volume(volume)
    path = write_ball()
    edit(path / "zarr.json", lambda m: m["attributes"]["volrecon"]["geometry"].update(detector_shape_vu=[32, 36]))
    with pytest.raises(DataError, match=r"\(36, 24, 32\).*\(32, 24, 36\)"):
        open_scan(path)


def test_I7_transposed_names(write_ball):
    path = write_ball()
    edit(path / "projections" / "zarr.json", lambda m: m.update(dimension_names=["u", "angle", "v"]))
    with pytest.raises(DataError, match=r"'u', 'angle', 'v'.*'v', 'angle', 'u'"):
        open_scan(path)


def test_I8_nothing_outside_the_root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "link.zarr").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    for name in ("link.zarr", "a\0b.zarr", "..", "."):
        for overwrite in (False, True):
            with pytest.raises(ConfigError):
                write(root / name, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["run\0", "a/\0/b"])
def test_I8_a_run_directory_with_a_nul(write_ball, tmp_path, name):
    write_ball()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="no disk takes"):
        engine.run(engine.check(Job(scan="scan.zarr", out=name, method="fdk"), tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["scan.zarr\0", "\0", "../nowhere", "/dev/null"])
def test_I8_a_scan_that_is_none(tmp_path, name):
    with pytest.raises(VolreconError):
        engine.check(Job(scan=name, out="run"), tmp_path)


FOREIGN = {
    "file": lambda path: path.write_text("precious"),
    "folder": lambda path: (path.mkdir(), (path / "thesis.tex").write_text("precious")),
    "zarr": lambda path: (path.mkdir(), (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("overwrite", [False, True])
def test_K12_foreign_things_are_left_alone(tmp_path, kind, overwrite):
    FOREIGN[kind](tmp_path / "v.zarr")
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match="not written by volrecon"):
        write(tmp_path / "v.zarr", overwrite=overwrite)
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


def test_K12_a_complete_volume_needs_overwrite(volume):
    with pytest.raises(ConfigError, match="--overwrite"):
        write(volume, VALUES + 1)
    assert np.array_equal(open_volume(volume).data[:], VALUES)
    write(volume, VALUES + 1, overwrite=True)
    assert np.array_equal(open_volume(volume).data[:], VALUES + 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_K13_an_interrupted_overwrite(volume, error):
    class Failing(RamVolume):
        def read(self, start, stop):
            if start >= 16:
                raise error
            return super().read(start, stop)

    with pytest.raises((KeyboardInterrupt, MemoryError, ResourceError)):
        write_volume(volume, Failing(torch.zeros(GRID.shape)), GRID, {}, overwrite=True)
    assert np.array_equal(open_volume(volume).data[:], VALUES)
    assert list(verify(volume)) == []
    assert list(volume.parent.iterdir()) == [volume]


@pytest.mark.parametrize("fails_at", [1, 2])
def test_K13_a_swap_that_fails_half_way(volume, monkeypatch, fails_at):
    replace, calls = Path.replace, []

    def failing(self, target):
        if Path(target) == volume or Path(target).name == "old":  # zarr renames files of its own
            calls.append(target)
        if len(calls) == fails_at:
            calls.append(None)
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(ResourceError, match="Nothing that stood there was changed"):
        write(volume, VALUES + 1, overwrite=True)
    assert len(calls) > fails_at
    assert np.array_equal(open_volume(volume).data[:], VALUES)


def test_K13_killed_between_the_two_renames(volume):
    """The old volume is put back by the next writer, and still guarded by --overwrite."""
    work = volume.with_name(".v.zarr.volrecon")
    work.mkdir()
    (work / MARKER).touch()
    shutil.copytree(volume, work / "new")
    volume.rename(work / "old")
    with pytest.raises(ConfigError, match="--overwrite"), replacing(volume, overwrite=False):
        pass
    assert np.array_equal(open_volume(volume).data[:], VALUES)


@pytest.mark.parametrize("link", [False, True])
def test_what_others_put_beside_an_output_is_left_alone(volume, tmp_path, link):
    theirs = tmp_path / "theirs"
    (theirs / "old").mkdir(parents=True)
    (theirs / "mine").write_text("x")
    work = volume.with_name(".v.zarr.volrecon")
    work.symlink_to(theirs) if link else theirs.rename(work)
    with pytest.raises(ConfigError, match="in the way"):
        write(volume, VALUES + 1, overwrite=True)
    assert (work / "mine").read_text() == "x"
    assert (work / "old").is_dir()
    assert np.array_equal(open_volume(volume).data[:], VALUES)


def test_a_store_that_only_mentions_volrecon_is_not_replaced(tmp_path):
    foreign = tmp_path / "f.zarr"
    foreign.mkdir()
    (foreign / "zarr.json").write_text('{"zarr_format":3,"node_type":"group","attributes":{"made_for":"volrecon"}}')
    (foreign / "mine").touch()
    with pytest.raises(ConfigError, match="not written by volrecon"):
        write(foreign, VALUES, overwrite=True)
    assert (foreign / "mine").exists()


def test_an_output_inside_a_store_is_refused(volume):
    with pytest.raises(ConfigError, match="lies inside"):
        write(volume / "0" / "in.zarr", VALUES)
    assert open_volume(volume).digest


def test_an_empty_folder_of_a_writer_killed_at_once_is_no_obstacle(volume):
    volume.with_name(".v.zarr.volrecon").mkdir()
    write(volume, VALUES + 1, overwrite=True)
    assert np.array_equal(open_volume(volume).data[:], VALUES + 1)
    assert not volume.with_name(".v.zarr.volrecon").exists()
