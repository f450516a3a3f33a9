"""A training run's state in one safetensors file that is replaced whole: killed at any moment, the last one stands."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from volrecon.errors import ConfigError, IntegrityError, ResourceError

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on.

    Attributes:
        tensors: network, average and optimiser, by prefixed names.
        step: steps done.
        minutes: time spent so far.
        history: lines of the loss curve.
    """

    tensors: Tensors
    step: int
    minutes: float
    history: list[dict[str, Any]]


def snapshot(
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    minutes: float,
    history: list[dict[str, Any]],
) -> Snapshot:
    """The state as it is now, without copies."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    return Snapshot(tensors, step, minutes, history)


def restore(saved: Snapshot, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put a snapshot back."""
    network.load_state_dict(_part(saved.tensors, "network."))
    average.load_state_dict(_part(saved.tensors, "average."))
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _part(saved.tensors, "optimiser.").items():
        index, key = name.split(".")
        states.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})


def write(path: Path, saved: Snapshot, fingerprint: dict[str, Any]) -> None:
    """Replace the checkpoint: written beside, synced, renamed, folder synced.

    Raises:
        ResourceError: the disk is full or does not let us write; the earlier checkpoint stands.
    """
    about = {"step": saved.step, "minutes": saved.minutes, "history": saved.history, "fingerprint": fingerprint}
    partial = path.with_name(f".{path.name}.partial")
    tensors = {key: value.detach().cpu().contiguous() for key, value in saved.tensors.items()}
    try:
        save_file(tensors, partial, {"training": json.dumps(about)})
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ResourceError(f"{path} cannot be written: {error}. The checkpoint before it stands.") from error


def read(path: Path, fingerprint: dict[str, Any]) -> Snapshot | None:
    """The checkpoint at `path`, None where there is none.

    Raises:
        IntegrityError: it is damaged.
        ConfigError: it belongs to another training; the differences are named.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["training"])
        tensors = load_file(path)
        earlier = about["fingerprint"]
        saved = Snapshot(tensors, int(about["step"]), float(about["minutes"]), list(about["history"]))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); remove it to train from the start") from error
    differences = [
        f"{key}: was {earlier.get(key)!r:.120}, is {fingerprint.get(key)!r:.120}"
        for key in sorted(earlier.keys() | fingerprint.keys())
        if earlier.get(key) != fingerprint.get(key)
    ]
    if differences:
        raise ConfigError(
            f"{path} belongs to another training: {'; '.join(differences)}. Undo the change, or choose another --out."
        )
    return saved


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
