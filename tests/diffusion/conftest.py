"""A prior that is known in closed form, in the place of the built-in one."""

import pytest
from known_prior import Gaussian

from volrecon.priors import Card
from volrecon.priors.card import DataOrigin
from volrecon.priors.unet import UNetConfig
from volrecon.priors.weights import TrainedPrior


@pytest.fixture(autouse=True)
def known_prior(monkeypatch):
    card = Card(
        name="gaussian",
        about="a closed form",
        network=UNetConfig(channels=(8, 16), blocks=1),
        slices=3,
        unit_per_mm=0.04,
        water_per_mm=0.02,
        value_range=(0.0, 2.0),
        centre=0.4,
        sigma_data=0.2,
        soft_tissue=0.525,
        voxel_mm=(1.5, 4.0),
        gaps=(0, 1, 2),
        gap_pixels=(0.3, 3.0),
        noise=(0.002, 200.0),
        steps=1,
        psnr={},
        data=(DataOrigin(file="a.npz", origin="made up", licence="CC0"),),
        phantoms=0,
        command="none",
        commit="none",
    )
    trained = TrainedPrior(Gaussian(), card, "0" * 64)
    monkeypatch.setattr("volrecon.diffusion.method.load_prior", lambda name, sha256=None: trained)
    return trained
