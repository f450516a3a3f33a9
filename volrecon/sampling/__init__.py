"""Noise, schedules and samplers of diffusion: per-slab tensor rules that an engine sweeps over volumes."""

from volrecon.sampling.noise import NoiseKey, standard_normal, uniform_integers
from volrecon.sampling.rules import (
    ancestral,
    annealed_langevin,
    churned_level,
    corrector,
    ddim,
    ddim_mix,
    ddim_mix_weights,
    ddim_weights,
    euler,
    heun,
    langevin_steps,
    linear_langevin_steps,
    predictor,
    raised,
    renoised,
)
from volrecon.sampling.schedules import SCHEDULES, geometric, karras, level_pairs, truncated, vp_level, vp_linear
from volrecon.sampling.sources import NOISES, NoiseSource, SliceCorrelated, noise_source

__all__ = [
    "NOISES",
    "SCHEDULES",
    "NoiseKey",
    "NoiseSource",
    "SliceCorrelated",
    "ancestral",
    "annealed_langevin",
    "churned_level",
    "corrector",
    "ddim",
    "ddim_mix",
    "ddim_mix_weights",
    "ddim_weights",
    "euler",
    "geometric",
    "heun",
    "karras",
    "langevin_steps",
    "level_pairs",
    "linear_langevin_steps",
    "noise_source",
    "predictor",
    "raised",
    "renoised",
    "standard_normal",
    "truncated",
    "uniform_integers",
    "vp_level",
    "vp_linear",
]
