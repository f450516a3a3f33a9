"""Priors: denoisers of tiles, what they make of volumes, and the weights they are loaded from."""

from volrecon.errors import ConfigError
from volrecon.priors.adapters import CallableDenoiser, EpsDenoiser, ScoreDenoiser, ValueRange, linear_alphas_bar
from volrecon.priors.card import Card
from volrecon.priors.denoiser import Conditions, Denoiser, Preconditioned
from volrecon.priors.fitness import check_level, check_voxels
from volrecon.priors.partitions import Blending, Partition
from volrecon.priors.patch import PatchPrior
from volrecon.priors.planes import PlanesPrior, check_planes, stacked
from volrecon.priors.prior import GroupedPrior, Prior
from volrecon.priors.slice_group import NeighbourPrior, SliceGroupPrior
from volrecon.priors.weights import TrainedPrior, builtin_priors, load_prior, read_card

__all__ = [
    "Blending",
    "CallableDenoiser",
    "Card",
    "Conditions",
    "Denoiser",
    "EpsDenoiser",
    "GroupedPrior",
    "NeighbourPrior",
    "Partition",
    "PatchPrior",
    "PlanesPrior",
    "Preconditioned",
    "Prior",
    "ScoreDenoiser",
    "SliceGroupPrior",
    "TrainedPrior",
    "ValueRange",
    "builtin_priors",
    "check_level",
    "check_planes",
    "check_voxels",
    "linear_alphas_bar",
    "load_prior",
    "prior_of",
    "read_card",
    "stacked",
]


def prior_of(
    trained: TrainedPrior, *, spacing: float = 1.0, gaps: tuple[int, ...] | None = None, batch: int = 4
) -> GroupedPrior:
    """The prior that weights were trained for: patches where they know positions, else slice groups.

    Args:
        spacing: distance of neighbouring slices in pixels (dz/dx).
        gaps: those of the card to use: (1,) leaves out jumps, (0,) takes slices on their own; None for all.
        batch: slice groups denoised at once; patches come in batches of their own.

    Raises:
        ConfigError: a gap that the weights were not trained with.
    """
    card = trained.card
    used = card.gaps if gaps is None else gaps
    if not set(used) <= set(card.gaps):
        raise ConfigError(f"prior {card.name} was trained with gaps {card.gaps}; gaps {used} are asked for")
    prior: GroupedPrior
    if card.patch is not None:
        prior = PatchPrior(trained.denoiser, card.patch, spacing=spacing, gaps=used)
    else:
        prior = SliceGroupPrior(trained.denoiser, spacing=spacing, gaps=used, batch=batch)
    prior.name = card.name
    return prior
