"""Batches are functions of (seed, step, rank); what they say of a sample is what its values show."""

import hashlib
import random

import numpy as np
import pytest
import torch
from trials import decoded, planted, training

from volrecon.errors import IntegrityError
from volrecon.tiling import PatchGrid
from volrecon.training.batches import Batch, Draw, batches, draw_sigma, training_batch
from volrecon.training.config import NoiseLevels
from volrecon.training.prepare import Level


def draw_of(level=None, **changes):
    return Draw((level or planted(),), training(**changes))


def samples(draw, steps):
    """All samples of some steps: (clean, noise, sigma, gap, position or None), numpy."""
    for step in range(steps):
        batch = training_batch(draw, step)
        for k in range(len(batch.clean)):
            position = None if batch.position is None else batch.position[k].numpy()
            yield batch.clean[k].numpy(), batch.noise[k].numpy(), float(batch.sigma[k]), float(batch.gap[k]), position


def digest(batch: Batch) -> str:
    parts = [batch.clean, batch.noise, batch.sigma, batch.gap]
    parts += [] if batch.position is None else [batch.position]
    return hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()


def digests(draw, first, last, workers, rank=0):
    return [digest(batch) for batch in batches(draw, first, last, workers, rank)]


@pytest.mark.parametrize("padded", [False, True])
def test_a_batch_is_a_function_of_seed_step_and_rank(prepared, padded):
    draw = Draw(prepared.training, training(patches={"padded": padded}))
    all_of = digests(draw, 0, 8, 0)
    assert len(set(all_of)) == 8
    assert digests(draw, 0, 8, 0) == all_of
    assert digests(draw, 5, 8, 0) == all_of[5:]
    assert digest(training_batch(draw, 3)) == all_of[3]


def test_loader_processes_change_nothing(prepared):
    draw = Draw(prepared.training, training())
    assert digests(draw, 2, 8, 2) == digests(draw, 2, 8, 0)


def test_another_seed_or_rank_is_another_batch_of_the_same_size(prepared):
    one, other = (Draw(prepared.training, training(seed=seed)) for seed in (1, 2))
    assert not set(digests(one, 0, 6, 0)) & set(digests(other, 0, 6, 0))
    assert not set(digests(one, 0, 6, 0, rank=0)) & set(digests(one, 0, 6, 0, rank=1))
    for step in range(6):
        assert training_batch(one, step, 0).clean.shape == training_batch(one, step, 1).clean.shape


@pytest.mark.parametrize("workers", [0, 1])
def test_the_caller_s_random_numbers_are_untouched(prepared, workers):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    drawn = batches(Draw(prepared.training, training()), 0, 3, workers)
    next(drawn)
    drawn.close()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.manual_seed(5)
    assert digests(Draw(prepared.training, training()), 0, 2, workers) == digests(
        Draw(prepared.training, training()), 0, 2, 0
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_data_end_it_with_a_sentence(workers):
    class Damaged(np.ndarray):
        def __getitem__(self, key):
            raise IntegrityError("0000: damaged chunks c/3/0/0")

    level = planted()
    broken = Level(level.array.view(Damaged), level.spacing, level.voxel_mm, level.boxes, 1.0)
    with pytest.raises(IntegrityError) as caught:
        next(batches(draw_of(broken), 0, 5, workers))
    assert str(caught.value) == "0000: damaged chunks c/3/0/0"


def test_shapes(prepared):
    for padded in (False, True):
        draw = Draw(prepared.training, training(patches={"padded": padded, "pixels": 600}))
        seen = set()
        for step in range(12):
            batch = training_batch(draw, step)
            count, slices, size, across = batch.clean.shape
            seen.add((count, size))
            assert (slices, size) == (3, across)
            assert batch.noise.shape == batch.clean.shape
            assert batch.sigma.shape == batch.gap.shape == (count,)
            assert (batch.position is None) is (not padded)
            if batch.position is not None:
                assert batch.position.shape == (count, 2, size, size)
            for part in (batch.clean, batch.noise, batch.sigma, batch.gap):
                assert part.dtype == torch.float32
        assert seen == {(600 // 64, 8), (600 // 256, 16)}


def test_sizes_come_with_their_probabilities():
    draw = draw_of(patches={"sizes": [2, 3, 4], "probabilities": [2.0, 3.0, 5.0], "pixels": 1})
    sizes = [training_batch(draw, step).clean.shape[-1] for step in range(1500)]
    counts = np.array([sizes.count(size) for size in (2, 3, 4)])
    expected = 1500 * np.array([0.2, 0.3, 0.5])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # 1 in 1000 for two degrees of freedom


def test_levels_come_with_their_shares():
    levels = tuple(Level(np.full((3, 8, 8), value, np.float32), 1.0, 2.0, np.tile([0, 8, 0, 8], (3, 1)), share)
                   for value, share in ((1.0, 1.0), (2.0, 3.0)))  # fmt: skip
    draw = Draw(levels, training(patches={"sizes": [8], "probabilities": [1.0], "pixels": 64 * 400}))
    batch = training_batch(draw, 0)
    assert len(batch.clean) == 400
    assert float((batch.clean[:, 0, 0, 0] == 2).float().mean()) == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(("slices", "gaps"), [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2])])
def test_the_gap_is_that_of_the_slices(slices, gaps):
    groups = {"slices": slices, "gaps": gaps, "weights": [1.0, 1.0, 2.0][: len(gaps)]}
    draw = draw_of(groups=groups, patches={"pixels": 2048})
    seen = []
    for clean, noise, _, gap, _ in samples(draw, 12):
        z, y, x = decoded(clean)
        assert all(len(np.unique(plane)) == 1 for plane in z)
        steps = np.diff(z[:, 0, 0])
        if slices > 1:
            assert len(set(steps)) == 1
            assert gap == pytest.approx(abs(steps[0]) * 1.5)
        assert (y == y[0]).all()
        assert (x == x[0]).all()
        same = all(np.array_equal(plane, clean[0]) for plane in clean)
        assert same == (gap == 0)
        assert all(np.array_equal(plane, noise[0]) for plane in noise) == same
        seen.append(gap)
    assert set(seen) == ({0.0} if slices == 1 else {0.0, 1.5, 3.0})
    if slices > 1:
        assert seen.count(3.0) / len(seen) == pytest.approx(0.5, abs=0.12)


def test_gaps_fit_thin_volumes():
    thin = {gap for _, _, _, gap, _ in samples(draw_of(planted(depth=3, spacing=1.0)), 8)}
    assert thin == {0.0, 1.0}
    for clean, noise, _, gap, _ in samples(draw_of(planted(depth=1), groups={"gaps": [1], "weights": [1.0]}), 2):
        assert gap == 0
        assert np.array_equal(clean[0], clean[2])
        assert np.array_equal(noise[0], noise[2])


def test_the_middle_slice_shows_a_body_where_one_does():
    boxes = np.zeros((9, 4), int)
    boxes[4] = [10, 30, 10, 40]
    for clean, _, _, _, _ in samples(draw_of(planted(boxes=boxes)), 8):
        assert (decoded(clean[1][clean[1] > 0])[0] == 4).all()
    for clean, _, _, gap, _ in samples(draw_of(planted(boxes=np.zeros((9, 4), int))), 3):
        assert clean.max() > 0  # no body anywhere: any slice
        assert gap in (0.0, 1.5, 3.0)


def test_patches_of_the_body_have_their_centre_in_it():
    boxes = np.tile([18, 22, 24, 30], (9, 1))
    sizes = {"sizes": [8], "probabilities": [1.0]}
    for clean, _, _, _, _ in samples(draw_of(planted(boxes=boxes), patches={**sizes, "body": 1.0}), 10):
        _, y, x = decoded(clean[1])
        # After mirroring, the centre is one of the four pixels in the middle.
        assert any(18 <= y[r, c] < 22 and 24 <= x[r, c] < 30 for r in (3, 4) for c in (3, 4))
    anywhere = list(samples(draw_of(planted(boxes=boxes), patches={**sizes, "body": 0.0}), 120))
    _, y, x = decoded(np.stack([clean[1] for clean, *_ in anywhere]))
    assert (y.min(), y.max(), x.min(), x.max()) == (0, 39, 0, 49)


@pytest.mark.parametrize("shape", [(40, 50), (16, 33), (5, 20)])
def test_positions_are_those_of_the_values_in_the_padded_slice(shape):
    """Also of mirrored patches: the network must never see one side's anatomy at the other side's place."""
    level = planted(rows=shape[0], columns=shape[1])
    grid = PatchGrid(shape, 16)
    down, across = grid.positions
    mirrored, beside = set(), 0
    for clean, noise, _, _, position in samples(draw_of(level, patches={"padded": True, "body": 0.3}), 30):
        inside = clean[1] > 0
        assert (noise[:, ~inside] == 0).all()
        assert (noise[:, inside] != 0).all()
        _, y, x = decoded(clean[1][inside])
        np.testing.assert_allclose(position[0][inside], down[y + grid.padding[0]], atol=1e-6)
        if np.unique(x).size > 1:
            sign = np.sign(x[1] - x[0])
            np.testing.assert_allclose(position[1][inside], sign * across[x + grid.padding[1]], atol=1e-6)
            mirrored.add(int(sign))
        limit = np.abs(position) - np.array([down[-1 - grid.padding[0]], across[-1 - grid.padding[1]]])[:, None, None]
        assert (limit.max(axis=0)[~inside] > 0).all()
        assert (np.diff(position[0], axis=0) > 0).all()
        assert (np.diff(position[1], axis=1) > 0).all()
        beside += (~inside).sum()
    assert mirrored == {-1, 1}
    assert beside > 0


def test_padded_patches_reach_all_of_the_padding():
    level = planted(rows=20, columns=20)
    grid = PatchGrid((20, 20), 16)
    seen = [p for *_, p in samples(draw_of(level, patches={"padded": True, "body": 0.0, "sizes": [16],
                                                          "probabilities": [1.0], "pixels": 2560}), 40)]  # fmt: skip
    assert {float(p[0].min()) for p in seen} >= {-1.0}
    assert max(float(p[0].max()) for p in seen) == pytest.approx(1.0)
    assert grid.padding == (12, 12)


def test_zeros_lie_beside_slices_that_are_smaller_than_a_patch():
    for clean, *_ in samples(draw_of(planted(rows=6, columns=10)), 20):
        size = clean.shape[-1]
        shown = clean[0] > 0
        rows, columns = min(size, 6), min(size, 10)
        assert {shown.any(axis=1).sum(), shown.any(axis=0).sum()} == {rows, columns}
        assert shown.sum() == rows * columns


def test_flips_and_transposition_keep_the_values():
    """Every sample is a block of its volume, in one of the eight orientations of a square, slices up or down."""
    level = planted()
    seen = set()
    for clean, *_ in samples(draw_of(level, patches={"body": 0.5}), 60):
        z, y, x = decoded(clean)
        size = clean.shape[-1]
        block = level.array[np.sort(z[:, 0, 0])][:, y.min() : y.min() + size, x.min() : x.min() + size]
        assert sorted(clean.ravel()) == sorted(block.ravel())
        transposed = y[0, 0, 0] == y[0, -1, 0]
        seen.add((transposed, y[0, 0, 0] == y.min(), x[0, 0, 0] == x.min(), z[0, 0, 0] > z[2, 0, 0]))
    assert len(seen) == 16


def test_with_positions_front_stays_front():
    seen = set()
    for clean, *_ in samples(draw_of(patches={"padded": True}), 40):
        inside = clean[1] > 0
        _, y, x = decoded(clean[1])
        if inside.all():
            assert (np.diff(y, axis=0) == 1).all()
            seen.add(int(np.diff(x, axis=1)[0, 0]))
    assert seen == {-1, 1}


@pytest.mark.parametrize(("low", "median", "high", "uniform"), [(0.002, 0.1, 40.0, 0.1), (0.05, 0.1, 0.5, 0.5)])
def test_noise_levels(low, median, high, uniform):
    noise = NoiseLevels(low=low, median=median, high=high, uniform=uniform, spread=0.8)
    count = 40_000
    sigma = draw_sigma(np.random.default_rng(3), noise, count)
    assert sigma.dtype == np.float32
    assert sigma.min() >= np.float32(low)
    assert sigma.max() <= np.float32(high)

    def below(edge):
        """The stated distribution function: a normal and a uniform one of ln sigma."""
        normal = 0.5 * (1 + torch.erf(torch.tensor((np.log(edge) - np.log(median)) / 0.8 / np.sqrt(2)))).item()
        return (1 - uniform) * normal + uniform * np.log(edge / low) / np.log(high / low)

    for edge in (1.5 * low, median, 0.3, 0.7 * high):
        assert np.mean(sigma < edge) == pytest.approx(below(edge), abs=4 * 0.5 / np.sqrt(count))


def test_the_noise_is_standard_normal():
    groups = {"gaps": [1], "weights": [1.0]}
    batch = training_batch(draw_of(groups=groups, patches={"pixels": 20_000}), 0)
    noise = batch.noise.double()
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert float(noise.var()) == pytest.approx(1, abs=6 * (2 / noise.numel()) ** 0.5)
    neighbours = float((noise[:, 0] * noise[:, 1]).mean())
    assert abs(neighbours) < 4 / noise[:, 0].numel() ** 0.5
