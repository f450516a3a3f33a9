"""A card and a tiny network to go with it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from volrecon.priors import Card
from volrecon.priors.card import DataOrigin
from volrecon.priors.unet import UNetConfig
from volrecon.priors.weights import save_prior, seal

STATED = {
    "name": "tiny",
    "about": "random weights",
    "network": UNetConfig(channels=(8, 16), blocks=1),
    "slices": 3,
    "unit_per_mm": 0.04,
    "water_per_mm": 0.02,
    "value_range": (0.0, 2.0),
    "centre": 0.4,
    "sigma_data": 0.2,
    "soft_tissue": 0.525,
    "voxel_mm": (1.5, 4.0),
    "gaps": (0, 1, 2),
    "gap_pixels": (1.0, 3.0),
    "noise": (0.002, 40.0),
    "steps": 10,
    "psnr": {"0.1": 30.0},
    "data": (DataOrigin(file="a.npz", origin="made up", licence="CC0"),),
    "phantoms": 0,
    "command": "volrecon train a.toml",
    "commit": "abc",
}


@pytest.fixture(scope="session")
def card():
    """card(slices=5): a card with changes."""
    return lambda **changes: Card(**{**STATED, **changes})


@pytest.fixture(scope="session")
def network():
    """network(card): its network with random weights; the caller's random numbers stay."""

    def make(of: Card) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = of.network.build(of.slices + 2 * of.positions, of.slices)
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=0.05)
        return net.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def whole(tmp_path_factory, card, network):
    """A good weights file; not to be changed."""
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    save_prior(path, card(), network(card()))
    return path


@pytest.fixture
def changed(whole, tmp_path, card):
    """changed(tensors={...}, **card changes): the good file with other tensors or another card, sealed anew."""

    def write(tensors=None, stated=None, **changes):
        path = tmp_path / "changed.safetensors"
        tensors = load_file(whole) | (tensors or {})
        tensors = {key: value for key, value in tensors.items() if value is not None}
        about = card(**changes)
        text = about.model_dump_json() if stated is None else json.dumps(stated)
        save_file(tensors, path, {"volrecon": text, "sha256": seal(about, tensors)})
        return path

    return write
