"""Priors of slice groups: what the denoiser of a group does to a volume, and what it must not do."""

import numpy as np
import pytest
import torch

from volrecon.errors import ConfigError, DataError, DivergedError
from volrecon.priors import (
    CallableDenoiser,
    Conditions,
    Denoiser,
    GroupedPrior,
    NeighbourPrior,
    PatchPrior,
    SliceGroupPrior,
    prior_of,
)
from volrecon.priors.weights import TrainedPrior
from volrecon.sampling import NoiseKey
from volrecon.volume import RamSpace, RamVolume

SIGMA = 0.3


class Recorder(Denoiser):
    """Every slice on its own, sigma times x plus a slope; keeps what every call was told."""

    def __init__(self, slices: int = 3) -> None:
        self.slices = slices
        self.seen: list[tuple[torch.Tensor, float, Conditions]] = []

    def __call__(self, x, sigma, conditions):
        self.seen.append((x.clone(), sigma, conditions))
        return sigma * x - 2 * x.roll(1, -1)

    @property
    def gaps(self) -> set[float]:
        return {conditions.gap for _, _, conditions in self.seen}


class Averager(Denoiser):
    """Every slice becomes the mean of its group."""

    def __init__(self, slices: int) -> None:
        self.slices = slices

    def __call__(self, x, sigma, conditions):
        return x.mean(dim=1, keepdim=True).expand_as(x)


def volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def denoised(prior: GroupedPrior, x: torch.Tensor, step: int = 0) -> torch.Tensor:
    found = prior.denoise(RamVolume(x), SIGMA, NoiseKey(0, step), RamSpace())
    assert found.shape == tuple(x.shape)
    return found.read(0, len(x))


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 8, 9, 13])
@pytest.mark.parametrize("gaps", [(1,), (0,), (0, 1, 2, 3)])
@pytest.mark.parametrize("blending", ["mean", "last"])
def test_a_denoiser_of_single_slices_is_applied_to_every_slice(slices, gaps, blending):
    x = volume(slices, 4, 5)
    for step in range(5):
        found = denoised(SliceGroupPrior(Recorder(), gaps=gaps, blending=blending), x, step)
        torch.testing.assert_close(found, SIGMA * x - 2 * x.roll(1, -1), rtol=1e-5, atol=1e-6)


def test_overlaps_are_averaged_or_overwritten():
    """Four slices, groups of three: 0-2 and 1-3; what both hold is the mean of the two, or the later one's."""
    x = torch.tensor([0.0, 3.0, 6.0, 9.0])[:, None, None].expand(4, 2, 2).clone()
    assert denoised(SliceGroupPrior(Averager(3)), x)[:, 0, 0].tolist() == pytest.approx([3, 4.5, 4.5, 6])
    prior, last = SliceGroupPrior(Averager(3), blending="last"), set()
    for step in range(0, 24, 2):
        last.add(tuple(denoised(prior, x, step)[:, 0, 0].tolist()))
    assert last == {(3, 3, 3, 6), (3, 6, 6, 6)}  # the group that lies on the offset is written last


def test_neighbours_take_the_middle_of_the_group_around_each_slice():
    x = torch.tensor([0.0, 3.0, 9.0, 12.0])[:, None, None].expand(4, 2, 2).clone()
    D = Averager(3)
    assert denoised(NeighbourPrior(D), x)[:, 0, 0].tolist() == pytest.approx([1, 4, 8, 11])
    recorder = Recorder()
    denoised(NeighbourPrior(recorder, gaps=(0, 1, 3), spacing=1.5), x, 1)
    assert sum(len(tiles) for tiles, _, _ in recorder.seen) == 4
    assert recorder.gaps == {1.5}


def test_the_only_slice_is_its_own_neighbour():
    for gaps, told in [((0, 1), 0.0), ((1,), 1.0)]:
        recorder = Recorder()
        denoised(NeighbourPrior(recorder, gaps=gaps), volume(1, 2, 2))
        assert recorder.gaps == {told}
    with pytest.raises(ConfigError, match="need gap 1"):
        denoised(NeighbourPrior(Recorder(), gaps=(0, 2)), volume(3, 2, 2))


def test_the_network_is_told_gaps_in_pixels_and_sigma():
    D = Recorder()
    prior = SliceGroupPrior(D, gaps=(0, 1, 2, 3), spacing=1.5)
    told = []
    for step in range(4):
        D.seen.clear()
        denoised(prior, volume(13, 2, 2), step)
        told.append(D.gaps)
    assert told == [{1.5}, {3.0}, {1.5}, {4.5}]
    assert {sigma for _, sigma, _ in D.seen} == {SIGMA}


def test_the_key_alone_chooses_the_offset():
    prior = SliceGroupPrior(Recorder(), gaps=(1, 2))
    offsets = set()
    for seed in range(12):
        partition = prior.partition(20, NoiseKey(seed, 4))
        again = prior.partition(20, NoiseKey(seed, 4, purpose=99))
        assert partition.gap == 1
        assert np.array_equal(partition.groups, again.groups)
        offsets.add(int(partition.groups[1, 0]) % 3)
    assert offsets == {0, 1, 2}


# What a denoiser does wrong


def wrong(function) -> Denoiser:
    class Wrong(Denoiser):
        slices = 3

        def __call__(self, x, sigma, conditions):
            return function(x)

    return Wrong()


def one_bad(value: float):
    def function(x: torch.Tensor) -> torch.Tensor:
        y = 0.5 * x
        y[-1, -1, -1, -1] = value
        return y

    return function


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e20, -1e20])
@pytest.mark.parametrize("kind", [SliceGroupPrior, NeighbourPrior])
def test_N3_a_denoiser_that_leaves_the_numbers_stops(kind, value):
    prior = kind(wrong(one_bad(value)))
    prior.name = "ct"
    with pytest.raises(DivergedError, match=r"prior ct, step 7, sigma 0.3: .* values from .*check the weights"):
        denoised(prior, volume(5, 2, 2), 7)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: x[:, :1], r"\(3, 1, 2, 2\) torch.float32 of \(3, 3, 2, 2\) torch.float32"),
        (lambda x: x[..., :1], r"\(3, 3, 2, 1\) torch.float32"),
        (lambda x: x.double(), r"\(3, 3, 2, 2\) torch.float64"),
        (lambda x: x.bfloat16(), r"\(3, 3, 2, 2\) torch.bfloat16"),
    ],
)
def test_N3_a_denoiser_that_changes_shape_or_type_stops(function, told):
    with pytest.raises(DataError, match=rf"prior SliceGroupPrior, step 7, sigma 0.3: the denoiser makes {told}"):
        denoised(SliceGroupPrior(wrong(function)), volume(6, 2, 2), 7)


def test_N3_a_volume_that_was_not_finite_is_to_blame():
    x = volume(6, 2, 2)
    x[4, 1, 1] = torch.nan
    with pytest.raises(DivergedError, match="the volume it was given is not finite either"):
        denoised(SliceGroupPrior(Recorder()), x)


def test_N3_a_gradient_that_is_not_finite_stops():
    """The square root's slope at 0."""
    prior, x = SliceGroupPrior(wrong(torch.sqrt)), RamVolume(torch.zeros(4, 2, 2))
    with pytest.raises(DivergedError, match="step 2"):
        prior.vjp(x, SIGMA, RamVolume(torch.ones(4, 2, 2)), NoiseKey(0, 2), RamSpace())


@pytest.mark.parametrize("function", [torch.no_grad()(lambda x: 2 * x), torch.zeros_like])
def test_a_denoiser_without_a_gradient_is_refused(function):
    x = RamVolume(volume(4, 2, 2))
    prior = SliceGroupPrior(wrong(function))
    prior.denoise(x, SIGMA, NoiseKey(0), RamSpace())
    with pytest.raises(ConfigError, match=r"SliceGroupPrior: its denoiser \(Wrong\) has no gradient"):
        prior.vjp(x, SIGMA, x, NoiseKey(0), RamSpace())


# How much is held at once


class Affine(Denoiser):
    """A trainable scale, and how many groups and graphs it saw."""

    slices = 3

    def __init__(self) -> None:
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.seen: list[tuple[int, bool]] = []

    def __call__(self, x, sigma, conditions):
        self.seen.append((len(x), torch.is_grad_enabled()))
        return self.scale * x


@pytest.mark.parametrize("kind", [SliceGroupPrior, NeighbourPrior])
def test_no_more_than_a_batch_goes_through_the_network(kind):
    D, x = Affine(), RamVolume(volume(20, 2, 3))
    with torch.enable_grad():
        found = kind(D, batch=2).denoise(x, SIGMA, NoiseKey(0), RamSpace())
    assert not found.read(0, 20).requires_grad
    assert {(groups <= 2, graph) for groups, graph in D.seen} == {(True, False)}
    D.seen.clear()
    with torch.no_grad():
        kind(D, batch=2).vjp(x, SIGMA, x, NoiseKey(0), RamSpace())
    assert {(groups <= 2, graph) for groups, graph in D.seen} == {(True, True)}
    assert D.scale.grad is None


# Made from weights


@pytest.mark.parametrize("changes", [{"batch": 0}, {"spacing": 0.0}, {"spacing": float("nan")}, {"gaps": ()}])
def test_impossible_priors_are_refused(changes):
    with pytest.raises(ConfigError, match="need a distance above 0"):
        SliceGroupPrior(Recorder(), **changes)


def test_prior_of_takes_what_the_card_says(card):
    denoiser = CallableDenoiser(lambda v, s: v, slices=3)
    groups = prior_of(TrainedPrior(denoiser, card(), ""), spacing=2.0, batch=7)
    assert isinstance(groups, SliceGroupPrior)
    assert (groups.spacing, groups.batch, groups.gaps, groups.name) == (2.0, 7, card().gaps, "tiny")
    patches = prior_of(TrainedPrior(denoiser, card(patch=8), ""), spacing=2.0)
    assert isinstance(patches, PatchPrior)
    assert (patches.spacing, patches.patch, patches.gaps) == (2.0, 8, card().gaps)


def test_prior_of_leaves_out_gaps_but_invents_none(card):
    trained = TrainedPrior(CallableDenoiser(lambda v, s: v, slices=3), card(), "")
    assert prior_of(trained, gaps=(1,)).gaps == (1,)
    with pytest.raises(ConfigError, match=r"trained with gaps \(0, 1, 2\); gaps \(1, 3\) are asked for"):
        prior_of(trained, gaps=(1, 3))
