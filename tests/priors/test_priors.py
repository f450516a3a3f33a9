"""Priors of whole volumes: what the tiles' denoiser does, whatever the partition, batch, slab height and tier."""

import numpy as np
import pytest
import torch

from volrecon.priors import (
    CallableDenoiser,
    Conditions,
    Denoiser,
    GroupedPrior,
    PatchPrior,
    SliceGroupPrior,
    prior_of,
)
from volrecon.priors.weights import TrainedPrior
from volrecon.sampling import NoiseKey
from volrecon.store import ZarrSpace
from volrecon.tiling import PatchGrid
from volrecon.volume import RamSpace, RamVolume

SIGMA = 0.3


class Recorder(Denoiser):
    """Every slice on its own, sigma times x plus a slope; keeps the conditions of every call."""

    def __init__(self, slices: int = 3, positions: bool = False) -> None:
        self.slices, self.positions = slices, positions
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


def denoised(prior: GroupedPrior, x: torch.Tensor, step: int = 0, space=None, seed: int = 0) -> torch.Tensor:
    space = space or RamSpace()
    found = prior.denoise(space.of(RamVolume(x.clone())), SIGMA, NoiseKey(seed, step), space)
    assert found.shape == tuple(x.shape)
    return found.read(0, len(x)).clone()


def directly(x: torch.Tensor) -> torch.Tensor:
    return SIGMA * x - 2 * x.roll(1, -1)


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 8, 9, 13])
@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("gaps", [(1,), (0,), (0, 1, 2, 3)])
def test_a_denoiser_of_single_slices_is_applied_to_every_slice(slices, step, gaps):
    x = volume(slices, 4, 5)
    found = denoised(SliceGroupPrior(Recorder(), gaps=gaps), x, step)
    torch.testing.assert_close(found, directly(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [0, 1])
def test_R2_batch_slab_height_and_tier_change_nothing(step, tmp_path):
    x = volume(19, 4, 6)

    def found(batch, space):
        return denoised(SliceGroupPrior(Recorder(), gaps=(1, 3), batch=batch), x, step, space)

    whole = found(4, RamSpace())
    torch.testing.assert_close(whole, directly(x), rtol=1e-5, atol=1e-6)
    for batch in (1, 3, 8):
        assert torch.equal(found(batch, RamSpace(block_bytes=1)), whole)
        with ZarrSpace(tmp_path, block_bytes=1) as space:
            assert torch.equal(found(batch, space), whole)


@pytest.mark.parametrize("slices", [1, 2, 5, 7, 12, 20])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_overlap_weights_sum_to_one(slices, k):
    """A denoiser that mixes its slices leaves a constant volume alone, at every step."""
    x = torch.full((slices, 3, 4), 0.7)
    for step in range(6):
        for gaps in [(1,), (0, 1, 2), (0,)]:
            found = denoised(SliceGroupPrior(Averager(k), gaps=gaps), x, step)
            torch.testing.assert_close(found, x, rtol=1e-6, atol=0)


def test_overlaps_are_averaged():
    """Four slices, groups of three: 0-2 and 1-3; what both hold is the mean of the two."""
    x = torch.tensor([0.0, 3.0, 6.0, 9.0])[:, None, None].expand(4, 2, 2).clone()
    found = denoised(SliceGroupPrior(Averager(3)), x)
    assert found[:, 0, 0].tolist() == pytest.approx([3, 4.5, 4.5, 6])


def test_x_is_left_alone():
    x = RamVolume(volume(5, 3, 3))
    before = x.tensor.clone()
    SliceGroupPrior(Recorder()).denoise(x, SIGMA, NoiseKey(0), RamSpace())
    assert torch.equal(x.tensor, before)


def test_adjacent_and_jump_groups_take_turns():
    """Even steps gap 1; odd steps each of the larger gaps in turn; told in pixels, gap times spacing."""
    D = Recorder()
    prior = SliceGroupPrior(D, gaps=(0, 1, 2, 3), spacing=1.5)
    told = []
    for step in range(8):
        D.seen.clear()
        denoised(prior, volume(13, 2, 2), step)
        told.append(sorted(D.gaps))
    assert told == [[1.5], [3.0], [1.5], [4.5], [1.5], [3.0], [1.5], [4.5]]
    assert prior.partition(13, NoiseKey(0, 1))[0][0].tolist() == [0, 2, 4]
    assert prior.partition(13, NoiseKey(0, 3))[0][0].tolist() == [0, 3, 6]


def test_a_network_that_knows_only_jumps_gets_only_jumps():
    D = Recorder()
    for step in range(4):
        denoised(SliceGroupPrior(D, gaps=(0, 2)), volume(7, 2, 2), step)
    assert D.gaps == {2.0}


@pytest.mark.parametrize(("slices", "gaps"), [(5, {1.0}), (6, {2.0}), (8, {2.0}), (9, {2.0, 3.0})])
def test_jumps_wait_for_enough_slices(slices, gaps):
    D = Recorder()
    for step in (1, 3):
        denoised(SliceGroupPrior(D, gaps=(1, 2, 3)), volume(slices, 2, 2), step)
    assert D.gaps == gaps


@pytest.mark.parametrize(("slices", "gaps"), [(7, (0,)), (1, (0, 1, 2)), (1, (0,))])
def test_gap_0_repeats_one_slice(slices, gaps):
    D, x = Recorder(), volume(slices, 2, 3)
    denoised(SliceGroupPrior(D, gaps=gaps), x, 1)
    assert D.gaps == {0.0}
    tiles = torch.cat([tiles for tiles, _, _ in D.seen])
    assert torch.equal(tiles, x[:, None].expand(-1, 3, -1, -1))


def test_the_key_alone_chooses_the_partition():
    prior = SliceGroupPrior(Recorder(), gaps=(1, 2))
    offsets = set()
    for seed in range(12):
        groups, gap = prior.partition(20, NoiseKey(seed, 4))
        again, _ = prior.partition(20, NoiseKey(seed, 4, purpose=99))
        assert gap == 1
        assert np.array_equal(groups, again)
        offsets.add(int(groups[1, 0]) % 3)
    assert offsets == {0, 1, 2}


def test_sigma_is_passed_on():
    D = Recorder()
    denoised(SliceGroupPrior(D), volume(4, 2, 2))
    assert {sigma for _, sigma, _ in D.seen} == {SIGMA}


# Patches


class PatchRecorder(Recorder):
    """Every pixel on its own; neighbours in a patch are not those in the slice."""

    def __init__(self, slices: int = 3) -> None:
        super().__init__(slices, positions=True)

    def __call__(self, x, sigma, conditions):
        self.seen.append((x.clone(), sigma, conditions))
        return sigma * x + 1


class Where(Denoiser):
    """Writes the positions it is told into the first two slices."""

    slices, positions = 2, True

    def __call__(self, x, sigma, conditions):
        return conditions.position.clone()


@pytest.mark.parametrize("shape", [(1, 9, 7), (2, 4, 4), (5, 16, 5), (7, 3, 3)])
@pytest.mark.parametrize("gaps", [(0,), (1, 2)])
def test_patches_of_a_pixelwise_denoiser_make_the_slice(shape, gaps):
    x = volume(*shape)
    for step in range(4):
        found = denoised(PatchPrior(PatchRecorder(), 4, gaps=gaps), x, step)
        torch.testing.assert_close(found, SIGMA * x + 1, rtol=1e-5, atol=1e-6)


def test_R2_patch_batch_slab_height_and_tier_change_nothing(tmp_path):
    x = volume(5, 9, 11)

    def found(patch_batch, space):
        return denoised(PatchPrior(PatchRecorder(), 4, gaps=(1,), patch_batch=patch_batch), x, 2, space)

    whole = found(64, RamSpace())
    for patch_batch in (1, 3, 8):
        assert torch.equal(found(patch_batch, RamSpace(block_bytes=1)), whole)
    with ZarrSpace(tmp_path, block_bytes=9 * 11 * 4) as space:
        assert torch.equal(found(3, space), whole)


def test_every_pixel_is_told_where_it_is_in_the_padded_slice():
    grid = PatchGrid((9, 7), 4)
    rows, columns = (
        whole[margin : margin + n] for whole, margin, n in zip(grid.positions, grid.padding, grid.shape, strict=True)
    )
    prior, shifts = PatchPrior(Where(), 4, gaps=(1,), patch_batch=3), set()
    for step in range(6):
        found = denoised(prior, volume(2, 9, 7), step)
        np.testing.assert_array_equal(found[0], np.broadcast_to(rows[:, None], (9, 7)))
        np.testing.assert_array_equal(found[1], np.broadcast_to(columns[None], (9, 7)))
        shifts.add(prior.shift(grid, NoiseKey(0, step)))
    assert len(shifts) > 1


def test_all_shifts_are_drawn_and_none_beyond_the_padding():
    grid, prior = PatchGrid((6, 5), 4), PatchPrior(PatchRecorder(), 4)
    drawn = {prior.shift(grid, NoiseKey(1, step)) for step in range(80)}
    assert grid.padding == (2, 3)
    assert drawn == {(row, column) for row in range(2) for column in range(3)}


def test_constants_stay_and_nothing_comes_from_beside_the_slice():
    class Same(PatchRecorder):
        def __call__(self, x, sigma, conditions):
            super().__call__(x, sigma, conditions)
            return x.clone()

    D, x = Same(), torch.full((3, 6, 5), 0.7)
    for step in range(4):
        assert torch.equal(denoised(PatchPrior(D, 4, gaps=(1,)), x, step), x)
    for tiles, _, conditions in D.seen:
        y, across = (conditions.position * (torch.tensor([10, 11]) - 1)[:, None, None] / 2).unbind(1)
        beside = (y.abs() > 6 / 2) | (across.abs() > 5 / 2)
        assert torch.equal(tiles == 0, beside[:, None].expand_as(tiles))


def test_what_a_denoiser_makes_beside_the_slice_is_dropped():
    class Loud(PatchRecorder):
        def __call__(self, x, sigma, conditions):
            return torch.where(x == 0, torch.full_like(x, 1e6), x)

    x = torch.full((2, 6, 5), 0.7)
    assert torch.equal(denoised(PatchPrior(Loud(), 4, gaps=(1,)), x), x)


# Made from weights


def test_prior_of_takes_what_the_card_says(card):
    denoiser = CallableDenoiser(lambda v, s: v, slices=3)
    groups = prior_of(TrainedPrior(denoiser, card(), ""), spacing=2.0, batch=7)
    assert isinstance(groups, SliceGroupPrior)
    assert (groups.spacing, groups.batch, groups.gaps) == (2.0, 7, card().gaps)
    patches = prior_of(TrainedPrior(denoiser, card(patch=8), ""), spacing=2.0)
    assert isinstance(patches, PatchPrior)
    assert (patches.spacing, patches.patch, patches.gaps) == (2.0, 8, card().gaps)
