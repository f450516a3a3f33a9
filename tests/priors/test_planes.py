"""Perpendicular planes: which steps they take, that transposition is all they add, and which grids they refuse."""

import re
import warnings

import numpy as np
import pytest
import torch

from volrecon.errors import ConfigError, DivergedError, PriorWarning
from volrecon.geometry import VolumeGeometry
from volrecon.priors import Denoiser, PlanesPrior, Prior, SliceGroupPrior, check_planes, stacked
from volrecon.sampling import NoiseKey
from volrecon.volume import RamSpace, RamVolume

SIGMA, SHAPE = 0.3, (5, 7, 6)


class Slope(Denoiser):
    """Differences along the columns of every slice: what it does depends on how a plane lies."""

    slices = 3

    def __call__(self, x, sigma, conditions):
        return sigma * x - 2 * x.roll(1, -1)


class Noting(SliceGroupPrior):
    """Remembers the shape and key of every call."""

    def __init__(self, denoiser: Denoiser, **options) -> None:
        super().__init__(denoiser, **options)
        self.seen: list[tuple[tuple[int, ...], int]] = []

    def denoise(self, x, sigma, key, space):
        self.seen.append((x.shape, key.step))
        return super().denoise(x, sigma, key, space)


class Scale(Denoiser):
    slices = 3

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, x, sigma, conditions):
        return self.by * x


def volume(shape=SHAPE) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def denoised(prior: Prior, x: torch.Tensor, step: int = 0, seed: int = 0) -> torch.Tensor:
    return prior.denoise(RamVolume(x), SIGMA, NoiseKey(seed, step), RamSpace()).read(0, len(x))


def planes(**options) -> PlanesPrior:
    return PlanesPrior(Noting(Scale(2.0)), Noting(Scale(3.0)), **options)


def auxiliary(prior: PlanesPrior, steps: int, seed: int = 0) -> list[int]:
    x = torch.ones(1, 1, 1)
    return [step for step in range(steps) if denoised(prior, x, step, seed) == 3]


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3.0, [2, 5]), (7, [])])
def test_a_whole_number_takes_every_kth_step(every, steps):
    assert auxiliary(planes(every=every), 6) == steps


@pytest.mark.parametrize("every", [1.5, 2.7, 10.5])
def test_another_number_is_one_over_a_probability(every):
    prior = planes(every=every)
    turns = np.array([[prior.turn(NoiseKey(seed, step))[0] for step in range(400)] for seed in range(10)])
    assert turns.mean() == pytest.approx(1 / every, abs=4 * np.sqrt((1 - 1 / every) / every / turns.size))
    assert not (turns[0] == turns[1]).all()
    assert [prior.turn(NoiseKey(3, step))[0] for step in range(400)] == turns[3].tolist()


def test_nested_directions_are_drawn_independently():
    outer, inner = planes(every=2.5, normal="x"), planes(every=2.5, normal="y")
    turns = [[prior.turn(NoiseKey(1, step))[0] for step in range(2000)] for prior in (outer, inner)]
    assert np.corrcoef(turns)[0, 1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("every", [2, 3, 4])
def test_each_prior_counts_its_own_steps_where_turns_are_regular(every):
    """Or the planes that come at odd steps would only meet jump groups."""
    prior = planes(every=every)
    for step in range(12):
        denoised(prior, volume(), step)
    for part in (prior.axial, prior.perpendicular):
        assert [step for _, step in part.seen] == list(range(len(part.seen)))
    assert len(prior.axial.seen) + len(prior.perpendicular.seen) == 12
    assert {shape for shape, _ in prior.perpendicular.seen} == {(7, 5, 6)}


@pytest.mark.parametrize(("normal", "axes"), [("y", (1, 0, 2)), ("x", (2, 0, 1))])
@pytest.mark.parametrize("shape", [SHAPE, (1, 4, 5), (4, 1, 5), (4, 5, 1)])
def test_planes_are_denoised_as_slices_of_the_transposed_volume(normal, axes, shape):
    x, perpendicular = volume(shape), SliceGroupPrior(Slope(), gaps=(1, 2))
    prior = PlanesPrior(SliceGroupPrior(Scale(0.0)), perpendicular, every=1, normal=normal)
    for step in range(3):
        turned = denoised(perpendicular, x.permute(axes).contiguous(), step)
        assert torch.equal(denoised(prior, x, step).permute(axes), turned)


def test_three_directions_by_nesting():
    axial = PlanesPrior(SliceGroupPrior(Scale(2.0)), SliceGroupPrior(Scale(3.0)), normal="y")
    prior = PlanesPrior(axial, SliceGroupPrior(Scale(5.0)), every=3, normal="x")
    assert [float(denoised(prior, torch.ones(1, 1, 1), step)) for step in range(6)] == [2, 3, 5, 2, 3, 5]


class Spied(RamSpace):
    """Knows which of its volumes were not released."""

    def __init__(self) -> None:
        super().__init__(block_bytes=1)
        self.held: list[RamVolume] = []

    def empty(self, shape):
        space = self

        class Watched(RamVolume):
            def release(self):
                space.held.remove(self)

        self.held.append(Watched(torch.empty(shape)))
        return self.held[-1]


@pytest.mark.parametrize("step", [0, 1])
def test_what_is_no_longer_needed_is_given_back(step):
    x, space, prior = RamVolume(volume((20, 18, 4))), Spied(), PlanesPrior(Noting(Slope()), Noting(Slope()))
    assert space.held == [prior.denoise(x, SIGMA, NoiseKey(0, step), space)]
    space.held.clear()
    assert space.held == [prior.vjp(x, SIGMA, x, NoiseKey(0, step), space)]


def test_N3_the_step_of_the_run_is_named():
    prior = PlanesPrior(SliceGroupPrior(Scale(1.0)), SliceGroupPrior(Scale(1e20)))
    with pytest.raises(DivergedError, match=r"^step 5, perpendicular planes .*: prior SliceGroupPrior, step 2, sigma"):
        denoised(prior, volume(), 5)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"every": 0.5}, "at least 1"), ({"every": float("nan")}, "at least 1"), ({"normal": "z"}, "not 'z'")],
)
def test_impossible_turns_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        planes(**options)


# Which grids: the card of these tests knows pixels of 1.5 to 4 mm.


def test_the_grid_that_planes_see():
    grid = VolumeGeometry((10, 20, 30), (3.0, 2.0, 1.0))
    assert (stacked(grid, "y").shape, stacked(grid, "y").voxel_zyx_mm) == ((20, 10, 30), (2.0, 3.0, 1.0))
    assert (stacked(grid, "x").shape, stacked(grid, "x").voxel_zyx_mm) == ((30, 10, 20), (1.0, 3.0, 2.0))


@pytest.mark.parametrize("normal", ["y", "x"])
@pytest.mark.parametrize("voxel", [(2.0, 2.0, 2.0), (4.0, 2.0, 2.0), (1.5, 3.0, 3.0)])
def test_pixels_inside_the_trained_range(card, normal, voxel):
    with warnings.catch_warnings(action="error"):
        check_planes(card(gaps=(1,), gap_pixels=(0.3, 3.0)), VolumeGeometry((4, 4, 4), voxel), normal)


def test_slices_too_far_apart_are_refused_with_the_numbers(card):
    grid = VolumeGeometry((4, 4, 4), (5.0, 1.5, 1.5))
    told = "planes along x have pixels of 5 x 1.5 mm, one side 3.33 times the other; prior tiny was trained on pixels"
    with pytest.raises(ConfigError, match=re.escape(f"{told} of 1.5 to 4 mm, a ratio of 2.67. Choose slices")):
        check_planes(card(), grid, "x")
    with pytest.warns(PriorWarning) as warned:
        check_planes(card(), grid, "x", force=True)
    assert str(warned[0].message).startswith(told)


def test_the_rules_for_pixel_sizes_hold_for_planes_too(card):
    known, grid = card(voxel_mm=(1.0, 4.0), gap_pixels=(0.3, 3.0)), VolumeGeometry((4, 4, 4), (5.0, 1.5, 1.5))
    with pytest.warns(PriorWarning, match=r"the grid has 1\.5 to 5 mm, 1\.25 times outside"):
        check_planes(known, grid, "y")
    with pytest.raises(ConfigError, match=r"2\.50 times outside"):
        check_planes(known, VolumeGeometry((4, 4, 4), (10.0, 10.0, 10.0)), "y")
