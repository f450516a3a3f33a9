"""A checkpoint is whole or refused; what stood before stands until the next one is complete."""

import json
import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from trials import FINGERPRINT, loop, place, quiet, training

from volrecon.errors import ConfigError, IntegrityError, ResourceError, VolreconError
from volrecon.training import checkpoint
from volrecon.training.checkpoint import Snapshot
from volrecon.training.run import train


def some(step=3):
    tensors = {"network.a": torch.arange(12.0).reshape(3, 4) + step, "average.a": torch.full((3, 4), float(step))}
    return Snapshot(tensors, step, 0.25, [{"step": 1, "loss": 0.1, "by_band": {"0..0.02": 1 / 3}, "psnr": None}])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def same(a: Snapshot, b: Snapshot) -> bool:
    equal = a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
    return equal and (a.step, a.minutes, a.history) == (b.step, b.minutes, b.history)


def test_what_is_written_is_read(path):
    assert checkpoint.read(path, FINGERPRINT) is None
    checkpoint.write(path, some(), FINGERPRINT)
    assert same(checkpoint.read(path, FINGERPRINT), some())
    checkpoint.write(path, some(9), FINGERPRINT)
    assert same(checkpoint.read(path, FINGERPRINT), some(9))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_loop_goes_on_exactly_where_it_was(tmp_path, prepared):
    """Weights and moments keep their memory layout: the fused optimiser walks them side by side."""
    first = loop(training(), prepared, tmp_path)
    first.run(quiet, stop_after=3)
    second = loop(training(), prepared, tmp_path)
    second._resume()
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
        for key, value in first.optimiser.state[a].items():
            assert torch.equal(value, second.optimiser.state[b][key])
            assert value.stride() == second.optimiser.state[b][key].stride()
    for a, b in zip(first.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.meter.sums, second.meter.sums)
    assert torch.equal(first.meter.counts, second.meter.counts)
    assert second.meter.counts.sum() > 0
    assert (second.step, second.history) == (3, first.history)


def test_a_truncated_one_is_refused(path):
    checkpoint.write(path, some(), FINGERPRINT)
    whole = path.read_bytes()
    for size in sorted({0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}):
        path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match=r"checkpoint\.safetensors.*remove it to train from the start"):
            checkpoint.read(path, FINGERPRINT)
    path.write_bytes(whole + b"\0")
    with pytest.raises(IntegrityError):
        checkpoint.read(path, FINGERPRINT)


def test_flipped_bits_are_refused_wherever_they_are(path):
    checkpoint.write(path, some(), FINGERPRINT)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, 8, 3), *range(8, header, max(1, header // 40)), *range(header, len(whole), 5)]
    assert len(places) > 60
    for place_ in places:
        damaged = bytearray(whole)
        damaged[place_] ^= 1 << place_ % 8
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            checkpoint.read(path, FINGERPRINT)


@pytest.mark.parametrize("what", ["text", "folder", "other tensors", "no step", "no seal"])
def test_a_wrong_file_is_refused(path, what):
    if what == "text":
        path.write_text("not a checkpoint", encoding="utf-8")
    elif what == "folder":
        path.mkdir()
    elif what == "other tensors":
        save_file({"a": torch.zeros(3)}, path)
    elif what == "no step":
        save_file({"a": torch.zeros(3)}, path, {"training": "{}"})
    else:
        save_file({"a": torch.zeros(3)}, path, {"training": json.dumps({"step": 1}), "sha256": "0"})
    with pytest.raises(IntegrityError):
        checkpoint.read(path, FINGERPRINT)


def test_a_prior_in_its_place_is_refused(tmp_path, data_folder):
    spot = place(data_folder, str(tmp_path / "run"))
    train(training(budget={"steps": 2}), spot, quiet, quiet)
    shutil.copy(spot.out / "prior.safetensors", spot.out / "checkpoint.safetensors")
    with pytest.raises(IntegrityError):
        train(training(budget={"steps": 2}), spot, quiet, quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"seed": 2}}, "training.seed: was 1, is 2"),
        ({"threads": 2}, "threads: was 1, is 2"),
        ({"more": "x"}, "more: was None, is 'x'"),
        ({"training": {"seed": 1, "data": {"sources": [{"file": "b"}]}}}, r"data.sources.0.file: was 'a', is 'b'"),
    ],
)
def test_another_training_is_refused_with_both_values(path, changes, message):
    written = {**FINGERPRINT, "training": {"seed": 1, "data": {"sources": [{"file": "a"}]}}}
    checkpoint.write(path, some(), written)
    assert checkpoint.read(path, written) is not None
    with pytest.raises(ConfigError, match=message) as caught:
        checkpoint.read(path, {**written, **changes})
    assert "choose another --out" in str(caught.value)


FULL = "No space left on device (os error 28)"


@pytest.mark.parametrize("error", [OSError(28, FULL), safetensors.SafetensorError(FULL)])
def test_a_full_disk_leaves_the_one_before(path, monkeypatch, error):
    checkpoint.write(path, some(), FINGERPRINT)

    def full(tensors, target, metadata):
        Path(target).write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ResourceError, match=r"No space left.*The checkpoint before it stands"):
        checkpoint.write(path, some(9), FINGERPRINT)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert same(checkpoint.read(path, FINGERPRINT), some())


def test_a_folder_that_is_gone(path):
    with pytest.raises(VolreconError, match="cannot be written"):
        checkpoint.write(path.parent / "gone" / path.name, some(), FINGERPRINT)


def test_a_crash_before_the_rename_leaves_the_one_before(path):
    checkpoint.write(path, some(), FINGERPRINT)

    def die(partial):
        os.kill(os.getpid(), signal.SIGKILL)

    def killed():
        checkpoint._sync = die
        checkpoint.write(path, some(9), FINGERPRINT)

    child = get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 2
    assert same(checkpoint.read(path, FINGERPRINT), some())
    checkpoint.write(path, some(9), FINGERPRINT)
    assert same(checkpoint.read(path, FINGERPRINT), some(9))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
