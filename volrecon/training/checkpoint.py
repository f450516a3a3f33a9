"""A training run's state in one safetensors file that is replaced whole: killed at any moment, the last one stands."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from volrecon.errors import ConfigError, IntegrityError, ResourceError
from volrecon.priors.weights import sha256_of

Tensors = dict[str, torch.Tensor]

RESTART = "remove it to train from the start"


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on.

    Attributes:
        tensors: network, average, optimiser and the losses not yet in `history`, by prefixed names.
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
    losses: Tensors,
    step: int,
    minutes: float,
    history: list[dict[str, Any]],
) -> Snapshot:
    """The state as it is now, without copies."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
    tensors |= {f"losses.{key}": value for key, value in losses.items()}
    return Snapshot(tensors, step, minutes, history)


def restore(saved: Snapshot, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> Tensors:
    """Put a snapshot back; gives the losses not yet in its history."""
    weights = list(network.parameters())
    network.load_state_dict(_part(saved.tensors, "network."))
    average.load_state_dict(_part(saved.tensors, "average."))
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _part(saved.tensors, "optimiser.").items():
        index, key = name.split(".")
        # The fused step walks the memory of a weight and of its moments side by side: all in the weight's layout.
        placed = torch.empty_like(weights[int(index)]).copy_(value) if value.ndim else value
        states.setdefault(int(index), {})[key] = placed
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return _part(saved.tensors, "losses.")


def write(path: Path, saved: Snapshot, fingerprint: dict[str, Any]) -> None:
    """Replace the checkpoint: written beside, synced, renamed, folder synced.

    Raises:
        ResourceError: the disk is full or does not let us write; the earlier checkpoint stands.
    """
    about = {"step": saved.step, "minutes": saved.minutes, "history": saved.history, "fingerprint": fingerprint}
    text, partial = json.dumps(about), path.with_name(f".{path.name}.partial")
    tensors = {key: value.detach().cpu().contiguous() for key, value in saved.tensors.items()}
    try:
        save_file(tensors, partial, {"training": text, "sha256": sha256_of(text, tensors)})
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
            text, sealed = file.metadata()["training"], file.metadata()["sha256"]
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is no checkpoint, or damaged ({error}); {RESTART}") from error
    if sha256_of(text, tensors) != sealed:
        raise IntegrityError(f"{path} is damaged: its sha256 is not the one it was sealed with; {RESTART}")
    about = json.loads(text)
    earlier, now = _flat(about["fingerprint"]), _flat(fingerprint)
    differences = [
        f"{key}: was {earlier.get(key)!r:.120}, is {now.get(key)!r:.120}"
        for key in sorted(earlier.keys() | now.keys())
        if earlier.get(key) != now.get(key)
    ]
    if differences:
        raise ConfigError(
            f"{path} belongs to another training: {'; '.join(differences)}. Undo the change, or choose another --out."
        )
    return Snapshot(tensors, about["step"], about["minutes"], about["history"])


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested tables, and lists of tables, as one with keys such as "training.data.sources.0.file"."""
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{name}.{key}" if name else str(key))
    return flat


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
