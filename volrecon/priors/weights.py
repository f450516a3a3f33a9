"""Weights on disk: safetensors with a `Card`, sealed by a sha256 of both. Nothing in a file can run code."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from volrecon.errors import ConfigError, ResourceError, WeightsError
from volrecon.priors.card import Card
from volrecon.priors.denoiser import Preconditioned, native_precision

LARGEST_HEADER = 2**20
LARGEST_CARD = 2**17
MOST_PARAMETERS = 2**31
BUILTIN = Path(__file__).parent / "builtin"
SCHEME = "builtin:"
CARD_VERSION = 1
DTYPES = ("F16", "F32")


@dataclass(frozen=True)
class TrainedPrior:
    """A denoiser with its card.

    Attributes:
        denoiser: D, in evaluation mode; its network's parameters do not ask for gradients.
        card: what the weights say of themselves.
        sha256: of the weights file.
    """

    denoiser: Preconditioned
    card: Card
    sha256: str


def builtin_priors() -> list[str]:
    """Names of the priors that ship with volrecon, such as "builtin:ct"."""
    return sorted(SCHEME + path.stem for path in BUILTIN.glob("*.safetensors"))


def prior_path(name: str) -> Path:
    """The weights file that "builtin:ct" or a path ending in .safetensors names.

    Raises:
        ConfigError: neither.
    """
    if name in builtin_priors():
        return BUILTIN / f"{name.removeprefix(SCHEME)}.safetensors"
    if name.startswith(SCHEME) or not name.endswith(".safetensors"):
        known = ", ".join(builtin_priors()) or "none"
        raise ConfigError(f"prior {name!r:.80}: name one that ships ({known}) or a file ending in .safetensors")
    return Path(name)


def load_prior(
    name: str | Path,
    device: torch.device | str = "cpu",
    precision: torch.dtype | None = None,
    sha256: str | None = None,
) -> TrainedPrior:
    """The prior of that name or path.

    Args:
        precision: type of the network's arithmetic; None is bfloat16 where the processor has it, else float32.
        sha256: what the file's must be, or None.

    Raises:
        ConfigError: no prior goes by that name.
        WeightsError: not a weights file of ours, damaged, or not what `sha256` says; all differences at once.
    """
    path = prior_path(str(name))
    card, digest = read_card(path)
    _compare(path, _network(path, card, "meta"))
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path} has sha256 {found}, the job wants {sha256}: these are other weights")
    if seal(card, tensors) != digest:
        raise WeightsError(f"{path} is damaged: its sha256 is not the one it was sealed with; fetch it again")
    _check_finite(path, tensors)
    network = _network(path, card, "cpu")
    network.load_state_dict(tensors)
    network = network.to(device, torch.float32).eval().requires_grad_(False)
    return TrainedPrior(denoiser_of(card, network, precision or native_precision(device)), card, found)


def denoiser_of(card: Card, network: nn.Module, precision: torch.dtype) -> Preconditioned:
    """The network with the card's preconditioning."""
    return Preconditioned(
        network,
        slices=card.slices,
        positions=card.positions,
        sigma_data=card.sigma_data,
        centre=card.centre,
        precision=precision,
    )


def save_prior(path: Path, card: Card, network: nn.Module) -> str:
    """Write weights as float16 with their card, the same bytes for the same weights; gives the file's sha256.

    Raises:
        WeightsError: a weight that float16 cannot hold; a card of more than 131072 characters.
        ResourceError: the disk or folder does not let us write.
    """
    tensors = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in network.state_dict().items()}
    _check_finite(path, tensors)
    metadata = {"volrecon": card.model_dump_json(), "sha256": seal(card, tensors)}
    _check_size(path, metadata["volrecon"])
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(_in_order(save(tensors, metadata)))
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ResourceError(f"{path} cannot be written: {error}") from error
    return file_sha256(path)


def read_card(path: Path) -> tuple[Card, str]:
    """The card of a weights file and the sha256 it was sealed with; no tensor is read."""
    metadata = _header(path).get("__metadata__")
    if not isinstance(metadata, dict) or not {"volrecon", "sha256"} <= set(metadata):
        raise WeightsError(f"{path} is safetensors but not a prior of volrecon: it has no card")
    try:
        _check_size(path, metadata["volrecon"])
        stated = json.loads(metadata["volrecon"], object_pairs_hook=_no_duplicates)
        version = stated.get("card_version") if isinstance(stated, dict) else None
        if version != CARD_VERSION:
            raise WeightsError(f"{path}: its card has version {version!r:.80}; this volrecon reads {CARD_VERSION}")
        return Card.model_validate_json(metadata["volrecon"]), str(metadata["sha256"])
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise WeightsError(f"{path}: its card is not one: {problems[:1000]}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: its card is damaged: {error}") from error


def seal(card: Card, tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of a card and its tensors, whatever their order in the file."""
    return sha256_of(json.dumps(card.model_dump(mode="json"), sort_keys=True), tensors)


def sha256_of(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of a text and tensors, whatever their order."""
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes() if value.ndim else value.numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header sorted: the library writes metadata in random order."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[start:]


def _header(path: Path) -> dict[str, Any]:
    """The JSON header, refused when it is too long, not JSON, or says something twice."""
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(LARGEST_HEADER, max(size - 8, 0)):
                raise WeightsError(f"{path} is not safetensors: a header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length), object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not safetensors, or damaged: {error}") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path} is not safetensors: its header is no table")
    return header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"it names {max(keys, key=keys.count)!r:.80} twice")
    return dict(pairs)


def _check_size(path: Path, text: str) -> None:
    """Every wrong key of a card costs memory for its message."""
    if len(text) > LARGEST_CARD:
        raise WeightsError(f"{path}: a card of {len(text)} characters; at most {LARGEST_CARD}")


def _network(path: Path, card: Card, device: str) -> nn.Module:
    """The network that a card describes, untrained; on "meta" it takes no memory."""
    inputs = card.slices + 2 * card.positions
    with torch.random.fork_rng(devices=[]), torch.device(device):
        network = card.network.build(inputs, card.slices)
    count = sum(p.numel() for p in network.parameters())
    if count > MOST_PARAMETERS:
        raise WeightsError(f"{path} claims a network of {count} parameters; at most {MOST_PARAMETERS}")
    return network


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file's tensors; safetensors has checked that they fill it, one after another."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not safetensors, or damaged: {error}") from error
    except RuntimeError as error:  # torch has no MemoryError of its own
        raise ResourceError(f"no memory for {path}: {error}") from error


def _compare(path: Path, network: nn.Module) -> None:
    """All differences between what the card's network has and what the header says; no tensor is read or mapped."""
    expected = {key: list(value.shape) for key, value in network.state_dict().items()}
    entries = {key: entry for key, entry in _header(path).items() if key != "__metadata__"}
    found = {key: entry if isinstance(entry, dict) else {} for key, entry in entries.items()}
    problems = [f"{key} is missing" for key in sorted(expected.keys() - found.keys())]
    problems += [f"{key:.80} is unknown" for key in sorted(found.keys() - expected.keys())]
    for key in sorted(expected.keys() & found.keys()):
        shape, dtype = found[key].get("shape"), found[key].get("dtype")
        if shape != expected[key]:
            problems.append(f"{key} has shape {shape!r:.60}, the network {expected[key]}")
        if dtype not in DTYPES:
            problems.append(f"{key} is {dtype!r:.20}, expected {' or '.join(DTYPES)}")
    if problems:
        more = f" and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(f"{path}: {len(problems)} differences: {'; '.join(problems[:20])}{more}")


def _check_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    bad = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise WeightsError(f"{path}: {len(bad)} tensors are not finite (float16 ends at 65504), first {bad[0]}")
