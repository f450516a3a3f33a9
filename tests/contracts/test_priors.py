"""What every prior must do, run over the registry below: a newcomer adds one line to it.

D and its Jacobian are compared with dense ones: the volume's graph, which no prior may build, is built here.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.priors import Conditions, Denoiser, NeighbourPrior, PatchPrior, PlanesPrior, Prior, SliceGroupPrior
from volrecon.priors.prior import GroupedPrior
from volrecon.sampling import NoiseKey
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume, Space

SIGMA = 0.3

PRIORS: dict[str, Callable[[Denoiser, int], Prior]] = {
    "single slices": lambda D, batch: SliceGroupPrior(D, gaps=(0,), batch=batch),
    "DiffusionBlend": lambda D, batch: NeighbourPrior(D, batch=batch),
    "DiffusionBlend++": lambda D, batch: SliceGroupPrior(D, gaps=(1, 2, 3), spacing=1.5, batch=batch),
    "DiffusionBlend++, last": lambda D, batch: SliceGroupPrior(D, gaps=(1, 3), batch=batch, blending="last"),
    "TPDM": lambda D, batch: PlanesPrior(SliceGroupPrior(D, batch=batch), SliceGroupPrior(D, batch=batch)),
    "TPDM, random": lambda D, batch: PlanesPrior(
        SliceGroupPrior(D, gaps=(0,), batch=batch), NeighbourPrior(D, batch=batch), every=1.7, normal="x"
    ),
    "patches": lambda D, batch: PatchPrior(D, 4, gaps=(1, 2), patch_batch=batch),
    "patches of single slices": lambda D, batch: PatchPrior(D, 3, patch_batch=batch),
}
"""prior(denoiser, how many tiles at once)."""

each = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 6), st.integers(1, 5))
steps = st.integers(0, 7)


def per_sample(sigma, x: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)


class Independent(Denoiser):
    """Data N(mean, deviation^2), every voxel on its own: whatever the tiles, the volume's posterior mean is known."""

    slices, positions = 3, True
    mean, variance = 0.5, 0.04

    def __call__(self, x, sigma, conditions):
        shrink = self.variance / (self.variance + per_sample(sigma, x) ** 2)
        return self.mean + shrink * (x - self.mean)


class Correlated(Denoiser):
    """Slices of a group N(mean, C): the posterior mean of the group, mean + C (C + sigma^2)^-1 (x - mean)."""

    slices, positions = 3, True
    mean = torch.tensor([0.2, 0.5, 0.7])
    C = torch.tensor([[0.05, 0.03, 0.01], [0.03, 0.04, 0.02], [0.01, 0.02, 0.06]])

    def __call__(self, x, sigma, conditions):
        gain = self.C @ torch.linalg.inv(self.C + sigma**2 * torch.eye(3))
        mean = self.mean[:, None, None]
        return mean + torch.einsum("ij,bjrc->birc", gain, x - mean)


class Curved(Denoiser):
    """Nothing of the kind: bends, mixes slices one way only, depends on sigma and the gap."""

    slices, positions = 3, True

    def __init__(self) -> None:
        self.scale = torch.nn.Parameter(torch.tensor(0.8))

    def __call__(self, x, sigma, conditions: Conditions):
        mixed = x + 0.5 * x.roll(1, dims=1) ** 2 - 0.3 * x[:, :1]
        return torch.tanh(self.scale * mixed) + sigma * (1 + conditions.gap) * x


def dense(prior: Prior, x: torch.Tensor, key: NoiseKey) -> torch.Tensor:
    """D(x) of a volume with its whole graph, tile after tile; of denoisers that take every pixel on its own."""
    if isinstance(prior, PlanesPrior):
        auxiliary, own = prior.turn(key)
        if not auxiliary:
            return dense(prior.axial, x, own)
        return dense(prior.perpendicular, x.permute(prior.axes), own).permute(*np.argsort(prior.axes).tolist())
    assert isinstance(prior, GroupedPrior)
    partition = prior.partition(len(x), key)
    conditions = Conditions(partition.gap * prior.spacing)
    total = [torch.zeros(x.shape[1:])] * len(x)
    for group, weights in zip(partition.groups.tolist(), partition.weights.tolist(), strict=True):
        tile = prior.denoiser(torch.stack([x[z] for z in group])[None], SIGMA, conditions)[0]
        for z, weight, one in zip(group, weights, tile, strict=True):
            total[z] = total[z] + weight * one
    return torch.stack(total)


def numbers(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def denoised(prior: Prior, x: torch.Tensor, key: NoiseKey, space: Space | None = None) -> torch.Tensor:
    space = space or RamSpace()
    return prior.denoise(space.of(RamVolume(x)), SIGMA, key, space).read(0, len(x))


def pulled_back(prior: Prior, x: torch.Tensor, v: torch.Tensor, key: NoiseKey, space: Space | None = None):
    space = space or RamSpace()
    return prior.vjp(space.of(RamVolume(x)), SIGMA, space.of(RamVolume(v)), key, space).read(0, len(x))


@each
@settings(max_examples=15, deadline=None)
@given(shape=shapes, step=steps)
def test_independent_voxels_have_their_posterior_mean(make, shape, step):
    D, x, v = Independent(), numbers(shape), numbers(shape, 1)
    prior, key = make(D, 2), NoiseKey(5, step)
    shrink = D.variance / (D.variance + SIGMA**2)
    torch.testing.assert_close(denoised(prior, x, key), D.mean + shrink * (x - D.mean), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pulled_back(prior, x, v, key), shrink * v, rtol=1e-5, atol=1e-6)


@each
@settings(max_examples=15, deadline=None)
@given(shape=shapes, step=steps, D=st.sampled_from([Correlated(), Curved()]))
def test_denoise_is_the_dense_one(make, shape, step, D):
    x, prior, key = numbers(shape), make(D, 2), NoiseKey(5, step)
    torch.testing.assert_close(denoised(prior, x, key), dense(prior, x, key).detach(), rtol=1e-5, atol=1e-5)


@each
@settings(max_examples=15, deadline=None)
@given(shape=shapes, step=steps)
def test_vjp_is_that_of_full_autograd(make, shape, step):
    D = Curved()
    x, v, prior, key = numbers(shape), numbers(shape, 1), make(D, 2), NoiseKey(5, step)
    whole = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(dense(prior, whole, key), whole, v)
    torch.testing.assert_close(pulled_back(prior, x, v, key), expected, rtol=1e-4, atol=1e-5)
    assert D.scale.grad is None


@each
@pytest.mark.parametrize("step", [0, 1, 3])
def test_vjp_is_the_transpose_of_an_affine_denoise(make, step):
    """Without knowing how a prior works: the matrix of D, column by column, and its transpose."""
    shape, key, prior = (7, 2, 3), NoiseKey(5, step), make(Correlated(), 2)
    origin = denoised(prior, torch.zeros(shape), key)
    basis = torch.eye(42).reshape(42, *shape)
    J = torch.stack([(denoised(prior, e, key) - origin).ravel() for e in basis], dim=1)
    v = numbers(shape, 1)
    torch.testing.assert_close(pulled_back(prior, numbers(shape), v, key).ravel(), J.T @ v.ravel(), rtol=0, atol=1e-5)


@each
@pytest.mark.parametrize("step", [0, 1])
def test_R2_batch_and_tier_change_nothing(make, step, tmp_path):
    x, v, key = numbers((19, 6, 5)), numbers((19, 6, 5), 1), NoiseKey(5, step)
    one = make(Curved(), 1)
    for batch in (1, 3, 8):
        prior = make(Curved(), batch)
        with ZarrSpace(tmp_path / str(batch), block_bytes=1) as space:
            on_disk = denoised(prior, x, key, space), pulled_back(prior, x, v, key, space)
        for found, zarr, whole in zip(
            (denoised(prior, x, key), pulled_back(prior, x, v, key)),
            on_disk,
            (denoised(one, x, key, RamSpace(1)), pulled_back(one, x, v, key, RamSpace(1))),
            strict=True,
        ):
            assert torch.equal(found, zarr)
            torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@each
def test_the_same_key_makes_the_same_bytes(make):
    x, v, prior = numbers((11, 6, 5)), numbers((11, 6, 5), 1), make(Curved(), 2)
    for step in range(4):
        key = NoiseKey(5, step)
        assert torch.equal(denoised(prior, x, key), denoised(make(Curved(), 2), x, NoiseKey(5, step)))
        assert torch.equal(pulled_back(prior, x, v, key), pulled_back(prior, x, v, key))


@each
def test_R3_the_callers_random_numbers_and_volumes_are_untouched(make):
    x, v, prior = RamVolume(numbers((7, 6, 5))), RamVolume(numbers((7, 6, 5), 1)), make(Curved(), 2)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), x.tensor.clone(), v.tensor.clone()  # noqa: NPY002
    for step in range(3):
        prior.denoise(x, SIGMA, NoiseKey(0, step), RamSpace())
        prior.vjp(x, SIGMA, v, NoiseKey(0, step), RamSpace())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(x.tensor, before[2])
    assert torch.equal(v.tensor, before[3])
