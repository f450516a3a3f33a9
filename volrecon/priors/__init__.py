"""Priors: denoisers of tiles, what they make of volumes, and the weights they are loaded from."""

from volrecon.priors.adapters import CallableDenoiser, EpsDenoiser, ScoreDenoiser, ValueRange, linear_alphas_bar
from volrecon.priors.card import Card
from volrecon.priors.denoiser import Conditions, Denoiser, Preconditioned
from volrecon.priors.fitness import check_level, check_voxels
from volrecon.priors.patch import PatchPrior
from volrecon.priors.prior import GroupedPrior, Prior, SliceGroupPrior
from volrecon.priors.weights import TrainedPrior, builtin_priors, load_prior, read_card

__all__ = [
    "CallableDenoiser",
    "Card",
    "Conditions",
    "Denoiser",
    "EpsDenoiser",
    "GroupedPrior",
    "PatchPrior",
    "Preconditioned",
    "Prior",
    "ScoreDenoiser",
    "SliceGroupPrior",
    "TrainedPrior",
    "ValueRange",
    "builtin_priors",
    "check_level",
    "check_voxels",
    "linear_alphas_bar",
    "load_prior",
    "prior_of",
    "read_card",
]


def prior_of(trained: TrainedPrior, *, spacing: float = 1.0, batch: int = 4) -> GroupedPrior:
    """The prior that weights were trained for: patches where they know positions, else slice groups.

    Args:
        spacing: distance of neighbouring slices in pixels (dz/dx).
        batch: slice groups denoised at once; patches come in batches of their own.
    """
    card = trained.card
    if card.patch is not None:
        return PatchPrior(trained.denoiser, card.patch, spacing=spacing, gaps=card.gaps)
    return SliceGroupPrior(trained.denoiser, spacing=spacing, gaps=card.gaps, batch=batch)
