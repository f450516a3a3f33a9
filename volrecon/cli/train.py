"""train: priors from CT volumes."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import volrecon
from volrecon.cli.app import app, say
from volrecon.errors import ConfigError
from volrecon.training.config import load_training
from volrecon.training.loop import Line
from volrecon.training.run import Place, preview, train

DATA_FOLDER = Path("../shared/data")


@app.command("train")
def train_(
    training: Annotated[Path, typer.Argument(help="A training.toml; configs/training/ has examples.")],
    out: Annotated[Path, typer.Option(help="The run directory; an interrupted run there goes on.")] = Path("training"),
    data: Annotated[
        Path, typer.Option(envvar="VOLRECON_DATA", help="Folder that the sources' files are in.")
    ] = DATA_FOLDER,
    prepared: Annotated[
        Path | None, typer.Option(help="Store of prepared volumes, to share between runs; default in --out.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default as many as cores.", min=1)] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.", min=0)] = 1,
    preview_png: Annotated[Path | None, typer.Option("--preview", help="Only draw a batch into this PNG.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No lines while training.")] = False,
) -> None:
    """Train a prior. Killed or stopped, the same command goes on; under torchrun, all ranks share the work."""
    import torch

    loaded = load_training(training)
    if threads is not None:
        torch.set_num_threads(threads)
    if not data.is_dir():
        raise ConfigError(f"{data} is no folder; name that of the training data with --data or VOLRECON_DATA")
    origin = (f"volrecon train {training.name}", _commit())
    place = Place(out, data, prepared or out / "prepared.zarr", device, workers, origin)
    if preview_png is not None:
        preview(loaded, place, preview_png, say)
        say(f"wrote {preview_png}")
        return
    first = int(os.environ.get("RANK", "0")) == 0
    trained = train(loaded, place, _silent if quiet or not first else _show, say if first else _mute)
    if first:
        for sigma, psnr in trained.psnr.items():
            say(f"held-out PSNR at sigma {sigma}: {psnr:.2f} dB (data range 1 linear unit)")
    if not trained.finished:
        if first:
            say("stopped before the end of the budget; the same command goes on")
        sys.exit(130)


def _show(line: Line) -> None:
    bands = "  ".join(f"{band} {loss:.3f}" for band, loss in line.by_band.items())
    say(f"step {line.step}, {line.minutes:.1f} min, {line.done:.0%}: loss {line.loss:.4f}  [{bands}]")
    if line.psnr:
        say("  held-out PSNR: " + "  ".join(f"{sigma}: {psnr:.2f}" for sigma, psnr in line.psnr.items()))


def _silent(line: Line) -> None:
    """Nothing is shown."""


def _mute(text: str) -> None:
    """Only rank 0 speaks."""


def _commit() -> str:
    """The commit of a checkout, "-dirty" where files differ from it, else volrecon's version."""
    folder = Path(volrecon.__file__).parents[1]
    if not (folder / ".git").exists():  # an installed volrecon may lie inside somebody else's repository
        return f"volrecon {version('volrecon')}"
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"volrecon {version('volrecon')}"
    return found
