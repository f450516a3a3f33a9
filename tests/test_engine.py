"""A job from its check to the run directory it leaves."""

import json
import tomllib

import numba
import numpy as np
import pytest
import torch
from balls import GRID, MU

from volrecon import engine
from volrecon.errors import ConfigError, DataError, IntegrityError, ResourceError
from volrecon.geometry import VolumeGeometry
from volrecon.jobs import Compute, Job, load_job
from volrecon.noise import Noise
from volrecon.report import write_report
from volrecon.store import open_scan, open_volume, verify

SIRT = {"recipe": "sirt", "iterations": 6}


@pytest.fixture
def job(write_ball) -> Job:
    write_ball(noise=Noise("poisson", 1e4))
    return Job(scan="scan.zarr", out="run", method=SIRT)


def run(job: Job, folder, **options):
    return engine.run(engine.check(job, folder), **options)


def test_a_run_leaves_the_volume_the_job_and_a_log(job, tmp_path):
    steps = []
    info = run(job, tmp_path, callback=steps.append)
    out = tmp_path / "run"
    assert sorted(p.name for p in out.iterdir()) == [".lock", "job.toml", "log.jsonl", "volume.zarr"]
    stored = open_volume(out / "volume.zarr")
    assert stored.geometry == GRID
    assert list(verify(out / "volume.zarr")) == []
    assert stored.data[:].max() == pytest.approx(MU, rel=0.25)
    assert [p.step for p in steps] == [1, 2, 3, 4, 5, 6]
    assert {p.steps for p in steps} == {6}
    assert steps[-1].info == info
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in log if entry["event"] != "commit"] == ["start", *["step"] * 6, "done"]
    assert [entry["residual"] for entry in log if entry["event"] == "step"] == [p.info.residual for p in steps]
    assert log[0]["threads"] >= 1


def test_the_volume_remembers_what_made_it(job, tmp_path):
    run(job, tmp_path)
    attributes = open_volume(tmp_path / "run" / "volume.zarr").attributes
    scan = open_scan(tmp_path / "scan.zarr")
    assert attributes["job"]["method"]["algorithm"] == "sirt"
    assert attributes["job"]["method"]["iterations"] == 6
    assert attributes["job"]["unit_per_mm"] == 2 * MU
    assert attributes["geometry_fingerprint"] == scan.geometry.fingerprint
    assert attributes["scan_digest"] == scan.digest
    assert set(attributes["versions"]) == {"volrecon", "numpy", "torch", "numba", "zarr"}
    # Row R5: neither paths nor names of people or machines.
    text = (tmp_path / "run" / "volume.zarr" / "zarr.json").read_text()
    assert str(tmp_path) not in text


@pytest.mark.parametrize("tier", ["ram", "zarr"])
def test_the_api_gives_what_a_run_stores(job, tmp_path, tier):
    run(job.model_copy(update={"compute": Compute(tier=tier)}), tmp_path)
    stored = open_volume(tmp_path / "run" / "volume.zarr").data[:]
    volume = engine.reconstruct(tmp_path / "scan.zarr", SIRT)
    assert volume.dtype == np.float32
    assert volume.tobytes() == stored.tobytes()
    assert engine.reconstruct(open_scan(tmp_path / "scan.zarr"), SIRT, GRID).tobytes() == stored.tobytes()


def test_no_scratch_is_left(job, tmp_path):
    run(job.model_copy(update={"method": "fdk", "compute": Compute(tier="zarr", scratch="fast")}), tmp_path)
    assert list((tmp_path / "fast").iterdir()) == []
    assert not (tmp_path / "run" / "scratch").exists()


@pytest.mark.parametrize("moved", [False, True])
def test_the_resolved_job_runs_again_to_the_same_bytes(job, tmp_path, moved, monkeypatch):
    """From wherever one stands, and in whichever folder the whole lies."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "scan.zarr").rename(work / "scan.zarr")
    (work / "job.toml").write_text(
        'scan = "scan.zarr"\nout = "runs/a"\nreference = "ref.zarr"\nmethod = {recipe = "fdk", filter = "cosine"}\n'
        '[compute]\ntier = "zarr"\nscratch = "fast"\n'
    )
    run(job.model_copy(update={"method": "fdk"}), work)
    (work / "run" / "volume.zarr").rename(work / "ref.zarr")
    run(*load_job(work / "job.toml", [], {}))
    if moved:
        work = work.rename(tmp_path / "elsewhere")
    first = work / "runs" / "a"
    assert str(tmp_path) not in (first / "job.toml").read_text()
    monkeypatch.chdir("/")
    again, base = load_job(first / "job.toml", ["out=../b"], {})
    assert engine.check(again, base).reference.geometry == GRID
    run(again, base)
    digests = [open_volume(work / "runs" / name / "volume.zarr").digest for name in "ab"]
    assert digests[0] == digests[1]
    tables = [tomllib.loads((work / "runs" / name / "job.toml").read_text()) for name in "ab"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", ["grid", "unit", "suggestion"])
def test_the_job_may_state_grid_and_unit(write_ball, tmp_path, name):
    write_ball(grid=None if name == "suggestion" else GRID)
    changes = {
        "grid": {"grid": {"shape": (10, 8, 8), "voxel_mm": 4.0, "centre_mm": (0.0, 0.0, 2.0)}},
        "unit": {"unit_per_mm": 0.05},
        "suggestion": {},
    }[name]
    checked = engine.check(Job(scan="scan.zarr", out="run", method="fdk", **changes), tmp_path)
    assert checked.unit_per_mm == (0.05 if name == "unit" else 2 * MU)
    if name == "grid":
        assert checked.grid == VolumeGeometry((10, 8, 8), (4.0, 4.0, 4.0), (0.0, 0.0, 2.0))
    if name == "suggestion":
        assert checked.grid.voxel_zyx_mm == (2.0, 2.0, 2.0)
        assert checked.coverage.unseen < 0.5


def test_the_unit_changes_nothing_but_the_weights(write_ball):
    path = write_ball()
    plain, other = (engine.reconstruct(write_ball(f"{w}.zarr", water_per_mm=w), "fdk") for w in (0.02, 0.031))
    np.testing.assert_allclose(other, plain, rtol=1e-4, atol=1e-7)
    assert path.exists()


def test_a_finished_run_needs_overwrite(job, tmp_path):
    run(job, tmp_path)
    before = open_volume(tmp_path / "run" / "volume.zarr").digest
    fewer = job.model_copy(update={"method": {**SIRT, "iterations": 2}})
    with pytest.raises(ConfigError, match="--overwrite"):
        run(fewer, tmp_path)
    assert open_volume(tmp_path / "run" / "volume.zarr").digest == before
    assert "iterations = 6" in (tmp_path / "run" / "job.toml").read_text()
    run(fewer, tmp_path, overwrite=True)
    assert open_volume(tmp_path / "run" / "volume.zarr").digest != before
    assert "iterations = 2" in (tmp_path / "run" / "job.toml").read_text()


@pytest.mark.parametrize("interrupted", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_interrupted_run_is_taken_up_again(job, tmp_path, interrupted):
    def stop(progress):
        if progress.step == 3:
            raise interrupted

    with pytest.raises(interrupted):
        run(job, tmp_path, callback=stop)
    assert not (tmp_path / "run" / "volume.zarr").exists()
    run(job, tmp_path)
    assert open_volume(tmp_path / "run" / "volume.zarr").digest


def test_an_interrupted_overwrite_keeps_the_old_volume(job, tmp_path):
    run(job, tmp_path)
    before = open_volume(tmp_path / "run" / "volume.zarr").digest

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, tmp_path, callback=stop, overwrite=True)
    assert open_volume(tmp_path / "run" / "volume.zarr").digest == before
    assert list(verify(tmp_path / "run" / "volume.zarr")) == []


@pytest.mark.parametrize("kind", ["file", "folder", "other job"])
def test_a_place_that_is_not_ours(job, tmp_path, kind):
    out = tmp_path / "run"
    if kind == "file":
        out.write_text("precious")
    else:
        out.mkdir()
        (out / "job.toml").write_text("# mine\n") if kind == "other job" else (out / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="not a run directory"):
            run(job, tmp_path, overwrite=overwrite)


def test_an_empty_folder_will_do(job, tmp_path):
    (tmp_path / "run").mkdir()
    run(job, tmp_path)


def test_nothing_there_to_write_into(job, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((ResourceError, ConfigError), match="file/run"):
        run(job.model_copy(update={"out": "file/run"}), tmp_path)


def test_a_reference_on_another_grid(job, tmp_path):
    run(job, tmp_path)
    other = {"shape": (19, 16, 16), "voxel_mm": 2.0}
    wrong = Job(scan="scan.zarr", out="b", reference="run/volume.zarr", grid=other)
    with pytest.raises(DataError, match=r"\(20, 16, 16\).*\(19, 16, 16\)"):
        engine.check(wrong, tmp_path)


@pytest.mark.parametrize("place", ["nowhere.zarr", ".", "run"])
def test_a_scan_that_is_none(job, tmp_path, place):
    (tmp_path / "run").mkdir()
    with pytest.raises((DataError, IntegrityError)):
        engine.check(job.model_copy(update={"scan": place}), tmp_path)


def test_threads_are_set_within_what_the_machine_has(job, tmp_path):
    before = numba.get_num_threads(), torch.get_num_threads()
    try:
        run(job.model_copy(update={"compute": Compute(threads=1000)}), tmp_path)
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def test_the_report(job, tmp_path):
    run(job, tmp_path)
    (tmp_path / "run" / "volume.zarr").rename(tmp_path / "ref.zarr")
    checked = engine.check(job.model_copy(update={"reference": "ref.zarr"}), tmp_path)
    scores = write_report(checked, engine.run(checked))
    assert (tmp_path / "run" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert set(scores) == {"FDK", "SIRT"}
    assert scores["SIRT"].psnr == np.inf
    assert 10 < scores["FDK"].psnr < 60
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["data_range_per_mm"] == 2 * MU
    assert set(metrics["scores"]) == {"FDK", "SIRT"}
