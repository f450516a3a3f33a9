"""The noise of measured line integrals: how it is drawn, and the weights it gives the data."""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch

from volrecon.errors import ConfigError

MOST_PHOTONS = 1e15
MOST_ATTENUATION = 30.0  # exp(-30) photons of 1e9 are none: larger line integrals weigh nothing


@dataclass(frozen=True)
class Noise:
    """Noise of line integrals y.

    Attributes:
        kind: "none"; "poisson": counts I ~ Poisson(photons exp(-y)) + N(0, electronic^2), then -log;
            "gaussian": y + N(0, sigma_y^2).
        photons: I0, photons per detector pixel in air.
        electronic: standard deviation of the readout, in photons.
        sigma_y: standard deviation of y.
    """

    kind: Literal["none", "poisson", "gaussian"] = "none"
    photons: float = 0.0
    electronic: float = 0.0
    sigma_y: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.photons, self.electronic, self.sigma_y)
        if not all(np.isfinite(n) and n >= 0 for n in numbers):
            raise ConfigError(f"noise parameters {numbers} must be finite and at least 0")
        if self.kind == "poisson" and not 1 <= self.photons <= MOST_PHOTONS:
            raise ConfigError(f"photons is {self.photons:g}; Poisson noise needs 1 to {MOST_PHOTONS:g} a pixel")
        if self.kind == "gaussian" and self.sigma_y <= 0:
            raise ConfigError(f"sigma_y is {self.sigma_y:g}; Gaussian noise needs a positive one")

    def sampled(self, y: np.ndarray, row: int, seed: int) -> np.ndarray:
        """Noisy line integrals of one detector row (angle, u); keyed by (seed, row), so block sizes do not matter.

        Counts below half a photon are set to half a photon before the logarithm.
        """
        if self.kind == "none":
            return y.astype(np.float32)
        rng = np.random.Generator(np.random.Philox(key=[seed, row]))
        if self.kind == "gaussian":
            return (y + self.sigma_y * rng.standard_normal(y.shape)).astype(np.float32)
        counts = rng.poisson(self.photons * np.exp(-y.astype(np.float64))).astype(np.float64)
        if self.electronic:
            counts += self.electronic * rng.standard_normal(y.shape)
        return (-np.log(np.maximum(counts, 0.5) / self.photons)).astype(np.float32)

    def root_weights(self, y: torch.Tensor) -> torch.Tensor | None:
        """sqrt(W), W = var(air)/var(y) in (0, 1], from the measured y; None where every pixel weighs the same.

        var(y) = (I + electronic^2)/I^2 with I = photons exp(-y).
        """
        if self.kind != "poisson":
            return None
        counts = self.photons * torch.exp(-y.clamp(0, MOST_ATTENUATION))
        air = (self.photons + self.electronic**2) / self.photons**2
        return torch.sqrt(air * counts**2 / (counts + self.electronic**2))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "photons": self.photons,
            "electronic": self.electronic,
            "sigma_y": self.sigma_y,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        try:
            return cls(data["kind"], float(data["photons"]), float(data["electronic"]), float(data["sigma_y"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a noise model ({error}): {str(data)[:200]}") from error
