"""Unconditional samples of a Gaussian whose denoiser is known: its mean and variance come out."""

import numpy as np
import pytest
import torch

from volrecon.priors import CallableDenoiser, SliceGroupPrior
from volrecon.sample import sample
from volrecon.sampling import karras
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace

MEAN, DEVIATION = 0.5, 0.2


def optimal(v: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The posterior mean for data N(MEAN, DEVIATION^2), every voxel on its own."""
    noise = sigma[:, None, None, None] ** 2
    return (DEVIATION**2 * v + noise * MEAN) / (DEVIATION**2 + noise)


PRIOR = SliceGroupPrior(CallableDenoiser(optimal, slices=3), gaps=(1, 2))
SIGMAS = karras(20.0, 0.005, 8)
SHAPE = (19, 6, 7)


def drawn(space, seed=0, eta=0.5, sigmas=SIGMAS):
    return sample(PRIOR, SHAPE, sigmas, space, seed=seed, eta=eta).read(0, SHAPE[0]).numpy()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_mean_and_variance_are_those_of_the_data(eta):
    values = np.stack([drawn(RamSpace(), seed, eta, karras(20.0, 0.005, 100)) for seed in range(3)]).astype(np.float64)
    error = DEVIATION / np.sqrt(values.size)
    # The start is noise about 0, not about the mean: what is left of that after the fall from sigma 20.
    bias = MEAN * DEVIATION / 20
    assert values.mean() == pytest.approx(MEAN, abs=4 * error + bias)
    assert values.std() == pytest.approx(DEVIATION, abs=4 * error / np.sqrt(2) + 0.02 * DEVIATION)


def test_a_seed_gives_the_same_bytes_whatever_the_blocks_and_tier(tmp_path):
    whole = drawn(RamSpace())
    assert drawn(RamSpace(block_bytes=1)).tobytes() == whole.tobytes()
    with ZarrSpace(tmp_path, block_bytes=1) as space:
        assert len(list(space.blocks(SHAPE))) == 2
        assert drawn(space).tobytes() == whole.tobytes()
    assert abs(drawn(RamSpace(), seed=1) - whole).max() > 0.1


def test_scratch_is_given_back(tmp_path):
    with ZarrSpace(tmp_path) as space:
        drawn_volume = sample(PRIOR, SHAPE, SIGMAS[:3], space)
        drawn_volume.read(0, 1)  # in order: after what was released
        assert [path.name for path in space.folder.iterdir()] == [drawn_volume.folder.name]


def test_progress_is_told_of_every_level():
    told = []
    sample(PRIOR, SHAPE, SIGMAS[:4], RamSpace(), progress=lambda step, sigma: told.append((step, sigma)))
    assert told == [(k + 1, float(sigma)) for k, sigma in enumerate(SIGMAS[:4])]


def test_one_level_is_one_estimate():
    found = drawn(RamSpace(), sigmas=np.array([20.0]))
    assert found.mean() == pytest.approx(MEAN, abs=0.01)
    assert found.std() == pytest.approx(DEVIATION**2 / 20, rel=0.1)


def test_R3_the_callers_random_numbers_are_untouched():
    before = torch.get_rng_state()
    drawn(RamSpace(), sigmas=SIGMAS[:3])
    assert torch.equal(torch.get_rng_state(), before)
