"""The networks a prior may be made of, by the `kind` that weights and training files name."""

from typing import Annotated

from pydantic import Field

from volrecon.priors.monai_unet import MonaiUNetConfig
from volrecon.priors.unet import UNetConfig

NetworkConfig = Annotated[UNetConfig | MonaiUNetConfig, Field(discriminator="kind")]
