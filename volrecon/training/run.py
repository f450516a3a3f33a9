"""A training file in, a weights file out."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from volrecon.errors import ConfigError, ResourceError
from volrecon.figures import batch_figure, training_figure
from volrecon.priors.card import Card, DataOrigin
from volrecon.priors.weights import save_prior
from volrecon.training.batches import Draw, training_batch
from volrecon.training.config import Training
from volrecon.training.distributed import start_ranks
from volrecon.training.loop import Line, Loop, Trained
from volrecon.training.prepare import Prepared, prepare

WATER_PER_MM = 0.02


@dataclass(frozen=True)
class Place:
    """Where a training run reads, writes and computes.

    Attributes:
        out: run directory: checkpoint, losses.png, prior.safetensors.
        data: folder that the sources' files are in.
        prepared: store of the prepared volumes, shared between runs on the same data.
        device: "cpu", "cuda", "cuda:1".
        workers: loader processes beside the training itself.
        origin: command and commit, for the card.
    """

    out: Path
    data: Path
    prepared: Path
    device: str = "cpu"
    workers: int = 1
    origin: tuple[str, str] = ("", "")


def train(
    training: Training,
    place: Place,
    report: Callable[[Line], None],
    say: Callable[[str], None],
    stop_after: int | None = None,
) -> Trained:
    """Train a prior, or go on with it; writes `prior.safetensors` and `losses.png` into `place.out`.

    Args:
        report: told of every few steps.
        say: told, in words, of the preparation and of what was written.
        stop_after: end at a checkpoint after this step, as a signal would.

    Raises:
        ConfigError: the checkpoint in `out` or the prepared store belongs to something else; no such device.
        DataError: a source is missing or damaged.
        DivergedError: the loss is not finite.
    """
    device = _device(place.device)
    ranks = start_ranks()
    _make_folder(place.out)
    if ranks.rank == 0:
        _check_free(place.out)
        prepare(place.prepared, training.data, place.data, say)
    ranks.wait()
    prepared = prepare(place.prepared, training.data, place.data, say)
    fingerprint = {
        "training": training.model_dump(mode="json"),
        "data": hashlib.sha256((place.prepared / "zarr.json").read_bytes()).hexdigest(),
        "ranks": ranks.count,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": device.type,
    }
    loop = Loop(training, prepared, place.out, device, ranks, place.workers, fingerprint)
    trained = loop.run(report, stop_after)
    if ranks.rank == 0:
        path = place.out / "prior.safetensors"
        sha256 = save_prior(path, card_of(training, prepared, trained, place.origin), trained.network)
        training_figure(place.out / "losses.png", trained.history, training.name)
        say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {sha256[:16]}, after {trained.step} steps")
    ranks.wait()
    return trained


def _check_free(out: Path) -> None:
    """Refuse to replace a prior that no checkpoint there goes on from."""
    if (out / "prior.safetensors").exists() and not (out / "checkpoint.safetensors").exists():
        raise ConfigError(f"{out} holds a prior and no checkpoint to go on from; choose another --out")


def preview(training: Training, place: Place, path: Path, say: Callable[[str], None]) -> None:
    """A picture of the first batch: clean, noisy, gap and sigma."""
    _make_folder(path.parent)
    prepared = prepare(place.prepared, training.data, place.data, say)
    batch = training_batch(Draw(prepared.training, training), 0)
    noisy = batch.clean + batch.sigma[:, None, None, None] * batch.noise
    batch_figure(path, batch.clean.numpy(), noisy.numpy(), batch.sigma.numpy(), batch.gap.numpy())


def card_of(training: Training, prepared: Prepared, trained: Trained, origin: tuple[str, str]) -> Card:
    """What the weights say of themselves."""
    pixels = [level.voxel_mm for level in prepared.training]
    spacings = [level.spacing for level in prepared.training]
    gaps = [gap for gap in training.groups.gaps if gap]
    return Card(
        name=training.name,
        about=training.about,
        network=training.network,
        slices=training.groups.slices,
        patch=max(training.patches.sizes) if training.patches.padded else None,
        unit_per_mm=2 * WATER_PER_MM,
        water_per_mm=WATER_PER_MM,
        value_range=(0.0, training.data.clip),
        centre=prepared.mean,
        sigma_data=prepared.deviation,
        soft_tissue=prepared.soft_tissue,
        voxel_mm=(min(pixels), max(pixels)),
        gaps=training.groups.gaps,
        gap_pixels=(min(gaps, default=0) * min(spacings), max(gaps, default=0) * max(spacings)),
        noise=(training.noise.low, training.noise.high),
        steps=trained.step,
        psnr=trained.psnr,
        data=tuple(DataOrigin(file=s.file, origin=s.origin, licence=s.licence) for s in training.data.sources),
        phantoms=training.data.phantoms.count if training.data.phantoms else 0,
        command=origin[0],
        commit=origin[1],
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{path} cannot be made a folder: {error.strerror}") from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r:.40} is none that torch knows; try cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r:.40}: training runs on cpu or cuda")
    if device.type == "cuda":
        index = device.index or int(os.environ.get("LOCAL_RANK", "0"))
        if index >= torch.cuda.device_count():
            raise ConfigError(f"device {name} is number {index}; torch sees {torch.cuda.device_count()} CUDA devices")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device
