"""PSNR of denoisers whose score is known."""

import math

import numpy as np
import pytest
import torch
from trials import planted, training

from volrecon.priors.denoiser import Conditions, Denoiser
from volrecon.training.batches import Draw, training_batch
from volrecon.training.evaluate import denoising_psnr, validation_batch

SIGMAS = (0.01, 0.1, 0.5)


class Same(Denoiser):
    """Says that nothing is noise."""

    slices = 3

    def __call__(self, x, sigma, conditions):
        return x


class Told(Denoiser):
    """Answers with half of what it is shown, and notes what it is told."""

    slices, positions = 3, True

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma, conditions: Conditions):
        self.calls.append((tuple(x.shape), sigma, conditions.gap.tolist(), conditions.position))
        return x / 2


def batch_of(levels, **changes):
    return validation_batch(Draw(levels, training(**changes)))


def test_the_identity_scores_the_noise(prepared):
    groups = {"gaps": [1], "weights": [1.0]}
    batch = batch_of(prepared.held_out, validation={"crops": 12, "size": 16}, groups=groups)
    count = batch.clean.numel()
    scores = denoising_psnr(Same(), batch, SIGMAS)
    assert list(scores) == ["0.01", "0.1", "0.5"]
    for sigma in SIGMAS:
        # 10 log10 of a mean square of `count` normal numbers.
        assert scores[f"{sigma:g}"] == pytest.approx(-20 * math.log10(sigma), abs=5 * 4.343 * (2 / count) ** 0.5)


def test_all_crops_count_alike(prepared):
    batch = batch_of(prepared.held_out, patches={"padded": True}, validation={"crops": 5})
    told = Told()
    scores = denoising_psnr(told, batch, (0.1,))
    error = ((batch.clean + 0.1 * batch.noise) / 2 - batch.clean).double().square().mean()
    assert scores["0.1"] == pytest.approx(-10 * math.log10(float(error)), abs=1e-4)
    assert [call[2][0] for call in told.calls] == pytest.approx(batch.gap.tolist())
    assert all(call[:2] == ((1, 3, 16, 16), 0.1) for call in told.calls)
    assert all(torch.equal(call[3][0], batch.position[k]) for k, call in enumerate(told.calls))


def test_the_crops_and_the_noise_are_fixed(prepared):
    one, again = (batch_of(prepared.held_out, validation={"crops": 4}) for _ in range(2))
    assert torch.equal(one.clean, again.clean)
    assert torch.equal(one.noise, again.noise)
    assert denoising_psnr(Same(), one, SIGMAS) == denoising_psnr(Same(), again, SIGMAS)
    other = batch_of(prepared.held_out, validation={"crops": 4}, seed=2)
    assert not torch.equal(one.noise, other.noise)


def test_validation_shows_other_samples_than_training():
    draw = Draw((planted(),), training(patches={"sizes": [16], "probabilities": [1.0]}, validation={"crops": 2}))
    shown = {training_batch(draw, step).noise.numpy().tobytes() for step in range(3)}
    assert validation_batch(draw).noise.numpy().tobytes() not in shown


def test_no_gradients_are_kept(prepared):
    class Learning(Same):
        def __init__(self):
            self.factor = torch.ones((), requires_grad=True)

        def __call__(self, x, sigma, conditions):
            out = self.factor * x
            assert not out.requires_grad
            return out

    assert np.isfinite(denoising_psnr(Learning(), batch_of(prepared.held_out), (0.1,))["0.1"])
