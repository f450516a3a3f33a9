"""Data steps of diffusion sampling: an estimate of a volume goes in, one that fits the projections better comes out.

Every weight refers to the operator of norm 1 of `LeastSquares`; what a step costs is said where it is made.
"""

from volrecon.datasteps.guidance import add_scaled, squared_steps, unit_steps
from volrecon.datasteps.noise_weight import gamma_of_noise, noise_energy
from volrecon.datasteps.proximal import Corrected, proximal
from volrecon.datasteps.replacement import (
    Inverse,
    filtered_residual,
    low_frequencies_replaced,
    null_part,
    range_replaced,
    relaxed,
)

__all__ = [
    "Corrected",
    "Inverse",
    "add_scaled",
    "filtered_residual",
    "gamma_of_noise",
    "low_frequencies_replaced",
    "noise_energy",
    "null_part",
    "proximal",
    "range_replaced",
    "relaxed",
    "squared_steps",
    "unit_steps",
]
