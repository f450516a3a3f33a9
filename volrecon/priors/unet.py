"""A compact convolutional U-Net: the default network of every prior.

No attention and no normalisation over pixels: memory is linear in the slice's size, and what a pixel becomes depends
only on the pixels within `UNet.reach`, so a network trained on patches serves slices of any size.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from volrecon.strict_toml import Count, Strict

EMBEDDING = 128


class UNetConfig(Strict):
    """A U-Net: one number of channels a level, each level at half the resolution of the one before."""

    kind: Literal["unet"] = "unet"
    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=6)] = (32, 64, 128, 192)
    blocks: Annotated[int, Field(ge=1, le=8)] = 2

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return UNet(inputs, outputs, self.channels, self.blocks)


class Features(nn.Module):
    """Sines and cosines of a number, from a quarter of a turn a unit to `turns` turns."""

    frequencies: torch.Tensor

    def __init__(self, count: int, turns: float) -> None:
        super().__init__()
        frequencies = 2 * math.pi * torch.logspace(math.log10(0.25), math.log10(turns), count // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        phase = value[:, None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class Block(nn.Module):
    """x + conv(silu(scale conv(silu(x)) + shift)), scale and shift from the embedding; the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(EMBEDDING, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, dim=1)
        inside = torch.addcmul(shift, self.first(functional.silu(x)), 1 + scale)
        return x + self.second(functional.silu(inside))


class Stage(nn.Module):
    """The blocks of one level, one after another."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """Network F of the EDM preconditioning.

    Args:
        inputs: channels in: the slices of a group, then position channels if there are any.
        outputs: channels out: the slices of a group.
        channels: channels of each level, finest first.
        blocks: residual blocks a level, on the way down and on the way up.
    """

    def __init__(self, inputs: int, outputs: int, channels: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.stride, self.blocks = 2 ** (len(channels) - 1), blocks
        self.noise_features, self.gap_features = Features(32, 8.0), Features(16, 2.0)
        self.embedding = nn.Sequential(nn.Linear(48, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU())
        self.enter = nn.Conv2d(inputs, channels[0], 3, padding=1)
        self.down = nn.ModuleList(Stage(c, blocks) for c in channels)
        self.coarser = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(Stage(c, blocks) for c in channels[:-1])
        self.finer = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(channels))
        self.leave = nn.Conv2d(channels[0], outputs, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def reach(self) -> int:
        """How many pixels away, along an axis, an input pixel may lie to change an output pixel.

        Two convolutions a block and 2^level pixels a convolution, twice on every level but the coarsest; one
        convolution at either end; and the pixels of a cell of the coarsest level go together.
        """
        return 2 * self.blocks * (3 * self.stride - 2) + 2 + self.stride - 1

    def forward(self, x: torch.Tensor, noise: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        """F(x; noise, gap), shape (batch, outputs, rows, columns).

        Args:
            x: (batch, inputs, rows, columns); any size, replicated at its edges up to a multiple of the stride.
            noise: ln(sigma)/4 (batch,).
            gap: distance of neighbouring slices in pixels (batch,); 0 for copies of one slice.
        """
        features = [self.noise_features(noise), self.gap_features(torch.log1p(gap))]
        embedding = self.embedding(torch.cat(features, dim=1))
        rows, columns = x.shape[-2:]
        beyond = (0, -columns % self.stride, 0, -rows % self.stride)
        x = functional.pad(x, beyond, mode="replicate") if any(beyond) else x
        x = self.enter(x.contiguous(memory_format=torch.channels_last))
        held = []
        for level, coarser in enumerate(self.coarser):
            x = self.down[level](x, embedding)
            held.append(x)
            x = coarser(x)
        x = self.down[-1](x, embedding)
        for level in reversed(range(len(self.finer))):
            x = self.up[level](self.finer[level](x) + held.pop(), embedding)
        return self.leave(x)[..., :rows, :columns]
