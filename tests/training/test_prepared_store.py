"""The store of prepared volumes is whole, made once, and of the files and settings it was asked for."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
from trials import DATA, data_of, quiet, write_data

from volrecon.errors import ConfigError, DataError, ResourceError, VolreconError
from volrecon.resample import resampled
from volrecon.training import prepare as module
from volrecon.training.prepare import prepare


def stamps(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_second_call_reuses_the_store(tmp_path):
    write_data(tmp_path)
    said = []
    first = prepare(tmp_path / "p.zarr", data_of(), tmp_path, said.append)
    before = stamps(tmp_path / "p.zarr")
    assert said == [
        "ct.npz:hu[0]: 2 voxel sizes",
        "ct.npz:hu[1]: 2 voxel sizes",
        "ct.npz:hu[2]: 2 voxel sizes, held out",
        "other.zarr: 2 voxel sizes",
    ]
    second = prepare(tmp_path / "p.zarr", data_of(), tmp_path, said.append)
    assert len(said) == 4
    assert stamps(tmp_path / "p.zarr") == before
    assert (second.mean, second.deviation, second.soft_tissue) == (first.mean, first.deviation, first.soft_tissue)


@pytest.mark.parametrize("change", ["voxel_mm", "clip", "weight", "larger file", "larger store"])
def test_other_settings_or_files_are_refused(tmp_path, change):
    write_data(tmp_path)
    prepare(tmp_path / "p.zarr", data_of(), tmp_path, quiet)
    data = data_of()
    if change == "voxel_mm":
        data = data_of(voxel_mm=[2.0])
    elif change == "clip":
        data = data_of(clip=1.5)
    elif change == "weight":
        data = data_of(sources=[{**DATA["sources"][0], "weight": 3.0}, DATA["sources"][1]])
    elif change == "larger file":
        (tmp_path / "ct.npz").write_bytes((tmp_path / "ct.npz").read_bytes() + b"\0")
    else:
        (tmp_path / "other.zarr" / "0" / "more").write_bytes(b"\0")
    before = stamps(tmp_path / "p.zarr")
    with pytest.raises(ConfigError, match=r"p\.zarr was prepared from other files or settings; remove it.*--prepared"):
        prepare(tmp_path / "p.zarr", data, tmp_path, quiet)
    assert stamps(tmp_path / "p.zarr") == before


def test_a_missing_file_names_the_ways_to_say_where_it_is(tmp_path):
    write_data(tmp_path)
    (tmp_path / "ct.npz").unlink()
    with pytest.raises(DataError, match=r"ct\.npz is missing.*--data or VOLRECON_DATA"):
        prepare(tmp_path / "p.zarr", data_of(), tmp_path, quiet)
    assert not (tmp_path / "p.zarr").exists()


def test_an_unknown_key_is_named(tmp_path):
    write_data(tmp_path)
    data = data_of(sources=[{**DATA["sources"][0], "held_out": ["hu[3]"]}])
    with pytest.raises(VolreconError, match=r"no volume hu\[3\]"):
        prepare(tmp_path / "p.zarr", data, tmp_path, quiet)
    assert not (tmp_path / "p.zarr").exists()


def test_an_error_half_way_leaves_nothing(tmp_path, monkeypatch):
    write_data(tmp_path)
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return resampled(*arguments)

    monkeypatch.setattr(module, "resampled", failing)
    with pytest.raises(ResourceError, match="No space left"):
        prepare(tmp_path / "p.zarr", data_of(), tmp_path, quiet)
    assert [p.name for p in tmp_path.iterdir() if "p.zarr" in p.name] == []


def test_killed_half_way_it_starts_over_the_next_time(tmp_path, prepared):
    write_data(tmp_path)

    def die(text):
        if "hu[1]" in text:
            os.kill(os.getpid(), signal.SIGKILL)

    child = get_context("fork").Process(target=prepare, args=(tmp_path / "p.zarr", data_of(), tmp_path, die))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir() if "p.zarr" in p.name) == [".p.zarr.volrecon"]
    again = prepare(tmp_path / "p.zarr", data_of(), tmp_path, quiet)
    assert again.mean == prepared.mean
    assert [p.name for p in tmp_path.iterdir() if "p.zarr" in p.name] == ["p.zarr"]


def test_something_else_in_its_place_is_left_alone(tmp_path):
    write_data(tmp_path)
    before = stamps(tmp_path / "other.zarr")
    with pytest.raises(DataError, match="'training data' is needed"):
        prepare(tmp_path / "other.zarr", data_of(), tmp_path, quiet)
    assert stamps(tmp_path / "other.zarr") == before
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError):
        prepare(tmp_path / "file", data_of(), tmp_path, quiet)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
