"""Each rule against its published formula, and what all of them share."""

import math

import numpy as np
import pytest
import torch

from volrecon.sampling import (
    ancestral,
    annealed_langevin,
    churned_level,
    corrector,
    ddim,
    ddim_mix,
    euler,
    heun,
    langevin_steps,
    linear_langevin_steps,
    predictor,
    raised,
)

SIGMA, NEXT = 1.3, 0.8


def tensors(count: int, shape=(3, 4, 5)) -> list[torch.Tensor]:
    return list(torch.from_numpy(np.random.default_rng(0).standard_normal((count, *shape))))


def test_ddim_mix_is_the_published_one():
    """In VP variables: x' = sqrt(abar') x0h + sqrt(1 - abar')(mix z + sqrt(1 - mix^2) eps)."""
    x, x0, z, corrected = tensors(4)
    for mix in (0.0, 0.85, 1.0):
        abar = 1 / (1 + NEXT**2)
        eps = (x - x0) / SIGMA
        vp = math.sqrt(abar) * corrected + math.sqrt(1 - abar) * (mix * z + math.sqrt(1 - mix**2) * eps)
        found = ddim_mix(x, x0, z, SIGMA, NEXT, mix, corrected)
        torch.testing.assert_close(found, vp / math.sqrt(abar))


def test_ddim_after_a_data_step():
    """The corrected estimate, and the noise that D saw."""
    x, x0, z, corrected = tensors(4)
    c1 = 0.4 * NEXT * math.sqrt(1 - NEXT**2 / SIGMA**2)
    expected = corrected + math.sqrt(NEXT**2 - c1**2) * (x - x0) / SIGMA + c1 * z
    torch.testing.assert_close(ddim(x, x0, z, SIGMA, NEXT, 0.4, corrected), expected)
    torch.testing.assert_close(ddim(x, x0, z, SIGMA, NEXT, 0.4, x0), ddim(x, x0, z, SIGMA, NEXT, 0.4))


def test_the_two_etas_are_not_the_same():
    """Of short steps DDIM's fresh noise vanishes, the mix's does not."""
    zero, one = torch.zeros(1), torch.ones(1)
    assert float(ddim(zero, zero, one, 1.0, 0.99, 0.85)) < 0.15
    assert float(ddim_mix(zero, zero, one, 1.0, 0.99, 0.85)) == pytest.approx(0.85 * 0.99)


def test_ancestral_is_the_published_one():
    x, x0, z, corrected = tensors(4)
    c1, c2 = NEXT * math.sqrt(1 - NEXT**2 / SIGMA**2), NEXT**2 / SIGMA
    torch.testing.assert_close(ancestral(x, x0, z, SIGMA, NEXT, corrected), corrected + c2 * (x - x0) / SIGMA + c1 * z)


def test_predictor_and_corrector_are_the_published_ones():
    x, x0, z = tensors(3)
    score = (x0 - x) / SIGMA**2
    removed = SIGMA**2 - NEXT**2
    torch.testing.assert_close(predictor(x, x0, z, SIGMA, NEXT), x + removed * score + math.sqrt(removed) * z)
    norms = [torch.linalg.norm(t, dim=(1, 2)).numpy() for t in (z, score)]
    e = 2 * (0.16 * norms[0] / norms[1]) ** 2
    expected = torch.stack([x[k] + e[k] * score[k] + math.sqrt(2 * e[k]) * z[k] for k in range(3)])
    steps = langevin_steps(*norms, 0.16)
    assert tuple(steps.shape) == (3, 1, 1)
    torch.testing.assert_close(corrector(x, x0, z, SIGMA, steps), expected, rtol=1e-6, atol=1e-6)


def test_the_linear_rule():
    steps = linear_langevin_steps(np.array([3.0, 2.0]), np.array([4.0, 1.0]), 0.16)
    assert steps.ravel().tolist() == pytest.approx([2 * 0.16 * 0.75, 2 * 0.16 * 2])


@pytest.mark.parametrize("rule", [langevin_steps, linear_langevin_steps])
def test_a_slice_without_score_stays(rule):
    steps = rule(np.array([1.0, 1.0]), np.array([0.0, 2.0]), 0.2)
    assert steps[0] == 0
    assert steps[1] > 0
    x, z = tensors(2, (2, 3, 3))
    assert torch.equal(corrector(x, x, z, SIGMA, steps * torch.tensor([1.0, 0.0])[:, None, None]), x)


def test_annealed_langevin_is_the_published_one():
    """alpha = c sigma^2: x + alpha/2 s + sqrt(alpha) z."""
    x, x0, z = tensors(3)
    alpha = 0.5 * SIGMA**2
    expected = x + alpha / 2 * (x0 - x) / SIGMA**2 + math.sqrt(alpha) * z
    torch.testing.assert_close(annealed_langevin(x, x0, z, SIGMA, 0.5), expected)


def test_heun_is_the_published_one():
    x, x0, x0_ahead = tensors(3)
    d = (x - x0) / SIGMA
    ahead = x + (NEXT - SIGMA) * d
    torch.testing.assert_close(euler(x, x0, SIGMA, NEXT), ahead)
    torch.testing.assert_close(ddim(x, x0, x, SIGMA, NEXT, 0.0), ahead)
    expected = x + (NEXT - SIGMA) * (d + (ahead - x0_ahead) / NEXT) / 2
    torch.testing.assert_close(heun(x, ahead, x0_ahead, SIGMA, NEXT), expected)


def test_churn():
    """g = min(S_churn/n, sqrt 2 - 1) inside its range, and just the noise that leads to the higher level."""
    assert churned_level(2.0, 10, 1.0) == pytest.approx(2.2)
    assert churned_level(2.0, 10, 100.0) == pytest.approx(2.0 * math.sqrt(2))
    assert churned_level(2.0, 10, 1.0, low=3.0) == 2.0
    assert churned_level(2.0, 10, 1.0, high=1.0) == 2.0
    assert churned_level(2.0, 10, 0.0) == 2.0
    x, z = tensors(2)
    torch.testing.assert_close(raised(x, z, 2.0, 2.2, 1.003), x + 1.003 * math.sqrt(2.2**2 - 4) * z)
    assert torch.equal(raised(x, z, 2.0, 2.0), x)
    torch.testing.assert_close(raised(x, z, 0.0, 0.7), x + 0.7 * z)


@pytest.mark.parametrize("rule", [ancestral, lambda *a: ddim(*a, 0.5), lambda *a: ddim_mix(*a, 0.85)])
def test_a_step_to_zero_leaves_the_estimate(rule):
    x, x0, z = tensors(3)
    assert torch.equal(rule(x, x0, z, SIGMA, 0.0), x0)
    assert torch.equal(euler(x, x0, SIGMA, 0.0), x0)


def test_slabs_are_pieces_of_the_whole_in_float32():
    x, x0, z, ahead = (t.float() for t in tensors(4, (6, 5, 7)))
    steps = torch.linspace(0.1, 0.6, 6)[:, None, None]
    rules = [
        lambda s: ddim(x[s], x0[s], z[s], SIGMA, NEXT, 0.4, ahead[s]),
        lambda s: ddim_mix(x[s], x0[s], z[s], SIGMA, NEXT, 0.85),
        lambda s: predictor(x[s], x0[s], z[s], SIGMA, NEXT),
        lambda s: corrector(x[s], x0[s], z[s], SIGMA, steps[s]),
        lambda s: annealed_langevin(x[s], x0[s], z[s], SIGMA, 0.5),
        lambda s: heun(x[s], ahead[s], x0[s], SIGMA, NEXT),
        lambda s: raised(x[s], z[s], SIGMA, 1.5, 1.01),
    ]
    for rule in rules:
        whole = rule(slice(None))
        assert whole.dtype == torch.float32
        parts = [rule(slice(start, stop)) for start, stop in ((0, 1), (1, 3), (3, 6))]
        assert torch.equal(torch.cat(parts), whole)
