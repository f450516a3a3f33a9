"""Fault matrix, kills (K1-K5, K13): whatever a killed run leaves, the same command goes on to the same bytes.

`pictures` are what SIGKILL leaves: nothing is unwound. `kill_at` raises instead, so that all is unwound. Real kills of
real processes are in test_killed_processes.py. Power loss cannot be tested.
"""

import os
import shutil
from pathlib import Path

import pytest
from faulty import (
    LEFT,
    STEPS,
    UNWOUND,
    at_boundaries,
    cases,
    committed,
    contents,
    job,
    kill_after,
    kill_at,
    pictures,
    run,
)

from volrecon.errors import ConfigError, IntegrityError, StorageWarning
from volrecon.store import open_volume, verify

SOME = {"fdk": 4, "cgls": 9, "tv": 15}
"""Of so many pictures the fast tests try one."""


def go_on(the_job, folder: Path, expected: dict[str, bytes]) -> None:
    """The same command again: no committed step is done again, and nothing but the same volume is left."""
    out = folder / "run"
    before, finished = committed(out), is_finished(out)
    if finished:
        with pytest.raises(ConfigError, match="complete; pass --overwrite"):
            run(the_job, folder)
    else:
        steps = run(the_job, folder)
        assert steps == list(range(before + 1, before + 1 + len(steps)))
    assert contents(out / "volume.zarr") == expected
    if not finished:
        assert sorted(p.name for p in out.iterdir()) == LEFT


def is_finished(out: Path) -> bool:
    """Killed when nothing but the state was left to be removed."""
    return (out / "volume.zarr").exists() and not (out / "unfinished.json").exists()


def resume_all(taken: list[Path], the_job, folder: Path, expected: dict[str, bytes]) -> None:
    for picture in taken:
        put_in_place(picture, folder)
        go_on(the_job, folder, expected)


def put_in_place(picture: Path, folder: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    picture.rename(folder / "run")


@cases
def test_K1_killed_at_some_boundaries(small, undisturbed, method, tier):
    the_job = job(method, tier)
    expected, steps = undisturbed(the_job)
    assert steps == list(range(1, STEPS[method] + 1))
    taken = pictures(the_job, small)
    assert len(taken) > 30
    assert {committed(picture) for picture in taken} == {0, *steps}
    resume_all(taken[:: SOME[method]], the_job, small, expected)


@pytest.mark.slow
@cases
def test_K1_killed_at_every_boundary(small, undisturbed, method, tier):
    the_job = job(method, tier)
    expected, _ = undisturbed(the_job)
    resume_all(pictures(the_job, small), the_job, small, expected)


@pytest.mark.parametrize(("method", "tier"), [("fdk", "zarr"), ("cgls", "ram")])
def test_K1_unwound_at_some_boundaries(small, undisturbed, method, tier):
    unwind(small, undisturbed, job(method, tier), 29)


@pytest.mark.slow
@cases
def test_K1_unwound_at_many_boundaries(small, undisturbed, method, tier):
    unwind(small, undisturbed, job(method, tier), {"fdk": 2, "cgls": 5, "tv": 11}[method])


def unwind(small, undisturbed, the_job, stride: int) -> None:
    expected, _ = undisturbed(the_job)
    count = 1
    while kill_at(count, the_job, small):
        go_on(the_job, small, expected)
        shutil.rmtree(small / "run")
        count += stride
    assert count > 80


@pytest.mark.parametrize("tier", ["ram", "zarr"])
def test_K2_values_without_a_manifest_are_never_trusted(small, undisturbed, tier):
    """Slabs beyond the last commit: whole, torn or of another run, they are done again."""
    the_job = job("fdk", tier)
    expected, _ = undisturbed(the_job)
    taken = [p for p in pictures(the_job, small) if committed(p) == 1]
    assert len(taken) > 3
    last = taken[-1]
    beyond = [p for p in last.glob("state/*.zarr/data/c.*") if p.name in ("c.1.0.0", "c.2.0.0")]
    assert beyond
    for path in beyond:
        path.write_bytes(os.urandom(100))
    resume_all([last], the_job, small, expected)


def test_K3_a_torn_log_line(small, undisturbed):
    """The log is for people; nothing is read from it. Manifests, which are, are cut in test_generations.py."""
    the_job = job("cgls", "ram")
    expected, _ = undisturbed(the_job)
    log = kill_after(2, the_job, small) / "log.jsonl"
    os.truncate(log, log.stat().st_size - 5)
    go_on(the_job, small, expected)


def test_K4_left_overs_are_removed_and_never_read(small, undisturbed):
    the_job = job("cgls", "zarr")
    expected, _ = undisturbed(the_job)
    out = kill_after(1, the_job, small)
    (out / "state" / ".generation-000009.json.partial").write_text('{"step": 9}')
    (out / "state" / "999999.zarr" / "data").mkdir(parents=True)
    (out / ".unfinished.json.partial").write_text("{")
    (out / ".volume.zarr.volrecon").mkdir()
    go_on(the_job, small, expected)


@pytest.mark.parametrize("damage", ["manifest", "chunk"])
def test_K5_a_damaged_newest_commit_in_ram(small, undisturbed, damage):
    """The one before is taken, and says so."""
    the_job = job("cgls", "ram")
    expected, _ = undisturbed(the_job)
    spoil(kill_after(2, the_job, small), damage, 2)
    with pytest.warns(StorageWarning, match="damaged.*going on from step 1"):
        steps = run(the_job, small)
    assert steps == [2, 3]
    assert contents(small / "run" / "volume.zarr") == expected


@pytest.mark.parametrize("damage", ["manifest", "chunk"])
def test_K5_a_damaged_only_commit(small, undisturbed, damage):
    """An error, and no restart by itself."""
    the_job = job("cgls", "zarr")
    expected, _ = undisturbed(the_job)
    spoil(kill_after(2, the_job, small), damage, 2)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"damaged.*--restart") as caught:
            run(the_job, small)
        assert caught.value.exit_code == 4
    assert run(the_job, small, restart=True) == [1, 2, 3]
    assert contents(small / "run" / "volume.zarr") == expected


def spoil(out: Path, damage: str, step: int) -> None:
    """Flip a bit of a commit."""
    manifest = out / "state" / f"generation-{step:06d}.json"
    newest = max(p.name for p in (out / "state").glob("*.zarr") if p.name in manifest.read_text())
    path = manifest if damage == "manifest" else out / "state" / newest / "data" / "c.1.0.0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["unfinished.json", "state"])
def test_K5_what_is_noted_of_the_run_is_gone(small, name):
    the_job = job("fdk", "ram")
    out = kill_after(1, the_job, small)
    if name == "state":
        (out / "state").rename(small / "elsewhere")
    else:
        os.truncate(out / name, 40)
    with pytest.raises(IntegrityError, match="--restart"):
        run(the_job, small)
    assert run(the_job, small, restart=True) == [1, 2, 3]


def test_K13_an_overwrite_killed_at_every_boundary(small, undisturbed):
    """The old volume is whole, or the new one is; a run of another method that was killed on its way out counts not."""
    old, new = job("cgls", "zarr"), job("fdk", "zarr")
    run(old, small)
    before = contents(small / "run" / "volume.zarr")
    shutil.copytree(small / "run", small / "first")
    expected, _ = undisturbed(new)
    taken = pictures(new, small, overwrite=True)
    assert len(taken) > 30
    for picture in taken:
        whole = picture / "volume.zarr"
        if not whole.exists():  # in the middle of the swap
            whole = picture / ".volume.zarr.volrecon" / "old"
        assert contents(whole) in (before, expected)
    for picture in taken[::6]:
        put_in_place(picture, small)
        run(new, small, overwrite=True)
        assert contents(small / "run" / "volume.zarr") == expected
        assert sorted(p.name for p in (small / "run").iterdir()) == LEFT


def test_K13_the_state_of_a_finished_run_is_not_taken_for_another(small, undisturbed):
    """Killed when its volume was there and its state not yet gone; then another job with --overwrite."""
    the_job, other = job("cgls", "ram"), job("tv", "ram")
    picture = next(p for p in pictures(the_job, small) if is_finished(p) and committed(p))
    expected, _ = undisturbed(other)
    put_in_place(picture, small)
    assert run(other, small, overwrite=True) == [1, 2]
    assert contents(small / "run" / "volume.zarr") == expected
    assert sorted(p.name for p in (small / "run").iterdir()) == LEFT


def test_the_volume_is_whole_as_soon_as_it_is_there(small):
    the_job = job("cgls", "ram")
    seen = []

    def look(name: str) -> None:
        if (small / "run" / "volume.zarr").exists():
            seen.append(open_volume(small / "run" / "volume.zarr").digest)
            assert list(verify(small / "run" / "volume.zarr")) == []

    with at_boundaries(look, UNWOUND):
        run(the_job, small)
    assert len(set(seen)) == 1
