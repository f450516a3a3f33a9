"""Small CT-like volumes and training files, shared by the tests of training."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from volrecon.geometry import VolumeGeometry
from volrecon.store import write_volume
from volrecon.training.config import Data, Training
from volrecon.training.distributed import Ranks
from volrecon.training.loop import Line, Loop
from volrecon.training.prepare import Level, Prepared
from volrecon.training.run import Place
from volrecon.volume import RamVolume

SPACING = (3.0, 2.0, 2.0)
FINGERPRINT = {"training": {"seed": 1}, "threads": 1}
CPU = torch.device("cpu")
WIDTH = 64
"""Of the code of a planted volume: 1 + x + WIDTH y + WIDTH^2 z."""

DATA: dict[str, Any] = {
    "voxel_mm": [2.0, 4.0],
    "sources": [
        {
            "file": "ct.npz",
            "origin": "made in the test",
            "licence": "CC0",
            "keys": ["hu[0:2]"],
            "held_out": ["hu[2]"],
            "weight": 2.0,
        },
        {"file": "other.zarr", "origin": "made in the test", "licence": "CC BY 4.0", "weight": 3.0},
    ],
}

TRAINING: dict[str, Any] = {
    "name": "trial",
    "about": "for a test",
    "seed": 1,
    "precision": "float32",
    "network": {"kind": "unet", "channels": [4, 8], "blocks": 1},
    "groups": {"slices": 3, "gaps": [0, 1, 2], "weights": [1.0, 1.0, 1.0]},
    "patches": {"sizes": [8, 16], "probabilities": [0.5, 0.5], "pixels": 512},
    "optimiser": {"learning_rate": 3e-3, "warm_up": 2},
    "budget": {"steps": 12},
    "validation": {"sigmas": [0.1], "crops": 2, "size": 16, "every": 5},
}


def hounsfield(seed: int, shape: tuple[int, int, int] = (12, 24, 24), tissue: float = 40.0) -> np.ndarray:
    """A textured elliptic body with a bone in air, int16 HU (z, y, x); no body in the first slice."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    rows, columns = shape[1:]
    radius = np.hypot((y - rows * 0.55) / (0.38 * rows), (x - columns * 0.45) / (0.3 * columns))
    hu = np.where((radius < 1) & (z > 0), tissue + 12 * rng.standard_normal(shape), -1000)
    hu = np.where((radius < 0.2) & (z > 0), 900, hu)
    return hu.astype(np.int16)


def write_data(folder: Path) -> Path:
    """The files that DATA names."""
    hu = np.stack([hounsfield(seed) for seed in range(3)])
    np.savez_compressed(folder / "ct.npz", hu=hu, voxel_zyx_mm=np.array(SPACING), quantity=np.array("hu"))
    mu = ((hounsfield(7, (8, 20, 28), 120.0) / 1000.0 + 1) * 0.02).astype(np.float32)
    grid = VolumeGeometry(mu.shape, (2.0, 2.0, 2.0))
    write_volume(folder / "other.zarr", RamVolume(torch.from_numpy(mu)), grid, {})
    return folder


def planted(depth=9, rows=40, columns=50, spacing=1.5, boxes=None):
    """A level whose every value says where it lies, and none is 0."""
    z, y, x = np.indices((depth, rows, columns))
    values = (1 + x + WIDTH * y + WIDTH**2 * z).astype(np.float32)
    whole = np.tile([0, rows, 0, columns], (depth, 1))
    return Level(values, spacing, 2.0, whole if boxes is None else np.array(boxes), 1.0)


def decoded(values):
    """z, y, x of planted values."""
    code = values.astype(int) - 1
    return code // WIDTH**2, code // WIDTH % WIDTH, code % WIDTH


def tables(**changes: Any) -> dict[str, Any]:
    """TRAINING without its data, with tables updated: tables(budget={"steps": 3})."""
    out = copy.deepcopy(TRAINING)
    for key, value in changes.items():
        out[key] = {**out.get(key, {}), **value} if isinstance(value, dict) else value
    return out


def training(data: dict[str, Any] | None = None, **changes: Any) -> Training:
    return Training.model_validate({**tables(**changes), "data": data or DATA})


def write_training(folder: Path, **changes: Any) -> Path:
    """training.toml with its data in a file beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "data.toml").write_text(tomli_w.dumps(DATA), encoding="utf-8")
    (folder / "training.toml").write_text(tomli_w.dumps({"data": "data.toml", **tables(**changes)}), encoding="utf-8")
    return folder / "training.toml"


def data_of(**changes: Any) -> Data:
    return Data.model_validate({**copy.deepcopy(DATA), **changes})


def place(folder: Path, out: str = "run", **changes: Any) -> Place:
    """Where a run in a folder of `write_data` is."""
    stated = {"workers": 0, "origin": ("test", "none"), **changes}
    return Place(folder / out, folder, folder / "prepared.zarr", **stated)


def loop(told: Training, prepared: Prepared, folder: Path, **changes: Any) -> Loop:
    folder.mkdir(exist_ok=True)
    stated = {"device": CPU, "ranks": Ranks(), "workers": 0, "fingerprint": FINGERPRINT, **changes}
    return Loop(told, prepared, folder, **stated)


def quiet(line: Line | str) -> None:
    """Reports nothing."""
