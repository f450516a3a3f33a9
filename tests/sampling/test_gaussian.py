"""Samplers and data steps on a Gaussian prior, whose posterior is known: what is exact, what is not, and by how much.

Everything is affine, so mean and covariance are pushed through the very rules, without a sample. Prior N(m, C), data
y = A x + N(0, s^2), posterior N(p, P) with P = (C^-1 + A'A/s^2)^-1. With C = v I the proximal step of gamma(sigma) =
var(x0 | x_sigma)/s^2 is E[x0 | x_sigma, y]: the optimal denoiser of the posterior itself. So

    exact as steps get short    rules that take the corrected estimate as x0: DDIM of any eta, ancestral, Heun, PC
    exact but for 1 %           annealed Langevin, and with it DPS of zeta = c sigma^2/(2 s^2), cut at 1.9
    not exact                   noise measured from D's own estimate (`corrected`), as in DDS: the data's directions
                                lose their spread; DPS of a constant zeta: the same; DDIM-mix: 3/4 of the variance
"""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from volrecon.datasteps import proximal
from volrecon.geometry import VolumeGeometry, parallel
from volrecon.projectors import projector
from volrecon.sampling import (
    NoiseKey,
    ancestral,
    annealed_langevin,
    corrector,
    ddim,
    ddim_mix,
    euler,
    geometric,
    heun,
    karras,
    langevin_steps,
    level_pairs,
    predictor,
    standard_normal,
)
from volrecon.solvers import Measurement
from volrecon.solvers.problem import least_squares
from volrecon.volume import RamSpace, RamVolume, sweep

N, RAYS = 10, 5
RNG = np.random.default_rng(1)
EYE = np.eye(N)


@dataclass(frozen=True)
class Gaussian:
    """N(mean, covariance), and E[x0 | x] for columns x (N, k) as its denoiser."""

    mean: np.ndarray
    covariance: np.ndarray

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        gain = self.covariance @ np.linalg.inv(self.covariance + sigma**2 * EYE)
        mean = torch.from_numpy(self.mean)[:, None]
        return mean + torch.from_numpy(gain) @ (x - mean)

    def noised(self, sigma: float) -> "Gaussian":
        return Gaussian(self.mean, self.covariance + sigma**2 * EYE)

    def pushed(self, step) -> "Gaussian":
        """Through an affine x' = step(x, z)."""
        zero, zeros, eye = (torch.from_numpy(a) for a in (np.zeros((N, 1)), np.zeros((N, N)), EYE))
        offset = step(zero, zero)
        T, Z = ((step(*columns) - offset).numpy() for columns in ((eye, zeros), (zeros, eye)))
        return Gaussian(T @ self.mean + offset.numpy()[:, 0], T @ self.covariance @ T.T + Z @ Z.T)

    def distance(self, other: "Gaussian") -> tuple[float, float]:
        """Largest error of the mean in other's standard deviations, and of the variance, over all directions."""
        root = np.linalg.cholesky(np.linalg.inv(other.covariance))
        difference = root.T @ self.covariance @ root - EYE
        return float(np.linalg.norm(root.T @ (self.mean - other.mean))), float(np.linalg.norm(difference, 2))


Q = np.linalg.qr(RNG.standard_normal((N, N)))[0]
CORRELATED = Gaussian(RNG.standard_normal(N), Q @ np.diag(np.geomspace(1e-2, 1, N)) @ Q.T)

V, NOISE = 0.09, 0.05
WHITE = Gaussian(0.5 + 0.2 * RNG.standard_normal(N), V * EYE)
A = RNG.standard_normal((RAYS, N))
A /= np.linalg.norm(A, 2)
Y = A @ (WHITE.mean + 0.3 * RNG.standard_normal(N)) + NOISE * RNG.standard_normal(RAYS)
PRECISION = EYE / V + A.T @ A / NOISE**2
POSTERIOR = Gaussian(np.linalg.solve(PRECISION, WHITE.mean / V + A.T @ Y / NOISE**2), np.linalg.inv(PRECISION))
SEEN = np.linalg.svd(A)[2][:RAYS]


def gamma(sigma: float) -> float:
    """Variance of x0 given x_sigma, over that of the data."""
    return V * sigma**2 / (V + sigma**2) / NOISE**2


def prox(x0: torch.Tensor, weight: float) -> torch.Tensor:
    """argmin weight/2 ||Y - A x||^2 + 1/2 ||x - x0||^2."""
    right = x0 + weight * torch.from_numpy(A.T @ Y)[:, None]
    return torch.linalg.solve(torch.from_numpy(EYE + weight * A.T @ A), right)


def corrected(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return prox(WHITE(x, sigma), gamma(sigma))


def heun_step(x, z, D, sigma, following):
    ahead = euler(x, D(x, sigma), sigma, following)
    return heun(x, ahead, D(ahead, following), sigma, following) if following else ahead


def predicted(x, z, D, sigma, following):
    return predictor(x, D(x, sigma), z, sigma, following) if following else D(x, sigma)


RULES = {
    "ddim 0": lambda x, z, D, s, f: ddim(x, D(x, s), z, s, f, 0.0),
    "ddim 0.5": lambda x, z, D, s, f: ddim(x, D(x, s), z, s, f, 0.5),
    "ancestral": lambda x, z, D, s, f: ancestral(x, D(x, s), z, s, f),
    "predictor": predicted,
    "heun": heun_step,
}
MIX = {"mix 0.85": lambda x, z, D, s, f: ddim_mix(x, D(x, s), z, s, f, 0.85)}


def sampled(rule, D, target: Gaussian, count: int, high: float = 20.0) -> tuple[float, float]:
    """Errors of mean and covariance after a Karras schedule from the exact noised law."""
    sigmas = karras(high, 0.002, count)
    law = target.noised(high)
    for sigma, following in level_pairs(sigmas):
        law = law.pushed(functools.partial(lambda x, z, s, f: rule(x, z, D, s, f), s=sigma, f=following))
    return law.distance(target)


@pytest.mark.parametrize("target", ["prior", "posterior"])
@pytest.mark.parametrize("name", RULES)
def test_rules_with_the_optimal_denoiser_are_exact_in_the_limit(name, target):
    """The mean at once; the covariance with the first order of the step, Heun's with the second."""
    law, D = (CORRELATED, CORRELATED) if target == "prior" else (POSTERIOR, corrected)
    means, covariances = zip(*(sampled(RULES[name], D, law, count) for count in (60, 120, 240)), strict=True)
    assert max(means) < 1e-9
    order = np.log2(covariances[0] / covariances[1])
    assert covariances[2] < (0.01 if name == "heun" else 0.08)
    assert order > (1.5 if name == "heun" else 0.75)


def test_the_proximal_step_is_the_posteriors_denoiser():
    x = torch.from_numpy(RNG.standard_normal((N, 4)))
    for sigma in (0.05, 0.4, 3.0):
        torch.testing.assert_close(corrected(x, sigma), POSTERIOR(x, sigma))


def test_the_mix_keeps_three_quarters_of_the_variance():
    """However short the steps: it adds fresh noise of the level itself, and D takes the same again."""
    errors = [sampled(MIX["mix 0.85"], POSTERIOR, POSTERIOR, count) for count in (100, 400)]
    assert max(mean for mean, _ in errors) < 1e-9
    assert errors[1][1] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("rule", "spread"),
    [
        (lambda x, z, s, f: ddim(x, WHITE(x, s), z, s, f, 0.5, corrected(x, s)), 0.02),
        (lambda x, z, s, f: ancestral(x, WHITE(x, s), z, s, f, corrected(x, s)), 0.05),
        (lambda x, z, s, f: ddim_mix(x, WHITE(x, s), z, s, f, 0.85, corrected(x, s)), 0.38),
    ],
)
def test_noise_measured_from_ds_own_estimate_loses_spread(rule, spread):
    """As published: means within half a standard deviation, and hardly any variance where the data speak."""
    law = POSTERIOR.noised(20.0)
    for sigma, following in level_pairs(karras(20.0, 0.002, 240)):
        law = law.pushed(functools.partial(rule, s=sigma, f=following))
    seen = np.trace(SEEN @ law.covariance @ SEEN.T) / np.trace(SEEN @ POSTERIOR.covariance @ SEEN.T)
    assert seen == pytest.approx(spread, abs=0.03)
    assert law.distance(POSTERIOR)[0] < 1.0


def test_predictor_and_corrector():
    """Langevin corrections take away what is left of the start; the covariance is off by the step they take."""
    errors = []
    for snr in (0.16, 0.08):
        law = Gaussian(np.zeros(N), 400.0 * EYE)
        for sigma, following in level_pairs(karras(20.0, 0.002, 200)):
            law = law.pushed(
                functools.partial(lambda x, z, s, f: predicted(x, z, CORRELATED, s, f), s=sigma, f=following)
            )
            if following:
                score = np.trace(np.linalg.inv(CORRELATED.noised(following).covariance)) ** 0.5
                steps = langevin_steps(np.array([N**0.5]), np.array([score]), snr).double()[0]
                law = law.pushed(
                    functools.partial(lambda x, z, s, e: corrector(x, CORRELATED(x, s), z, s, e), s=following, e=steps)
                )
        errors.append(law.distance(CORRELATED))
    assert errors[0][0] < 1e-4
    assert errors[1][1] < 0.06 < errors[0][1] < 0.15


def langevin(D, guided, start: Gaussian, count: int, inner: int, step: float) -> Gaussian:
    """Annealed Langevin, with what `guided` adds; no noise in the last step of all."""
    law, levels = start, geometric(10.0, 0.005, count).tolist()
    for sigma in levels:

        def move(x, z, s=sigma):
            return annealed_langevin(x, D(x, s), z, s, step) + guided(x, s)

        for _ in range(inner):
            law = law.pushed(move)
    return law.pushed(lambda x, z: D(x, levels[-1]))


def guidance(zeta):
    """DPS, squared form: zeta J'A'(y - A D)."""

    def guided(x: torch.Tensor, sigma: float) -> torch.Tensor:
        left = torch.from_numpy(Y)[:, None] - torch.from_numpy(A) @ WHITE(x, sigma)
        return zeta(sigma) * V / (V + sigma**2) * torch.from_numpy(A.T) @ left

    return guided


def test_annealed_langevin_finds_the_prior():
    start = Gaussian(np.zeros(N), 100.0 * EYE)
    law = langevin(CORRELATED, lambda x, s: 0.0, start, count=100, inner=60, step=1.0)
    mean, covariance = law.distance(CORRELATED)
    assert mean < 1e-6
    assert covariance < 0.02


def test_dps_with_the_noises_own_weight_finds_the_posterior():
    """zeta = c sigma^2/(2 s^2) makes its step Langevin on the posterior; above 1.9, while sigma is high, it is cut."""
    start = Gaussian(np.zeros(N), 100.0 * EYE)
    law = langevin(WHITE, guidance(lambda s: min(s**2 / 2 / NOISE**2, 1.9)), start, count=100, inner=30, step=1.0)
    mean, covariance = law.distance(POSTERIOR)
    assert mean < 0.02
    assert covariance < 0.02


def test_dps_of_a_constant_weight_fits_the_data_instead():
    """zeta 1.9: the null space is the prior's, but the data's directions go to least squares and lose their spread."""
    start = Gaussian(np.zeros(N), 100.0 * EYE)
    law = langevin(WHITE, guidance(lambda s: 1.9), start, count=100, inner=10, step=0.5)
    seen = SEEN @ law.covariance @ SEEN.T
    assert np.trace(seen) < 0.02 * np.trace(SEEN @ POSTERIOR.covariance @ SEEN.T)
    np.testing.assert_allclose(SEEN @ law.mean, SEEN @ np.linalg.lstsq(A, Y)[0], atol=0.01)
    null = EYE - SEEN.T @ SEEN
    np.testing.assert_allclose(null @ law.mean, null @ WHITE.mean, atol=1e-3)
    assert np.trace(null @ law.covariance) == pytest.approx(V * (N - RAYS), rel=0.06)


def test_a_stack_of_samples_by_volumes_and_projections():
    """The real thing in float32: 200 slices are as many samples; Heun and CG find the posterior's mean and variance."""
    slices, deviation, noise = 200, 0.3, 0.2
    grid = VolumeGeometry((slices, 5, 5), (2.0, 1.0, 1.0))
    scan = parallel(detector_shape=(slices, 8), pixel_mm=(2.0, 1.0), angles=np.pi * np.arange(4) / 4)
    one = projector(
        VolumeGeometry((1, 5, 5), (2.0, 1.0, 1.0)),
        parallel(detector_shape=(1, 8), pixel_mm=(2.0, 1.0), angles=scan.angles),
    )
    matrix = np.stack([one(e.reshape(1, 5, 5)).ravel() for e in np.eye(25, dtype=np.float32)], axis=1).astype(float)
    rng = np.random.default_rng(3)
    y = matrix @ (0.5 + deviation * rng.standard_normal(25)) + noise * rng.standard_normal(32)
    stored = np.repeat(y.reshape(1, 4, 8), slices, axis=0).astype(np.float32)
    space = RamSpace()
    problem = least_squares(Measurement(RamVolume(torch.from_numpy(stored)), scan, grid, space, 1.0), "none")
    deviation_of_y = noise * problem.A.scale

    def estimate(x, sigma):
        variance = deviation**2 * sigma**2 / (deviation**2 + sigma**2)
        x0 = space.empty(grid.shape)
        sweep(space, lambda slab, x: ([0.5 + variance / sigma**2 * (x - 0.5)], []), [x], [x0])
        return proximal(problem, x0, gamma=variance / deviation_of_y**2, iterations=25, tolerance=1e-3).x

    x = RamVolume(0.5 + 5.0 * standard_normal(NoiseKey(1), 0, grid.shape))
    for sigma, following in level_pairs(karras(5.0, 0.02, 14)):
        ahead, x0 = space.empty(grid.shape), estimate(x, sigma)
        sweep(space, lambda slab, x, x0: ([euler(x, x0, sigma, following)], []), [x, x0], [ahead])  # noqa: B023
        if following:
            x0_ahead = estimate(ahead, following)
            inputs = [x, ahead, x0_ahead]
            sweep(space, lambda slab, *blocks: ([heun(*blocks, sigma, following)], []), inputs, [x])  # noqa: B023
    found = ahead.tensor.double().flatten(1).numpy()
    precision = np.eye(25) / deviation**2 + matrix.T @ matrix / noise**2
    covariance = np.linalg.inv(precision)
    mean = np.linalg.solve(precision, 0.5 / deviation**2 + matrix.T @ y / noise**2)
    white = np.linalg.cholesky(precision).T @ (found - mean).T
    assert np.abs(white.mean(axis=1)).max() < 4 / slices**0.5
    assert (white**2).mean() == pytest.approx(1, abs=4 * (2 / white.size) ** 0.5)
    np.testing.assert_allclose((white**2).mean(axis=1), 1, atol=5 * (2 / slices) ** 0.5)
    assert covariance.diagonal().max() < 0.7 * deviation**2
