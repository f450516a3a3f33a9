"""Two processes that share a run, as torchrun starts them: the gradient is the mean of both, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from trials import loop, place, quiet, training, write_training

from volrecon.priors.denoiser import Conditions, loss_weight
from volrecon.training.batches import Draw, training_batch
from volrecon.training.distributed import Ranks
from volrecon.training.run import train

STEPS = 4
HERE = Path(__file__).parent

RESUMED = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import torch
from trials import place, quiet, training
from volrecon.training.run import train
torch.set_num_threads(1)
spot = place(Path(sys.argv[3]), sys.argv[4])
told = training(budget={"steps": int(sys.argv[5])})
for stop in (1, 3):
    assert train(told, spot, quiet, quiet, stop_after=stop).step == stop
assert train(told, spot, quiet, quiet).finished
"""


def torchrun(*arguments, timeout=300):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=timeout, env=environment, cwd=HERE.parents[1]
    )


def tensors_of(path, prefix):
    with safe_open(path, "pt") as file:
        return {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118


def directly(prepared, folder):
    """Network and average after STEPS steps on the mean gradient of two ranks' batches, in this process alone."""
    told = training(budget={"steps": STEPS})
    one = loop(told, prepared, folder)
    draw, optimiser = Draw(prepared.training, told), told.optimiser
    for step in range(STEPS):
        for group in one.optimiser.param_groups:
            warm = min(1, (step + 1) / optimiser.warm_up)
            group["lr"] = optimiser.learning_rate * warm * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        for rank in range(2):
            batch = training_batch(draw, step, rank)
            noisy = batch.clean + batch.sigma[:, None, None, None] * batch.noise
            error = one.denoiser(noisy, batch.sigma, Conditions(batch.gap)) - batch.clean
            losses = loss_weight(batch.sigma, prepared.deviation) * error.square().mean(dim=(1, 2, 3))
            (losses.mean() / 2).backward()
        nn.utils.clip_grad_norm_(one.network.parameters(), optimiser.clip_norm)
        one.optimiser.step()
        one.optimiser.zero_grad()
        one.step += 1
        one._average()
    return one.network.state_dict(), one.average.state_dict()


@pytest.mark.slow
def test_two_processes_train_on_the_mean_gradient_and_go_on_to_the_byte(tmp_path, data_folder, prepared):
    path = write_training(tmp_path, budget={"steps": STEPS}, validation={"every": 2})
    where = ["--data", data_folder, "--prepared", tmp_path / "prepared.zarr", "--threads", "1"]
    done = torchrun("-m", "volrecon", "train", path, *where, "--out", tmp_path / "run", "--workers", "1")
    assert done.returncode == 0, done.stderr
    # One of the two speaks and writes.
    assert done.stdout.count("other.zarr: 2 voxel sizes") == 1
    assert done.stdout.count("step 2,") == done.stdout.count("step 4,") == 1
    assert done.stdout.count("prior.safetensors:") == 1
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors", "losses.png", "prior.safetensors",
    ]  # fmt: skip
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", "pt") as file:
        about = json.loads(file.metadata()["training"])
    assert (about["fingerprint"]["ranks"], about["step"]) == (2, STEPS)

    network, average = directly(prepared, tmp_path / "direct")
    for prefix, expected in (("network.", network), ("average.", average)):
        found = tensors_of(tmp_path / "run" / "checkpoint.safetensors", prefix)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=0, msg=key)
    # The mean of two gradients is not the gradient of one.
    train(training(budget={"steps": STEPS}), place(data_folder, str(tmp_path / "alone")), quiet, quiet)
    alone = tensors_of(tmp_path / "alone" / "checkpoint.safetensors", "network.")
    assert max(float((alone[key] - value).abs().max()) for key, value in network.items()) > 1e-4

    again = write_training(tmp_path / "again", budget={"steps": STEPS})
    done = torchrun("-m", "volrecon", "train", again, *where, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    script = tmp_path / "resumed.py"
    script.write_text(RESUMED, encoding="utf-8")
    done = torchrun(script, HERE, HERE.parent, data_folder, tmp_path / "parts", STEPS)
    assert done.returncode == 0, done.stderr
    for prefix in ("network.", "average.", "optimiser.", "losses."):
        whole = tensors_of(tmp_path / "whole" / "checkpoint.safetensors", prefix)
        parts = tensors_of(tmp_path / "parts" / "checkpoint.safetensors", prefix)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.slow
def test_an_error_of_one_process_ends_both(tmp_path, data_folder):
    path = write_training(tmp_path)
    done = torchrun("-m", "volrecon", "train", path, "--data", tmp_path, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert "ct.npz is missing" in done.stderr


def test_one_process_is_a_run_of_its_own():
    ranks = Ranks()
    network = nn.Linear(2, 2)
    assert ranks.wrapped(network) is network
    assert (ranks.any(True), ranks.any(False), ranks.first(2.5)) == (True, False, 2.5)
    ranks.wait()
