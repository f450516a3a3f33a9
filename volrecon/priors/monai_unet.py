"""MONAI's DiffusionModelUNet as a network, behind the extra `monai`. The only file that imports monai."""

import importlib
import math
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from volrecon.errors import ConfigError
from volrecon.strict_toml import Count, Strict


class MonaiUNetConfig(Strict):
    """MONAI's U-Net; attention on the coarsest level only.

    Its noise level goes in as a time step, its gap as a class: gaps in pixels are rounded to halves.
    """

    kind: Literal["monai"]
    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2, max_length=6)] = (32, 64, 128)
    blocks: Annotated[int, Field(ge=1, le=8)] = 2
    head_channels: Count = 32

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.channels[-1] % self.head_channels:
            raise ValueError(f"{self.channels[-1]} channels cannot be shared out to heads of {self.head_channels}")
        return self

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return MonaiUNet(inputs, outputs, self)


class MonaiUNet(nn.Module):
    """DiffusionModelUNet as F(x, ln(sigma)/4, gap); see `unet.UNet.forward` for the arguments."""

    GAPS = 32

    def __init__(self, inputs: int, outputs: int, config: MonaiUNetConfig) -> None:
        super().__init__()
        self.stride = 2 ** (len(config.channels) - 1)
        self.inside = _monai().DiffusionModelUNet(
            spatial_dims=2,
            in_channels=inputs,
            out_channels=outputs,
            channels=config.channels,
            attention_levels=(False,) * (len(config.channels) - 1) + (True,),
            num_res_blocks=config.blocks,
            num_head_channels=config.head_channels,
            norm_num_groups=math.gcd(16, *config.channels),
            num_class_embeds=self.GAPS,
        )

    def forward(self, x: torch.Tensor, noise: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        rows, columns = x.shape[-2:]
        beyond = (0, -columns % self.stride, 0, -rows % self.stride)
        x = functional.pad(x, beyond, mode="replicate") if any(beyond) else x
        label = (2 * gap).round().long().clamp(0, self.GAPS - 1)
        # Time steps of a linear DDPM schedule span 0 to 1000; ln(sigma)/4 spans about -1.6 to 1.
        return self.inside(x, 250 * (noise + 2), class_labels=label)[..., :rows, :columns]


def _monai() -> Any:
    try:
        return importlib.import_module("monai.networks.nets.diffusion_model_unet")
    except ImportError as error:
        raise ConfigError("this network needs MONAI; pip install 'volrecon[monai]'") from error
