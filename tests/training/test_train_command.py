"""`volrecon train`: what it prints, where it writes, how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials import DATA, write_data, write_training

from volrecon.cli import train as command

RUN = {"checkpoint.safetensors", "losses.png", "prior.safetensors"}
LONG = {"budget": {"steps": 150}, "validation": {"every": 10}}


@pytest.fixture
def where(data_folder):
    return ["--data", data_folder, "--prepared", data_folder / "prepared.zarr", "--threads", 1, "--workers", 0]


def test_it_trains_and_says_what_it_reached(cli, tmp_path, where):
    said = cli("train", write_training(tmp_path), *where, "--out", "run")
    lines = [line for line in said.splitlines() if line.startswith("step")]
    assert [line.split(",")[0] for line in lines] == ["step 5", "step 10"]
    assert re.search(r"step 10, \d+\.\d min, 83%: loss \d\.\d{4}  \[\S+\.\.\S+ \d\.\d{3}  ", said)
    assert re.search(r"run/prior\.safetensors: 0\.\d MB, sha256 [0-9a-f]{16}, after 12 steps", said.replace("\n", ""))
    assert re.search(r"held-out PSNR at sigma 0\.1: \d\d\.\d\d dB", said)
    assert {p.name for p in (tmp_path / "run").iterdir()} == RUN
    quiet = cli("train", write_training(tmp_path), *where, "--out", "quiet", "--quiet")
    assert "step 5" not in quiet
    assert "held-out PSNR" in quiet
    both = [(tmp_path / out / "prior.safetensors").read_bytes() for out in ("run", "quiet")]
    assert both[0] == both[1]


def test_data_come_from_the_environment_and_stores_lie_in_out(cli, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("VOLRECON_DATA", str(write_data(tmp_path / "data")))
    said = cli(
        "train", write_training(tmp_path, budget={"steps": 1}), "--threads", 1, "--workers", 0, "--out", "deep/run"
    )
    assert "ct.npz:hu[2]: 2 voxel sizes, held out" in said
    assert (tmp_path / "deep" / "run" / "prepared.zarr").is_dir()


def test_preview_only_draws(cli, tmp_path, where):
    said = cli("train", write_training(tmp_path), *where, "--out", "run", "--preview", "pictures/batch.png")
    assert "wrote pictures/batch.png" in said
    assert (tmp_path / "pictures" / "batch.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preview", [[], ["--preview", "batch.png"]])
def test_a_missing_data_folder_is_one_sentence(cli, tmp_path, preview):
    said = cli("train", write_training(tmp_path), "--data", "nowhere", *preview, code=2)
    assert said.strip() == "volrecon: nowhere is no folder; name that of the training data with --data or VOLRECON_DATA"
    assert not (tmp_path / "training").exists()


def test_a_missing_file_is_one_sentence(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    said = cli("train", write_training(tmp_path), "--data", "empty", "--threads", 1, code=3)
    assert re.search(r"volrecon: empty/ct\.npz is missing; .*--data or VOLRECON_DATA", said)


def test_wrong_files_and_options(cli, tmp_path, where):
    assert "cannot be read" in cli("train", "none.toml", *where, code=2)
    wrong = write_training(tmp_path, budget={"minutes": 3.0})
    assert "budget: give either steps or minutes" in cli("train", wrong, *where, code=2)
    good = write_training(tmp_path)
    assert "torch" in cli("train", good, *where, "--device", "quantum", code=2)
    assert "--threads" in cli("train", good, *where, "--threads", 0, code=2)


def test_a_damaged_checkpoint_is_one_sentence(cli, tmp_path, where):
    path = write_training(tmp_path)
    cli("train", path, *where, "--out", "run")
    with (tmp_path / "run" / "checkpoint.safetensors").open("r+b") as file:
        file.truncate(5000)
    assert "remove it to train from the start" in cli("train", path, *where, "--out", "run", code=4)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_says_so_and_the_same_command_goes_on(cli, tmp_path, where, monkeypatch, kind):
    path = write_training(tmp_path)
    cli("train", path, *where, "--out", "whole")
    with monkeypatch.context() as patch:
        patch.setattr("volrecon.cli.train._show", lambda line: os.kill(os.getpid(), kind))
        said = cli("train", path, *where, "--out", "parts", code=130)
    assert "the same command goes on" in said
    assert (tmp_path / "parts" / "checkpoint.safetensors").exists()
    said = cli("train", path, *where, "--out", "parts")
    assert "step 5," not in said
    assert "step 10," in said
    priors = [(tmp_path / out / "prior.safetensors").read_bytes() for out in ("whole", "parts")]
    assert priors[0] == priors[1]


def started(tmp_path, where, out):
    """A real process in a group of its own, with loader processes; it has come to its first lines."""
    command = [
        sys.executable,
        "-m",
        "volrecon",
        "train",
        tmp_path / "training.toml",
        *where,
        "--workers",
        2,
        "--out",
        out,
    ]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"},
    )
    while (line := process.stdout.readline()) and not line.startswith("step"):
        pass
    return process


def children(process):
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in found.read_text().split()] if found.exists() else []


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
def test_signals_to_the_whole_group_and_kills_in_real_processes(cli, tmp_path, where):
    """Ctrl-C, a batch system's SIGTERM and kill -9, with loader processes: quiet, no one left behind, same bytes."""
    path = write_training(tmp_path, **LONG)
    for kind in (signal.SIGTERM, signal.SIGINT):
        process = started(tmp_path, where, "parts")
        workers = children(process)
        os.killpg(process.pid, kind)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
        assert "the same command goes on" in out
        assert errors == ""
        assert workers
        assert not any(map(alive, workers))
    process = started(tmp_path, where, "parts")
    workers = children(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    deadline = time.monotonic() + 60  # they look for their parent every 5 s
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))
    assert "step 150," in cli("train", path, *where, "--out", "parts")
    cli("train", path, *where, "--out", "whole")
    priors = [(tmp_path / out / "prior.safetensors").read_bytes() for out in ("whole", "parts")]
    assert priors[0] == priors[1]


THREADS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import numba, numpy as np, torch
from trials import data_of, place, quiet, training
from volrecon.training.batches import Draw, batches, training_batch
from volrecon.training.prepare import prepare

@numba.njit(parallel=True)
def total(values):
    out = 0.0
    for k in numba.prange(values.size):
        out += values[k]
    return out

if __name__ == "__main__":
    torch.set_num_threads(4)
    folder = Path(sys.argv[3])
    prepared = prepare(folder / "prepared.zarr", data_of(), folder, quiet)
    draw = Draw(prepared.training, training())
    for round_ in range(6):
        assert total(np.ones(100_000)) == 100_000
        image = torch.randn(4, 8, 64, 64, requires_grad=True)
        torch.nn.functional.conv2d(image, torch.randn(8, 8, 3, 3)).sum().backward()
        (torch.randn(400, 400) @ torch.randn(400, 400)).sum().item()
        prepared.training[0].array[0:2]
        for step, batch in enumerate(batches(draw, 0, 6, 2)):
            assert torch.equal(batch.clean, training_batch(draw, step).clean)
    print("done")
"""


@pytest.mark.slow
def test_loader_processes_start_beside_threads_of_torch_numba_and_zarr(tmp_path, data_folder):
    script = tmp_path / "threads.py"
    script.write_text(THREADS, encoding="utf-8")
    here = Path(__file__).parent
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "error", script, here, here.parent, data_folder],
        capture_output=True, text=True, timeout=300, env={**environment, "NUMBA_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr


def test_the_commit_is_that_of_a_checkout_only(tmp_path, monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|volrecon .+", command._commit())
    (tmp_path / "site-packages" / "volrecon").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(command.volrecon, "__file__", str(tmp_path / "site-packages" / "volrecon" / "__init__.py"))
    assert command._commit().startswith("volrecon ")


def test_the_licence_of_every_source_is_asked_for(cli, tmp_path, where):
    path = write_training(tmp_path)
    text = (tmp_path / "data.toml").read_text(encoding="utf-8").replace('licence = "CC0"\n', "")
    (tmp_path / "data.toml").write_text(text, encoding="utf-8")
    assert "data.sources.0.licence: missing" in cli("train", path, *where, code=2)
    assert DATA["sources"][0]["licence"] == "CC0"
