"""Fault matrix, places: not writable (K10), taken by others or half begun (K12); and the order of writes (K14)."""

import errno
import json
import os

import pytest
from faulty import at_boundaries, contents, job, kill_after, run

from volrecon.errors import ConfigError, ResourceError


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("call", ["mkdir", "open", "replace"])
def test_K10_a_folder_that_refuses(small, monkeypatch, number, call):
    """The run stops with the system's word for it; nothing is swallowed."""
    whole = getattr(os, call)

    def refuse(path, *rest, **where):
        if "run" in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return whole(path, *rest, **where)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(ResourceError, match=os.strerror(number)) as caught:
            run(job("fdk", "ram"), small)
    assert caught.value.exit_code == 5
    assert run(job("fdk", "ram"), small) == [1, 2, 3]


@pytest.mark.parametrize("name", ["run", "run/state", "run/log.jsonl", "run/.lock", "run/.unfinished.json.partial"])
def test_K10_something_in_the_way(small, name):
    place = small / name
    if name in ("run", "run/state"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("a file where a folder is needed")
    else:
        place.mkdir(parents=True)
    with pytest.raises((ResourceError, ConfigError), match=r"run"):
        run(job("fdk", "ram"), small)
    assert place.exists()


@pytest.mark.parametrize("name", ["a" * 300, "\ud800", "a\nb"])
def test_K10_a_name_that_no_file_system_takes(small, name):
    the_job = job("fdk", "ram").model_copy(update={"out": name})
    if name == "a\nb":
        run(the_job, small)
    else:
        with pytest.raises((ResourceError, ConfigError)):
            run(the_job, small)


def test_K12_a_finished_run_is_not_computed_again(small):
    run(job("fdk", "ram"), small)
    before = contents(small / "run")
    for options in ({}, {"restart": True}):
        with pytest.raises(ConfigError, match=r"volume\.zarr exists and is complete; pass --overwrite"):
            run(job("cgls", "ram"), small, **options)
    assert contents(small / "run") == before


@pytest.mark.parametrize("what", ["folder", "link"])
def test_K12_a_volume_that_is_not_ours_is_refused_before_computing(small, monkeypatch, what):
    out = kill_after(1, job("fdk", "ram"), small)
    if what == "folder":
        (out / "volume.zarr").mkdir()
        (out / "volume.zarr" / "thesis.tex").touch()
    else:
        (small / "real").mkdir()
        (out / "volume.zarr").symlink_to(small / "real")
    monkeypatch.setattr("volrecon.engine.running.solve", lambda *arguments: pytest.fail("it computes"))
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"not written by volrecon|symbolic link"):
            run(job("fdk", "ram"), small, overwrite=overwrite)
    assert (out / "volume.zarr").exists()


def test_K12_a_run_that_had_not_begun(small, monkeypatch):
    """Killed or refused while it was planned: the folder is ours all the same, a stranger's file in it is not."""
    with monkeypatch.context() as patched:
        patched.setattr("volrecon.engine.running.planned", lambda checked: (_ for _ in ()).throw(ResourceError("no")))
        with pytest.raises(ResourceError):
            run(job("fdk", "ram"), small)
    (small / "run" / f"..lock.{os.getpid()}").touch()  # the lock's, of a process that was killed
    (small / "run" / ".unfinished.json.partial").touch()
    (small / "run" / "state").mkdir()
    (small / "run" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not a run directory"):
        run(job("fdk", "ram"), small)
    (small / "run" / "thesis.tex").unlink()
    assert run(job("fdk", "ram"), small) == [1, 2, 3]


def test_K14_the_order_of_a_whole_run(small, monkeypatch):
    """Values are synced before what names them, `complete` comes last, and the run is over only then."""
    calls: list[str] = []
    out = small / "run"

    def note(name: str) -> None:
        done = {p.name for p in out.rglob("zarr.json") if '"complete": true' in p.read_text()}
        stands = [name for name in ("unfinished.json", "volume.zarr", "job.toml") if (out / name).exists()]
        calls.append(json.dumps([bool(done), *stands]))

    with at_boundaries(note):
        run(job("cgls", "ram"), small)
    states = list(dict.fromkeys(calls))
    assert [json.loads(state) for state in states] == [
        [False],
        [False, "unfinished.json"],
        [False, "unfinished.json", "job.toml"],
        [True, "unfinished.json", "job.toml"],
        [True, "unfinished.json", "volume.zarr", "job.toml"],
        [True, "volume.zarr", "job.toml"],
    ]
