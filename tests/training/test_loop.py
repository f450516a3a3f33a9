"""The loop learns what it should, by the loss, the average and the rates it states, and refuses nonsense."""

import numpy as np
import pytest
import torch
from torch import nn
from trials import CPU, loop, place, quiet, training

from volrecon.errors import ConfigError, DivergedError, ResourceError
from volrecon.priors import load_prior
from volrecon.priors.denoiser import Conditions, Preconditioned, loss_weight
from volrecon.training import loop as module
from volrecon.training.batches import training_batch
from volrecon.training.prepare import Level, Prepared
from volrecon.training.run import train

STEPS = 12


def simple() -> Prepared:
    """One volume of smooth blobs."""
    z, y, x = np.indices((6, 32, 32)) / 8.0
    values = (0.5 + 0.3 * np.sin(x + z) * np.cos(1.3 * y)).astype(np.float32)
    level = Level(values, 1.0, 2.0, np.tile([0, 32, 0, 32], (6, 1)), 1.0)
    return Prepared((level,), (level,), float(values.mean()), float(values.std()), 0.52)


def test_the_weighted_loss_of_a_network_that_says_nothing_is_1_on_gaussian_data():
    class Nothing(nn.Module):
        def forward(self, x, noise, gap):
            return torch.zeros_like(x)

    rng = torch.Generator().manual_seed(0)
    deviation, centre, count = 0.3, 0.45, 4000
    clean = centre + deviation * torch.randn(count, 1, 4, 4, generator=rng)
    denoiser = Preconditioned(Nothing(), slices=1, positions=False, sigma_data=deviation, centre=centre)
    for sigma in (0.002, 0.05, 0.3, 4.0, 40.0):
        s = torch.full((count,), sigma)
        noisy = clean + sigma * torch.randn(clean.shape, generator=rng)
        error = (denoiser(noisy, s, Conditions()) - clean).square().mean(dim=(1, 2, 3))
        losses = loss_weight(s, deviation) * error
        # The mean of 64,000 squares of normal numbers.
        assert float(losses.mean()) == pytest.approx(1, abs=5 * (2 / (16 * count)) ** 0.5)


def test_it_learns(tmp_path):
    lines = []
    told = training(
        budget={"steps": 60},
        network={"channels": [8, 16]},
        optimiser={"learning_rate": 1e-2},
        validation={"every": 10, "crops": 4},
    )
    trained = loop(told, simple(), tmp_path).run(lines.append)
    assert [line.step for line in lines] == list(range(10, 61, 10))
    assert lines[-1].done == 1
    losses = [line.loss for line in lines]
    assert 0.7 < losses[0] < 1.3  # about 1 before anything is learnt
    assert sum(losses[-2:]) < 0.85 * sum(losses[:2])
    bands = [line.by_band["0.1..0.2"] for line in lines]
    assert sum(bands[-2:]) < 0.6 * sum(bands[:2])
    scores = [line.psnr["0.1"] for line in lines]
    assert scores[-1] > max(scores[0], 20) + 2  # 20 is that of the noisy image
    assert trained.psnr == lines[-1].psnr
    assert [line["psnr"] for line in trained.history] == [line.psnr for line in lines]


def test_lines_come_every_so_many_steps_and_at_every_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REPORT_EVERY", 4)
    lines = []
    loop(training(budget={"steps": 10}, validation={"every": 5}), simple(), tmp_path).run(lines.append)
    assert [(line.step, line.psnr is not None) for line in lines] == [(4, False), (5, True), (8, False), (10, True)]


def test_the_meter_tells_bands_apart():
    meter = module.Meter()
    meter.add(torch.tensor([0.001, 0.03, 30.0]), torch.tensor([1.0, 2.0, 3.0]))
    meter.add(torch.tensor([0.04]), torch.tensor([6.0]))
    total, by_band = meter.means()
    assert total == 3.0
    assert by_band == {"0..0.02": 1.0, "0.02..0.05": 4.0, "0.5..inf": 3.0}


def test_the_average_is_the_power_law_of_karras(tmp_path, prepared):
    told = loop(training(optimiser={"average": 6.0}), prepared, tmp_path)
    rng = torch.Generator().manual_seed(1)
    thetas = [[torch.randn(p.shape, generator=rng) for p in told.network.parameters()] for _ in range(9)]
    for theta in thetas:
        for parameter, value in zip(told.network.parameters(), theta, strict=True):
            parameter.data.copy_(value)
        told.step += 1
        told._average()
    # Averaging with weights t^6: their sums over [t-1, t].
    weights = np.diff((np.arange(10) / 9) ** 7)
    for k, kept in enumerate(told.average.parameters()):
        direct = sum(w * theta[k].double() for w, theta in zip(weights, thetas, strict=True))
        np.testing.assert_allclose(kept.numpy(), direct.numpy(), atol=2e-6)


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path, prepared):
    rates = []
    told = loop(training(optimiser={"warm_up": 4, "learning_rate": 2e-3}), prepared, tmp_path)
    original = told.optimiser.step
    told.optimiser.step = lambda: (rates.append(told.optimiser.param_groups[0]["lr"]), original())
    told.run(quiet)
    t = np.arange(STEPS)
    np.testing.assert_allclose(rates, 2e-3 * np.minimum(1, (t + 1) / 4) * 0.5 * (1 + np.cos(np.pi * t / STEPS)))


def test_the_caller_s_random_numbers_are_untouched(tmp_path, prepared):
    before = torch.get_rng_state()
    loop(training(budget={"steps": 2}), prepared, tmp_path).run(quiet)
    assert torch.equal(before, torch.get_rng_state())


def poisoned(prepared, from_step):
    """Batches as they are, but with a NaN from a step on."""

    def drawn(draw, first, last, workers, rank=0):
        for step in range(first, last):
            batch = training_batch(draw, step, rank)
            if step >= from_step:
                batch.clean[0, 0, 0, 0] = float("nan")
            yield batch

    return drawn


@pytest.mark.parametrize("bad", [0, 6])
def test_a_loss_that_is_no_number_ends_it(tmp_path, prepared, monkeypatch, bad):
    loop(training(), prepared, tmp_path).run(quiet, stop_after=min(bad, 4))
    stands = (tmp_path / "checkpoint.safetensors").read_bytes()
    monkeypatch.setattr(module, "batches", poisoned(prepared, bad))
    told = loop(training(), prepared, tmp_path)
    with pytest.raises(DivergedError, match=rf"loss is nan.* at step {bad};.* below 0\.003 into another --out"):
        told.run(quiet)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == stands
    assert all(torch.isfinite(p).all() for p in told.network.parameters())


def test_a_gradient_that_is_no_number_ends_it_before_it_reaches_the_weights(tmp_path, prepared):
    told = loop(training(), prepared, tmp_path)
    next(told.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match=r"norm of its gradient (nan|inf) at step 0"):
        told.run(quiet)
    assert all(torch.isfinite(p).all() for p in told.network.parameters())
    assert not told.path.exists()


def test_the_prior_says_what_it_is(data_folder, tmp_path, prepared):
    spot = place(data_folder, str(tmp_path / "run"))
    trained = train(training(), spot, quiet, quiet)
    prior = load_prior(spot.out / "prior.safetensors", precision=torch.float32)
    card = prior.card
    assert (card.name, card.steps, card.slices, card.patch, card.gaps) == ("trial", STEPS, 3, None, (0, 1, 2))
    assert (card.centre, card.sigma_data, card.soft_tissue) == (prepared.mean, prepared.deviation, prepared.soft_tissue)
    assert (card.unit_per_mm, card.water_per_mm, card.value_range) == (0.04, 0.02, (0.0, 2.0))
    assert card.voxel_mm == (2.0, 4.0)
    assert card.gap_pixels == (1.0, 2.0)
    assert card.psnr == trained.psnr
    assert [(d.file, d.licence) for d in card.data] == [("ct.npz", "CC0"), ("other.zarr", "CC BY 4.0")]
    assert (card.command, card.commit) == ("test", "none")
    for key, value in trained.network.state_dict().items():
        np.testing.assert_allclose(prior.denoiser.network.state_dict()[key], value.to(CPU, torch.float16).float())
    assert (spot.out / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in spot.out.iterdir()) == ["checkpoint.safetensors", "losses.png", "prior.safetensors"]


def test_a_prior_with_positions(data_folder, tmp_path):
    spot = place(data_folder, str(tmp_path / "run"))
    padded = training(patches={"padded": True}, budget={"steps": 6})
    train(padded, spot, quiet, quiet, stop_after=4)
    trained = train(padded, spot, quiet, quiet)
    card = load_prior(spot.out / "prior.safetensors").card
    assert (card.patch, card.positions, card.steps) == (16, True, 6)
    assert set(trained.psnr) == {"0.1"}


def test_without_held_out_volumes_there_is_no_psnr(tmp_path, prepared):
    alone = Prepared(prepared.training, (), prepared.mean, prepared.deviation, prepared.soft_tissue)
    assert loop(training(budget={"steps": 2}), alone, tmp_path).run(quiet).psnr == {}


def test_an_out_that_is_a_file_is_refused(data_folder, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot be made a folder"):
        train(training(), place(data_folder, str(tmp_path / "file")), quiet, quiet)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", "mps"])
def test_devices_that_are_not_there(data_folder, tmp_path, name):
    with pytest.raises(ConfigError, match=f"device '?{name}"):
        train(training(), place(data_folder, str(tmp_path / "run"), device=name), quiet, quiet)
