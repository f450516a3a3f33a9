"""Generations: what is committed comes back whole, and nothing else does."""

import errno
import json
import os
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from volrecon.errors import IntegrityError, ResourceError, StorageWarning
from volrecon.store import Generation, Generations, ZarrSpace
from volrecon.store import generations as module
from volrecon.volume import RamSpace, Volume

SHAPE = (20, 3, 2)
"""Two chunks, the second of four slices."""


class Disk:
    """A folder of generations as one process after the other opens it."""

    def __init__(self, folder: Path, tier: str, keep: int = 2) -> None:
        self.folder, self.tier, self.keep = folder, tier, keep
        self.reopen()

    def reopen(self) -> None:
        self.scratch = ZarrSpace(self.folder, 1)
        self.space = self.scratch if self.tier == "zarr" else RamSpace(1)
        self.generations = Generations(self.scratch, self.keep)

    def full(self, value: float, shape=SHAPE) -> Volume:
        return self.space.full(shape, value)

    def commit(self, step: int, volumes: dict[str, Volume], filled: dict[str, int] | None = None) -> None:
        filled = {name: volume.shape[0] for name, volume in volumes.items()} | (filled or {})
        self.generations.commit(Generation(step, volumes, filled, {"gamma": 0.1 * step}, {"note": step}))

    def latest(self) -> Generation | None:
        """As the next process finds it."""
        self.reopen()
        return self.generations.latest(self.space)

    def arrays(self) -> list[Path]:
        return sorted(self.folder.glob("*.zarr"))

    def manifests(self) -> list[str]:
        return sorted(p.name for p in self.folder.glob("generation-*.json"))


@pytest.fixture(params=["ram", "zarr"])
def disk(request, tmp_path) -> Disk:
    return Disk(tmp_path / "state", request.param)


@pytest.fixture
def ram(tmp_path) -> Disk:
    return Disk(tmp_path / "state", "ram")


def values(volume: Volume, stop: int | None = None) -> np.ndarray:
    return volume.read(0, stop or volume.shape[0]).numpy().copy()


def test_it_comes_back_as_it_was(disk):
    x = disk.space.empty(SHAPE)
    x.write(0, torch.arange(120.0).reshape(SHAPE) / 7)
    expected, y = values(x), disk.full(2.5, (3, 5))
    disk.commit(7, {"x": x, "y": y})
    found = disk.latest()
    assert (found.step, dict(found.scalars), found.about) == (7, {"gamma": 0.1 * 7}, {"note": 7})
    assert dict(found.filled) == {"x": 20, "y": 3}
    assert values(found.volumes["x"]).tobytes() == expected.tobytes()
    assert values(found.volumes["y"]).tobytes() == values(y).tobytes()
    assert [type(v) is type(x) for v in found.volumes.values()] == [True, True]


def test_nothing_was_committed(disk):
    assert disk.latest() is None


def test_K4_what_belongs_to_no_generation_goes(disk):
    disk.commit(1, {"x": disk.full(1.0)})
    own = {p.name for p in disk.folder.iterdir()}
    (disk.folder / "000099.zarr" / "data").mkdir(parents=True)
    (disk.folder / ".generation-000009.json.partial").write_text("{")
    (disk.folder / "notes.txt").write_text("somebody else's")
    found = disk.latest()
    assert found.step == 1
    assert {p.name for p in disk.folder.iterdir()} == {*own, "notes.txt"}
    (disk.folder / "000099.zarr").mkdir()
    for manifest in disk.manifests():
        (disk.folder / manifest).unlink()
    assert disk.latest() is None
    assert [p.name for p in disk.folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("keep", [1, 2])
def test_older_ones_go(disk, keep):
    disk.generations.keep = keep
    for step in range(1, 5):
        disk.commit(step, {"x": disk.full(step)})
        kept = min(step, keep)
        assert len(disk.manifests()) == kept
        assert len(disk.arrays()) == kept
    assert values(disk.latest().volumes["x"]).max() == 4


def test_a_volume_of_several_generations_is_stored_once(disk):
    constant = disk.full(3.0)
    for step in range(1, 4):
        disk.commit(step, {"x": disk.full(step), "C": constant})
    assert len(disk.arrays()) == 3
    assert values(disk.latest().volumes["C"]).min() == 3
    disk.commit(9, {"x": disk.full(9.0)})
    assert len(disk.arrays()) == 3
    disk.commit(10, {"x": disk.full(9.0)})
    assert len(disk.arrays()) == 2


def test_a_volume_that_is_being_filled(disk, monkeypatch):
    """Its new slices are added to the same array; a reader takes only those that count."""
    x = disk.space.empty(SHAPE)
    x.write(0, torch.full((16, 3, 2), 1.0))
    disk.commit(1, {"x": x}, {"x": 16})
    written = []
    write = module.ZarrVolume.write
    monkeypatch.setattr(module.ZarrVolume, "write", lambda v, start, b: (written.append(start), write(v, start, b)))
    x.write(16, torch.full((4, 3, 2), 2.0))
    disk.commit(2, {"x": x})
    assert written == [16]
    assert len(disk.arrays()) == 1
    (disk.folder / "generation-000002.json").unlink()
    (chunk,) = disk.folder.glob("*.zarr/data/c.1.0.0")
    chunk.write_bytes(b"torn")
    found = disk.latest()
    assert dict(found.filled) == {"x": 16}
    found.volumes["x"].write(16, torch.full((4, 3, 2), 5.0))  # over what the killed process left
    disk.commit(2, {"x": found.volumes["x"]})
    assert len(disk.arrays()) == 1
    assert values(disk.latest().volumes["x"]).sum() == 16 * 6 + 4 * 6 * 5


@pytest.mark.parametrize("damage", ["manifest", "cut manifest", "chunk", "no chunk", "no array"])
def test_K5_a_damaged_newest_one(ram, damage):
    for step in (1, 2):
        ram.commit(step, {"x": ram.full(step)})
    older, newer = ram.arrays()
    manifest = ram.folder / "generation-000002.json"
    if damage == "manifest":
        manifest.write_text(manifest.read_text().replace('"step": 2', '"step": 3'))
    elif damage == "cut manifest":
        os.truncate(manifest, 100)
    elif damage == "chunk":
        data = bytearray((newer / "data" / "c.1.0.0").read_bytes())
        data[5] ^= 64
        (newer / "data" / "c.1.0.0").write_bytes(data)
    elif damage == "no chunk":
        (newer / "data" / "c.0.0.0").unlink()
    else:
        newer.rename(ram.folder / "gone")
    with pytest.warns(StorageWarning, match=r"going on from step 1"):
        found = ram.latest()
    assert found.step == 1
    assert values(found.volumes["x"]).max() == 1
    assert ram.arrays() == [older]
    assert ram.manifests() == ["generation-000001.json"]


def test_K5_all_damaged(disk):
    for step in (1, 2):
        disk.commit(step, {"x": disk.full(step)})
    for chunk in disk.folder.glob("*.zarr/data/c.0.0.0"):
        os.truncate(chunk, 50)
    before = sorted(disk.folder.rglob("*"))
    for _ in range(2):  # nothing is removed: it may still be mended by hand
        with pytest.raises(IntegrityError, match=r"step 2 is damaged.*step 1 is damaged.*--restart") as caught:
            disk.latest()
        assert caught.value.exit_code == 4
        assert sorted(disk.folder.rglob("*")) == before


def test_another_version(disk, monkeypatch):
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    disk.commit(1, {"x": disk.full(1.0)})
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match="of format 2; this volrecon reads 1"):
        disk.latest()


def test_the_newest_is_that_of_most_steps(disk):
    """By number, not by name."""
    for step in (999_998, 999_999, 1_000_000):
        disk.commit(step, {"x": disk.full(step)})
    assert disk.latest().step == 1_000_000


@pytest.mark.parametrize("step", [1, 2])
def test_an_error_after_the_manifest_is_there(disk, monkeypatch, step):
    """It names volumes: they must stay although the run that made them unwinds."""
    if step == 2:
        disk.commit(1, {"x": disk.full(1.0)})
    fsync = os.fsync

    def broken(descriptor):
        if (disk.folder / f"generation-00000{step}.json").exists():
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(ResourceError, match="Input/output error"):
        disk.commit(step, {"x": disk.full(step)})
    disk.reopen()
    with warnings.catch_warnings(action="error"):
        found = disk.latest()
    assert found.step == step
    assert values(found.volumes["x"]).min() == step


def test_what_a_run_is_done_with_does_not_stay_in_memory(ram):
    """A commit must not hold its volumes until the next one: the plan counts them once."""
    first, second = ram.full(1.0), ram.full(2.0)
    ram.commit(1, {"x": first})
    alive = weakref.ref(first.tensor)
    del first
    assert alive() is None
    ram.commit(2, {"x": second})
    assert values(ram.latest().volumes["x"]).max() == 2


def test_released_volumes_stay_as_long_as_a_generation_needs_them(disk):
    disk.generations.keep = 1
    x = disk.full(1.0)
    disk.commit(1, {"x": x})
    x.release()
    del x
    disk.scratch.later(int).result()
    assert len(disk.arrays()) == 1
    disk.commit(2, {"x": disk.full(2.0)})
    assert len(disk.arrays()) == 1
    assert values(disk.latest().volumes["x"]).max() == 2


@pytest.mark.parametrize("call", ["writev", "fsync", "replace"])
def test_K8_a_full_disk(disk, monkeypatch, call):
    def full(*arguments, **where):
        raise OSError(errno.ENOSPC, "No space left on device")

    disk.commit(1, {"x": disk.full(1.0)})
    x = disk.full(2.0) if disk.tier == "ram" or call != "writev" else None
    disk.scratch.flush()
    monkeypatch.setattr(os, call, full)
    with pytest.raises(ResourceError, match=r"state/.*No space left on device; \d+ bytes were needed, \d+ are free"):
        disk.commit(2, {"x": x or disk.full(2.0)})
    monkeypatch.undo()
    del x
    found = disk.latest()
    assert found.step == 1
    assert values(found.volumes["x"]).max() == 1
    assert disk.arrays() == [disk.folder / json.loads(manifest(disk, 1))["volumes"]["x"]["array"]]


def manifest(disk: Disk, step: int) -> str:
    return (disk.folder / f"generation-{step:06d}.json").read_text()


def test_K14_values_then_manifest_then_older_ones(disk, monkeypatch):
    disk.generations.keep = 1
    disk.commit(1, {"x": disk.full(1.0)})
    x, calls = disk.full(2.0), []

    def noted(name, call):
        def wrapped(what, *rest, **where):
            path = Path(f"/proc/self/fd/{what}").readlink() if name == "fsync" else Path(what)
            calls.append((name, path.name))
            return call(what, *rest, **where)

        return wrapped

    for name in ("fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    disk.commit(2, {"x": x})
    names = [f"{name} {what}" for name, what in calls if "zarr" not in what]
    begin = names.index("fsync .generation-000002.json.partial")
    assert sorted(names[: begin - 2]) == ["fsync c.0.0.0", "fsync c.1.0.0"]
    assert names[begin - 2 : begin] == ["fsync data", "fsync state"]
    assert names[begin + 1 : begin + 4] == [
        "replace .generation-000002.json.partial",
        "fsync state",
        "unlink generation-000001.json",
    ]


def test_clear(disk):
    for step in (1, 2):
        disk.commit(step, {"x": disk.full(step)})
    disk.generations.clear()
    assert list(disk.folder.iterdir()) == []
    assert disk.latest() is None
