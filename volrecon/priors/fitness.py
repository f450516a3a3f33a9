"""Whether a prior fits what it is about to be used on: voxel size, slice spacing, level of attenuation."""

import warnings

import numpy as np

from volrecon.errors import ConfigError, PriorWarning
from volrecon.geometry import VolumeGeometry
from volrecon.priors.card import Card

FARTHEST = 2.0
"""How far beyond the trained voxel sizes a prior may be used without being forced."""

LEVEL_OFF = 0.1
TISSUE_BIN = 0.005
FEWEST = 1000


def check_voxels(card: Card, grid: VolumeGeometry, force: bool = False) -> None:
    """Compare the grid's pixels with those of the training data.

    Warns (PriorWarning) outside the trained range, with the ratio; the distance of slices likewise.

    Raises:
        ConfigError: beyond twice, unless `force`.
    """
    pixel = max(grid.voxel_zyx_mm[1:])
    smallest = min(grid.voxel_zyx_mm[1:])
    low, high = card.voxel_mm
    ratio = max(low / smallest, pixel / high)
    if ratio > 1.0001:
        text = (
            f"prior {card.name} was trained on pixels of {low:g} to {high:g} mm; the grid has {smallest:g} to "
            f"{pixel:g} mm, {ratio:.2f} times outside"
        )
        if ratio > FARTHEST and not force:
            raise ConfigError(f"{text}. Choose a grid inside, another prior, or force it.")
        warnings.warn(text, PriorWarning, stacklevel=2)
    spacing = grid.voxel_zyx_mm[0] / pixel
    nearest, farthest = card.gap_pixels
    used = [gap * spacing for gap in card.gaps if gap]
    if used and not nearest / 1.01 <= min(used) <= max(used) <= farthest * 1.01:
        warnings.warn(
            f"prior {card.name} was trained on slices of a group {nearest:g} to {farthest:g} pixels apart; with gaps "
            f"{card.gaps} the grid's are {min(used):.3g} to {max(used):.3g} apart",
            PriorWarning,
            stacklevel=2,
        )


def soft_tissue_level(values: np.ndarray) -> float | None:
    """The commonest value between 0.3 and 0.8 of the linear unit, None where hardly any lies there.

    Args:
        values: a reconstruction such as an FDK, linear unit, any shape.
    """
    inside = values[(values > 0.3) & (values < 0.8)]
    if inside.size < FEWEST:
        return None
    counts, edges = np.histogram(inside, np.arange(0.3, 0.8 + TISSUE_BIN, TISSUE_BIN))
    smooth = np.convolve(counts, np.ones(5), mode="same")
    at = int(smooth.argmax())
    return float(edges[at] + edges[at + 1]) / 2


def check_level(card: Card, values: np.ndarray) -> None:
    """Warn (PriorWarning) where soft tissue lies elsewhere than in the training data, or nowhere.

    Args:
        values: an FDK, or another quick reconstruction, in the linear unit.
    """
    found = soft_tissue_level(values)
    if found is None:
        warnings.warn(
            f"no soft tissue was found where prior {card.name} expects it, at {card.soft_tissue:.3f} of the linear "
            f"unit ({card.unit_per_mm:g} /mm): the data may be of another kind, or its water_per_mm wrong",
            PriorWarning,
            stacklevel=2,
        )
        return
    ratio = found / card.soft_tissue
    if abs(ratio - 1) > LEVEL_OFF:
        warnings.warn(
            f"soft tissue lies at {found:.3f} of the linear unit, prior {card.name} knows it at "
            f"{card.soft_tissue:.3f}: the scan's water_per_mm may have to be {ratio:.2f} times what it is",
            PriorWarning,
            stacklevel=2,
        )
