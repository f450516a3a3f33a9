"""Reconstruction with diffusion priors: a prior, a sampler and a data step, joined by a recipe."""

from volrecon.diffusion.method import Diffusion

__all__ = ["Diffusion"]
