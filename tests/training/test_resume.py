"""A run goes on to the byte after any kind of end, and only with the settings it began with."""

import os
import signal
import time
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from trials import DATA, data_of, loop, place, quiet, training

from volrecon.errors import ConfigError, ResourceError
from volrecon.training import checkpoint
from volrecon.training import loop as module
from volrecon.training.prepare import prepare
from volrecon.training.run import train

STEPS = 12


def finished(spot):
    """The bytes of a run's prior."""
    return (spot.out / "prior.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(data_folder, tmp_path_factory):
    """Bytes of the prior and history of one whole run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    spot = place(data_folder, str(tmp_path_factory.mktemp("whole") / "run"))
    trained = train(training(), spot, quiet, quiet)
    torch.set_num_threads(before)
    assert trained.finished
    return finished(spot), trained.history


def test_the_same_run_twice_gives_the_same_bytes(tmp_path, data_folder, uninterrupted):
    torch.manual_seed(1234)
    spot = place(data_folder, str(tmp_path / "again"), workers=2)
    trained = train(training(), spot, quiet, quiet)
    assert (finished(spot), trained.history) == uninterrupted
    other = place(data_folder, str(tmp_path / "other"))
    train(training(seed=2), other, quiet, quiet)
    assert finished(other) != uninterrupted[0]


def test_stopped_and_resumed_again_and_again_gives_the_same_bytes(tmp_path, data_folder, uninterrupted):
    spot = place(data_folder, str(tmp_path / "run"))
    for stop in (1, 4, 7, 11):
        trained = train(training(), spot, quiet, quiet, stop_after=stop)
        assert (trained.step, trained.finished) == (stop, False)
    trained = train(training(), spot, quiet, quiet)
    assert trained.finished
    assert (finished(spot), trained.history) == uninterrupted
    # Once more: nothing is left to do, and nothing changes.
    trained = train(training(), spot, quiet, quiet)
    assert (finished(spot), trained.history) == uninterrupted
    assert train(training(), spot, quiet, quiet, stop_after=3).step == STEPS


@pytest.mark.parametrize("moment", [1, 4, 9])
def test_killed_and_run_again_gives_the_same_bytes(tmp_path, data_folder, uninterrupted, monkeypatch, moment):
    """SIGKILL between a written checkpoint and its renaming: the one before is gone on from."""
    monkeypatch.setattr(module, "CHECKPOINT_MINUTES", 0.0)
    spot = place(data_folder, str(tmp_path / "run"))
    original, writes = checkpoint._sync, []

    def die(path):
        writes.append(path)
        if sum(p.suffix == ".partial" for p in writes) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        original(path)

    monkeypatch.setattr(checkpoint, "_sync", die)
    child = get_context("fork").Process(target=train, args=(training(), spot, quiet, quiet))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    assert not (spot.out / "prior.safetensors").exists()
    steps = []
    trained = train(training(), spot, lambda line: steps.append(line.step), quiet)
    assert (finished(spot), trained.history) == uninterrupted
    assert steps[0] == (5 if moment < 6 else 10)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_a_checkpoint(tmp_path, prepared, kind):
    before = signal.getsignal(kind)
    told = loop(training(), prepared, tmp_path)
    trained = told.run(lambda line: os.kill(os.getpid(), kind))
    assert (trained.step, trained.finished) == (5, False)
    assert signal.getsignal(kind) is before
    saved = checkpoint.read(told.path, told.fingerprint)
    assert saved is not None
    assert saved.step == 5


def test_a_second_interrupt_takes_its_usual_course(tmp_path, prepared):
    told = loop(training(validation={"every": 1}), prepared, tmp_path)

    def twice(line):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        told.run(twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_time_budget_ends_and_goes_on_where_it_was(tmp_path, prepared):
    told = training(budget={"steps": None, "minutes": 1.5 / 60})
    first = loop(told, prepared, tmp_path).run(quiet, stop_after=2)
    assert not first.finished
    saved = checkpoint.read(tmp_path / "checkpoint.safetensors", {"training": {"seed": 1}, "threads": 1})
    assert saved is not None
    assert 0 < saved.minutes < 1.5 / 60
    started = time.monotonic()
    second = loop(told, prepared, tmp_path)
    trained = second.run(quiet)
    assert trained.finished
    assert trained.step > 2
    assert second.minutes >= 1.5 / 60
    assert time.monotonic() - started < 60
    assert loop(told, prepared, tmp_path).run(quiet).step == trained.step


def test_other_settings_are_refused_with_both_values(tmp_path, data_folder):
    spot = place(data_folder, str(tmp_path / "run"))
    train(training(), spot, quiet, quiet, stop_after=2)
    before = (spot.out / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"budget\.steps: was 12, is 20; .*learning_rate: was 0\.003, is 0\.001"):
        train(training(optimiser={"learning_rate": 1e-3}, budget={"steps": 20}), spot, quiet, quiet)
    torch.set_num_threads(2)
    with pytest.raises(ConfigError, match="threads: was 1, is 2"):
        train(training(), spot, quiet, quiet)
    torch.set_num_threads(1)
    heavier = {**DATA, "sources": [{**DATA["sources"][0], "weight": 5.0}, DATA["sources"][1]]}
    with pytest.raises(ConfigError, match="prepared from other files or settings"):
        train(training(heavier), spot, quiet, quiet)
    prepare(tmp_path / "heavier.zarr", data_of(**heavier), data_folder, quiet)
    with pytest.raises(ConfigError, match=r"data: was '\w{64}', is '\w{64}';.*sources\.0\.weight: was 2\.0, is 5\.0"):
        train(training(heavier), replace(spot, prepared=tmp_path / "heavier.zarr"), quiet, quiet)
    assert (spot.out / "checkpoint.safetensors").read_bytes() == before


def test_a_full_disk_ends_it_with_the_checkpoint_before(tmp_path, prepared, monkeypatch):
    loop(training(), prepared, tmp_path).run(quiet, stop_after=3)
    stands = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        loop(training(), prepared, tmp_path).run(quiet)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == stands
