"""The command line: every command on tiny data, its exit codes and what it prints."""

import json
import subprocess
import sys

import numpy as np
import pytest
from balls import GRID, ball_projections, small_scan

from volrecon.formats import Hints, format_of
from volrecon.store import open_scan, open_volume
from volrecon.strict_toml import load_toml

TINY = ["--phantom", "--shape", "20,24,24", "--views", "8", "--oversample", "1"]


def test_the_whole_way(cli, tmp_path):
    said = cli("simulate", *TINY, "--photons", "1e5", "--out", "scan.zarr")
    assert "scan.zarr" in said
    cli("select", "scan.zarr", "--every", "2", "--out", "few.zarr")
    assert open_scan("few.zarr").geometry.views == 4
    cli("check", "--scan", "few.zarr", "--out", "run", "--method", "sirt")
    assert not (tmp_path / "run").exists()
    said = cli("run", "--scan", "few.zarr", "--out", "run", "--method", "sirt", "--set", "method.iterations=3",
               "--reference", truth(tmp_path))  # fmt: skip
    assert "SIRT" in said
    assert "FDK" in said
    assert "step 3/3" in said
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        ".lock", "job.toml", "log.jsonl", "metrics.json", "report.png", "volume.zarr",
    ]  # fmt: skip
    assert load_toml(tmp_path / "run" / "job.toml")["method"]["iterations"] == 3
    assert "2 checked" in cli("verify", "scan.zarr", "run/volume.zarr")
    assert "PSNR" in cli("compare", truth(tmp_path), "run/volume.zarr", "--out", "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    before = open_volume("run/volume.zarr").digest
    cli("run", "run/job.toml", code=2)
    cli("run", "run/job.toml", "--overwrite", "--quiet")
    assert open_volume("run/volume.zarr").digest == before


def truth(folder) -> str:
    return next(p.name for p in folder.glob("*truth*.zarr"))


@pytest.mark.parametrize("beam", ["cone", "fan", "parallel", "helical"])
def test_simulate_each_beam(cli, beam):
    cli("simulate", *TINY, "--geometry", beam, "--out", "s.zarr", "--truth", "t.zarr")
    scan, reference = open_scan("s.zarr"), open_volume("t.zarr")
    assert scan.geometry.beam == ("cone" if beam == "helical" else beam)
    assert scan.grid == reference.geometry
    assert scan.grid.shape == (20, 24, 24)
    assert "8 views" in cli("info", "s.zarr")


def test_simulate_a_volume_from_outside(cli, tmp_path):
    hu = np.full((10, 12, 12), -1000, np.int16)
    hu[2:8, 3:9, 3:9] = 0
    np.save(tmp_path / "ct.npy", hu)
    cli("simulate", "--volume", "ct.npy", "--out", "s.zarr", "--views", "6", code=2)
    cli("simulate", "--volume", "ct.npy", "--quantity", "hu", "--file-voxel-mm", "2", "--views", "6", "--out", "s.zarr",
        "--truth", "t.zarr", "--oversample", "1")  # fmt: skip
    values = open_volume("t.zarr").data[:]
    np.testing.assert_allclose(values, np.where(hu == 0, np.float32(0.02), 0), atol=1e-8)
    cli("simulate", "--volume", "ct.npy", "--phantom", "--out", "x.zarr", code=2)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".npz", ".npy", ".tif"])
@pytest.mark.parametrize("quantity", ["hu", "per_mm"])
def test_export_and_import_back(cli, write_ball, suffix, quantity):
    write_ball()
    cli("run", "--scan", "scan.zarr", "--out", "run", "--method", "fdk", "--quiet")
    said = cli("export", "run", f"v{suffix}", "--quantity", quantity)
    assert ("HU" if quantity == "hu" else "1/mm") in said
    stored = open_volume("run/volume.zarr")
    mu = stored.data[:]
    expected = (mu / np.float32(0.02) - 1) * 1000 if quantity == "hu" else mu
    path = stored.data.folder.parents[2] / f"v{suffix}"
    hints = Hints(voxel_zyx_mm=GRID.voxel_zyx_mm, quantity=quantity)
    written = np.asarray(format_of(path).read_volume(path, hints).slices[:])
    np.testing.assert_allclose(written, expected, rtol=1e-5, atol=1e-3 if quantity == "hu" else 1e-8)
    cli("import", path.name, "--quantity", quantity, "--file-voxel-mm", "2", "--out", "back.zarr")
    back = open_volume("back.zarr")
    np.testing.assert_allclose(back.data[:], mu, atol=1e-7)
    assert back.geometry.voxel_zyx_mm == GRID.voxel_zyx_mm


@pytest.mark.parametrize("water", ["nan", "inf", "0", "-1"])
def test_water_is_a_positive_number(cli, write_ball, water):
    write_ball()
    cli("run", "--scan", "scan.zarr", "--out", "run", "--method", "fdk", "--quiet")
    cli("export", "run", "v.npy", "--quantity", "hu")
    hu = ["--quantity", "hu", "--water-per-mm", water]
    cli("export", "run", "w.nii", *hu, code=2)
    cli("import", "v.npy", "--file-voxel-mm", "2", *hu, "--out", "v.zarr", code=2)
    cli("compare", "run/volume.zarr", "run/volume.zarr", "--water-per-mm", water, code=2)


def test_import_projections(cli, tmp_path):
    y = ball_projections(small_scan("parallel", 6))
    np.save(tmp_path / "y.npy", y.swapaxes(0, 1))
    (tmp_path / "g.toml").write_text(
        'beam = "parallel"\n[detector]\nrows = 20\ncolumns = 32\npixel_mm = 2\n'
        '[angles]\nunit = "deg"\nstep = 60\ncount = 6\n'
    )
    cli("import", "y.npy", "--geometry", "g.toml", "--out", "s.zarr", code=2)  # axes are never guessed
    said = cli("import", "y.npy", "--geometry", "g.toml", "--axes", "angle,v,u", "--photons", "1e4", "--out", "s.zarr")
    assert "6 angles in deg" in said
    scan = open_scan("s.zarr")
    assert np.array_equal(scan.projections[:], y)
    assert scan.noise.photons == 1e4
    assert "parallel" in cli("info", "g.toml")


def test_select(cli, write_ball, tmp_path):
    write_ball(views=24)
    angles = 15.0 * np.arange(24)

    def kept(*options: str) -> list[float]:
        cli("select", "scan.zarr", *options, "--out", "few.zarr", "--overwrite")
        few, whole = open_scan("few.zarr"), open_scan("scan.zarr")
        found = np.rad2deg(few.geometry.angles).round(6).tolist()
        picks = [int(np.argmin(np.abs(angles - a))) for a in found]
        assert np.array_equal(few.projections[:], whole.projections[:][:, picks])
        assert few.grid == whole.grid
        return found

    assert kept("--every", "5") == [0, 75, 150, 225, 300]
    assert kept("--arc", "0:90") == [0, 15, 30, 45, 60, 75]
    assert kept("--arc", "30:60.5") == [30, 45, 60]
    assert kept("--arc", "-30:30") == [0, 15, 330, 345]
    assert kept("--arc", "0:90", "--every", "2") == [0, 30, 60]
    assert kept("--arc", "0:360") == angles.tolist()
    (tmp_path / "views.txt").write_text("3\n1, 7\n")
    assert kept("--views", "views.txt") == [45, 15, 105]
    (tmp_path / "views.txt").write_text("3\n99\n")
    assert "99" in cli("select", "scan.zarr", "--views", "views.txt", "--out", "x.zarr", code=2)
    assert "99" in cli("select", "scan.zarr", "--views", "views.txt", "--arc", "0:90", "--out", "x.zarr", code=2)
    (tmp_path / "views.txt").write_text("three")
    cli("select", "scan.zarr", "--views", "views.txt", "--out", "x.zarr", code=3)
    for options in ([], ["--arc", "90"], ["--arc", "a:b"], ["--arc", "5:5"], ["--every", "0"]):
        cli("select", "scan.zarr", *options, "--out", "x.zarr", code=2)
    assert not (tmp_path / "x.zarr").exists()


def test_info(cli, write_ball):
    write_ball()
    cli("run", "--scan", "scan.zarr", "--out", "run", "--method", "fdk", "--quiet")
    assert "24 views" in cli("info", "scan.zarr")
    assert "(20, 16, 16)" in cli("info", "run")
    assert cli("info", "run/volume.zarr") in cli("info", "run")
    cli("info", "nowhere", code=3)
    cli("export", "run", "v.npz")
    assert "(20, 16, 16)" in cli("info", "v.npz")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "scan: missing"),
        (["run", "--scan", "scan.zarr", "--out", "r", "--method", "os.system"], 2, "choose one of"),
        (["run", "--scan", "scan.zarr", "--out", "r", "--set", "method.lamda=1"], 2, "did you mean lam"),
        (["run", "--scan", "nowhere.zarr", "--out", "r"], 3, "nowhere.zarr"),
        (["run", "--scan", "scan.zarr", "--out", "scan.zarr"], 2, "not a run directory"),
        (["run", "--scan", "scan.zarr", "--out", "r", "--method", "fbp"], 2, "Use fdk"),
        (["run", "missing.toml"], 2, "missing.toml"),
        (["simulate", "--out", "s.zarr"], 2, "--volume"),
        (["simulate", "--phantom", "--shape", "4,x", "--out", "s.zarr"], 2, "--shape"),
        (["simulate", "--phantom", "--shape", "inf", "--out", "s.zarr"], 2, "--shape"),
        (["simulate", "--phantom", "--shape", "nan", "--out", "s.zarr"], 2, "--shape"),
        (["simulate", *TINY, "--photons", "1e30", "--out", "s.zarr"], 2, "photons"),
        (["simulate", *TINY, "--source-to-object-mm", "1", "--out", "s.zarr"], 2, "source_to_object_mm"),
        (["simulate", *TINY, "--views", "0", "--out", "s.zarr"], 2, "views"),
        (["import", "thing.xyz", "--out", "x.zarr"], 2, ".xyz"),
        (["export", "scan.zarr", "x.npz"], 2, "no geometry format goes by the suffix"),
        (["verify", "scan.zarr", "nowhere.zarr"], 3, "nowhere.zarr"),
        (["compare", "scan.zarr", "scan.zarr"], 3, "scan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_codes(cli, write_ball, tmp_path, arguments, code, message):
    write_ball()
    assert message in " ".join(cli(*arguments, code=code).split())
    assert {p.name for p in tmp_path.iterdir()} <= {"scan.zarr", "r"}


def test_exit_4_lists_every_bad_chunk(cli, write_ball):
    path = write_ball()
    for k in (0, 2):
        (path / "projections" / "c" / str(k) / "0" / "0").write_bytes(b"damaged!")
    said = cli("verify", "scan.zarr", code=4)
    assert "c/0/0/0" in said
    assert "c/2/0/0" in said
    assert "2 faults" in said
    cli("run", "--scan", "scan.zarr", "--out", "run", "--method", "fdk", "--quiet", code=4)


def test_exit_5_without_memory_or_place(cli, write_ball, tmp_path, monkeypatch):
    write_ball()
    (tmp_path / "file").touch()
    cli("select", "scan.zarr", "--every", "2", "--out", "file/few.zarr", code=5)
    monkeypatch.setattr("volrecon.engine.running.solve", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert "memory" in cli("run", "--scan", "scan.zarr", "--out", "r", "--method", "fdk", code=5)


def test_exit_7_and_130(cli, write_ball, monkeypatch):
    from volrecon.errors import DivergedError

    write_ball()
    for error, code in ((DivergedError("rose"), 7), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr("volrecon.engine.running.solve", lambda *_, error=error: (_ for _ in ()).throw(error))
        cli("run", "--scan", "scan.zarr", "--out", "r", "--method", "fdk", code=code)


def test_warnings_are_one_line(cli, write_ball):
    write_ball()
    said = cli("check", "--scan", "scan.zarr", "--out", "r", "--method", "fdk", "--set", "grid.shape=[80,16,16]",
               "--set", "grid.voxel_mm=2")  # fmt: skip
    assert "volrecon: warning: 50.8% of the volume is seen by no view" in said


@pytest.mark.slow
def test_demo(cli, tmp_path):
    said = cli("demo", "--out", "demo", "--quiet")
    assert "TV" in said
    assert (tmp_path / "demo" / "demo.png").exists()


def test_as_a_process(tmp_path):
    script = [sys.executable, "-c", "from volrecon.cli import main; main()"]
    done = subprocess.run([*script, "info", "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "volrecon: nowhere does not exist\n"


def test_metrics_name_their_range(cli, write_ball, tmp_path):
    write_ball()
    cli("run", "--scan", "scan.zarr", "--out", "a", "--method", "fdk", "--quiet")
    cli("run", "--scan", "scan.zarr", "--out", "b", "--method", "fdk", "--quiet", "--reference", "a/volume.zarr")
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert metrics["data_range_per_mm"] == 0.04
