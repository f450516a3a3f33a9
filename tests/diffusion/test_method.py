"""The diffusion method against a Gaussian prior, whose posterior is known, and its options."""

import numpy as np
import pytest
import torch
from balls import GRID, MU, ball_projections, small_scan
from known_prior import MEAN, VARIANCE

from volrecon import engine
from volrecon.diffusion import Diffusion
from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry, parallel
from volrecon.jobs import resolve_method
from volrecon.projectors import projector
from volrecon.solvers import Measurement
from volrecon.volume import RamSpace, RamVolume

TINY = VolumeGeometry((2, 5, 5), (2.0, 2.0, 2.0))
SCAN = parallel(detector_shape=(2, 8), pixel_mm=2.0, angles=np.pi * np.arange(6) / 6)


def tiny(y: np.ndarray) -> Measurement:
    return Measurement(RamVolume(torch.from_numpy(y.astype(np.float32))), SCAN, TINY, RamSpace(), 1.0)


def method(**changes) -> Diffusion:
    return resolve_method({"algorithm": "diffusion", **changes})


def solved(recipe: Diffusion, data: Measurement) -> np.ndarray:
    x, _ = engine.solve(recipe, data)
    return x.read(0, x.shape[0]).numpy().astype(np.float64)


def test_with_weak_data_it_samples_the_prior():
    """Mean and variance of the Gaussian, over voxels and seeds, from a data step that does nothing."""
    recipe = {
        "levels": {"schedule": "karras", "high": 20.0, "low": 0.002, "steps": 60},
        "sampler": {"kind": "ddim", "eta": 0.5},
        "data": {"kind": "proximal", "gamma": 1e-6, "iterations": 1},
    }
    drawn = np.stack([solved(method(**recipe, seed=seed), tiny(np.zeros((2, 6, 8)))) for seed in range(40)])
    assert drawn.mean() == pytest.approx(MEAN, abs=0.03)
    assert drawn.var() == pytest.approx(VARIANCE, rel=0.1)


def test_strong_data_leave_their_least_squares_solution():
    """Where the data say all, the prior has no say: noise-free projections of a known volume give it back."""
    x = np.random.default_rng(0).random(TINY.shape).astype(np.float32)
    A = projector(TINY, parallel(detector_shape=(2, 8), pixel_mm=2.0, angles=np.pi * np.arange(40) / 40))
    data = Measurement(RamVolume(torch.from_numpy(A(x))), A.scan_geometry, TINY, RamSpace(), 1.0)
    recipe = method(
        levels={"high": 1.0, "low": 0.002, "steps": 12},
        sampler={"kind": "ddim", "eta": 0.0},
        data={"kind": "proximal", "gamma": 1e6, "iterations": 30},
    )
    assert np.abs(solved(recipe, data) - x).max() < 0.02


def test_the_residual_and_the_level_are_told():
    infos = []
    data = Measurement(RamVolume(torch.from_numpy(ball_projections(small_scan("cone", 8)))), small_scan("cone", 8),
                       GRID, RamSpace(), 2 * MU)  # fmt: skip
    recipe = method(levels={"high": 1.0, "low": 0.1, "steps": 3}, data={"kind": "proximal"})
    engine.solve(recipe, data, lambda progress: infos.append(progress.info))
    assert [info.sigma for info in infos] == pytest.approx(list(recipe.levels.sigmas(None)))
    assert infos[-1].residual < 0.1


@pytest.mark.parametrize("start", [{"method": "fdk"}, {"method": "cgls", "iterations": 3}])
def test_a_warm_start_begins_at_its_level(start):
    infos = []
    scan = small_scan("cone", 12)
    data = Measurement(RamVolume(torch.from_numpy(ball_projections(scan))), scan, GRID, RamSpace(), 2 * MU)
    recipe = method(levels={"high": 10.0, "low": 0.05, "steps": 30}, start={**start, "sigma": 0.3})
    x, _ = engine.solve(recipe, data, lambda progress: infos.append(progress.info))
    assert infos[0].sigma == 0.3
    assert len(infos) < 30
    assert torch.isfinite(x.read(0, 20)).all()


def test_a_recipe_says_what_it_does_not_know():
    for wrong, said in (
        ({"sampler": {"kind": "euler"}}, "sampler"),
        ({"data": {"kind": "proximal", "gama": 1.0}}, "gama"),
        ({"levels": {"steps": 0}}, "levels.steps"),
        ({"recipe": "dds", "preset": "slow"}, "published"),
    ):
        with pytest.raises(ConfigError, match=said):
            resolve_method(wrong if "recipe" in wrong else {"algorithm": "diffusion", **wrong})


def test_voxels_the_prior_does_not_know():
    scan = small_scan("cone")
    with pytest.raises(ConfigError, match="mm"):
        method().check(scan, VolumeGeometry((4, 4, 4), (20.0, 20.0, 20.0)), "auto")
