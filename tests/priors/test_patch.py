"""Patch priors of whole volumes: what the patches' denoiser does, whatever the shift, batch, slab height and tier."""

import numpy as np
import pytest
import torch

from volrecon.errors import ConfigError
from volrecon.priors import Conditions, Denoiser, GroupedPrior, PatchPrior
from volrecon.sampling import NoiseKey
from volrecon.store import ZarrSpace
from volrecon.tiling import MODES, PatchGrid
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


def volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def denoised(prior: GroupedPrior, x: torch.Tensor, step: int = 0, space=None, seed: int = 0) -> torch.Tensor:
    space = space or RamSpace()
    found = prior.denoise(space.of(RamVolume(x.clone())), SIGMA, NoiseKey(seed, step), space)
    assert found.shape == tuple(x.shape)
    return found.read(0, len(x)).clone()


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
        shifts.add(prior.shift(grid, NoiseKey(0, step), 0))
    assert len(shifts) > 1


def test_all_shifts_are_drawn_and_none_beyond_the_padding():
    """From step to step and from group to group."""
    grid, prior = PatchGrid((6, 5), 4), PatchPrior(PatchRecorder(), 4)
    assert grid.padding == (2, 3)
    every = {(row, column) for row in range(2) for column in range(3)}
    assert {prior.shift(grid, NoiseKey(1, step), 0) for step in range(80)} == every
    assert {prior.shift(grid, NoiseKey(1, 0), number) for number in range(80)} == every
    assert prior.shift(grid, NoiseKey(1, 3), 7) == prior.shift(grid, NoiseKey(1, 3, purpose=9), 7)


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


# Modes


class Convolved(Denoiser):
    """A pixel takes something of its neighbours in the patch and of its place."""

    slices, positions = 2, True
    kernel = torch.tensor([[0.1, 0.2, -0.1], [0.3, 0.9, 0.1], [-0.2, 0.1, 0.4]]).expand(2, 2, 3, 3)

    def __init__(self) -> None:
        self.scale = torch.nn.Parameter(torch.tensor(0.8))
        self.under_way = []

    def __call__(self, x, sigma, conditions):
        self.under_way.append((len(x), x.requires_grad))
        y, across = conditions.position.unbind(1)
        seen = torch.tanh(torch.nn.functional.conv2d(x, self.kernel, padding=1) + y[:, None])
        return self.scale * seen + sigma * x * across[:, None] + conditions.gap


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 4, 4), (2, 3, 13)])
def test_patches_of_every_mode_make_the_slice(mode, shape):
    x = volume(*shape)
    prior = PatchPrior(PatchRecorder(), 4, mode=mode, overlap=2)
    torch.testing.assert_close(denoised(prior, x), SIGMA * x + 1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("patch_batch", [1, 4, 64])
def test_vjp_is_that_of_the_whole_graph_and_no_graph_is_larger_than_a_batch(mode, patch_batch):
    D = Convolved()
    prior = PatchPrior(D, 5, mode=mode, overlap=2, gaps=(1,), patch_batch=patch_batch)
    tiles, v, key = volume(3, 2, 11, 8), volume(3, 2, 11, 8, seed=1), NoiseKey(5, 2)
    inputs = tiles.clone().requires_grad_()
    whole = prior.denoise_groups(inputs, SIGMA, 1.5, key, range(3))
    (expected,) = torch.autograd.grad(whole, inputs, v)
    D.under_way.clear()
    found = prior.groups_vjp(tiles, SIGMA, 1.5, key, v, range(3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert {graph for _, graph in D.under_way} == {True}
    assert max(count for count, _ in D.under_way) <= patch_batch
    assert D.scale.grad is None
    assert not found.requires_grad


def test_a_mode_is_what_the_name_says():
    """A denoiser that writes down which call a patch came from."""

    class Number(Denoiser):
        slices, positions, calls = 1, False, 0

        def __call__(self, x, sigma, conditions):
            assert conditions.position is None
            self.calls += 1
            return torch.full_like(x, self.calls)

    def found(mode):
        return denoised(PatchPrior(Number(), 4, mode=mode, overlap=2, patch_batch=1), torch.zeros(1, 6, 6))[0]

    assert found("whole").unique().tolist() == [1]
    assert (
        found("average").tolist()
        == [[1, 1, 1.5, 1.5, 2, 2]] * 2 + [[2, 2, 2.5, 2.5, 3, 3]] * 2 + [[3, 3, 3.5, 3.5, 4, 4]] * 2
    )
    assert found("stitch").tolist() == [[1, 1, 2, 2, 2, 2]] * 2 + [[3, 3, 4, 4, 4, 4]] * 4
    assert len(found("padis").unique()) == 4


def test_groups_of_one_step_are_shifted_each_on_its_own():
    D, tiles, key = Convolved(), volume(1, 2, 12, 12).expand(8, -1, -1, -1), NoiseKey(0)
    prior = PatchPrior(D, 5, gaps=(1,))
    together = prior.denoise_groups(tiles, SIGMA, 1.0, key, range(8))
    assert len({tuple(one.flatten().tolist()) for one in together.detach()}) > 4
    for number in range(8):
        alone = prior.denoise_groups(tiles[:1], SIGMA, 1.0, key, [number])
        torch.testing.assert_close(alone[0], together[number])


def test_impossible_patches_are_refused_at_once():
    for wrong, message in [
        ({"mode": "mosaic"}, "'mosaic'"),
        ({"mode": "average", "overlap": 4}, "0 to 3"),
        ({"patch_batch": 0}, "0 at once"),
        ({"patch": 0}, "at least 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            PatchPrior(PatchRecorder(), **{"patch": 4, **wrong})


def test_a_denoiser_without_a_gradient_is_refused():
    class Blind(PatchRecorder):
        def __call__(self, x, sigma, conditions):
            return x.detach() + 1

    with pytest.raises(ConfigError, match="no gradient"):
        PatchPrior(Blind(), 4).groups_vjp(volume(1, 3, 6, 6), SIGMA, 0, NoiseKey(0), volume(1, 3, 6, 6), [0])
