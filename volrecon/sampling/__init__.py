"""Noise, schedules and samplers of diffusion: per-slab tensor rules that an engine sweeps over volumes."""

from volrecon.sampling.noise import NoiseKey, standard_normal, uniform_integers
from volrecon.sampling.rules import ddim
from volrecon.sampling.schedules import geometric, karras

__all__ = ["NoiseKey", "ddim", "geometric", "karras", "standard_normal", "uniform_integers"]
