"""D(x, sigma, conditions) -> x0: all that samplers and priors know of a network.

x is in the linear unit of a run: attenuation divided by the prior's `unit_per_mm`, air exactly 0. Noise is variance
exploding, x = x0 + sigma z. Centring, scaling and parametrisation (eps, v, score) live behind D.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Conditions:
    """What a network is told besides the noise level.

    Attributes:
        gap: distance of neighbouring slices of a group in units of the pixel size within a slice: one number, or
            (batch,). 0 says that the group is copies of one and the same slice.
        position: (batch, 2, rows, columns), y and x of every pixel in the whole padded slice, from -1 to 1; None for
            networks without positions.
    """

    gap: float | torch.Tensor = 1.0
    position: torch.Tensor | None = None


class Denoiser(ABC):
    """The posterior mean of x0 given x = x0 + sigma z.

    Attributes:
        slices: slices of a group, the channels of x.
        positions: whether `conditions.position` must be given.
    """

    slices: int
    positions: bool = False

    @abstractmethod
    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """x0 of the shape of x.

        Args:
            x: (batch, slices, rows, columns), float32, linear unit.
            sigma: noise level in the same unit, above 0: one number, or (batch,).
            conditions: what else the network is told.
        """


def per_sample(value: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`value` as float32 (batch,) beside x."""
    return torch.as_tensor(value, dtype=torch.float32, device=x.device).expand(len(x))


class Preconditioned(Denoiser):
    """EDM preconditioning (Karras et al. 2022, table 1) of a network F(x, ln(sigma)/4, gap).

    D(x) = centre + c_skip (x - centre) + c_out F(c_in (x - centre)), with
    c_skip = sd^2/(sigma^2 + sd^2), c_out = sigma sd/sqrt(sigma^2 + sd^2), c_in = 1/sqrt(sigma^2 + sd^2).

    Args:
        network: F; its inputs are the slices and, with `positions`, the two position channels, unscaled.
        slices: slices of a group.
        positions: whether the network takes position channels.
        sigma_data: sd, the standard deviation of the training data in the linear unit.
        centre: their mean.
        precision: type of the network's arithmetic; everything outside it is float32.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        slices: int,
        positions: bool,
        sigma_data: float,
        centre: float,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.network, self.slices, self.positions = network, slices, positions
        self.sigma_data, self.centre, self.precision = sigma_data, centre, precision

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor, conditions: Conditions) -> torch.Tensor:
        s = per_sample(sigma, x)
        variance = s**2 + self.sigma_data**2
        centred = x - self.centre
        inputs = _wide(variance.rsqrt()) * centred
        if self.positions:
            if conditions.position is None:
                raise ValueError("this network needs conditions.position (batch, 2, rows, columns)")
            inputs = torch.cat([inputs, conditions.position.to(inputs)], dim=1)
        with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
            inside = self.network(inputs, s.log() / 4, per_sample(conditions.gap, x))
        c_skip, c_out = self.sigma_data**2 / variance, s * self.sigma_data * variance.rsqrt()
        return self.centre + _wide(c_skip) * centred + _wide(c_out) * inside.float()


def loss_weight(sigma: torch.Tensor, sigma_data: float) -> torch.Tensor:
    """(sigma^2 + sd^2)/(sigma sd)^2: makes the untrained network's expected loss about 1 at every level (EDM)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def native_precision(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # torch 2.4 cannot tell
    return torch.bfloat16 if known() else torch.float32


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]
