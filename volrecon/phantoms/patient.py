"""The anatomy-like phantom: draws one patient from a seed and renders it slab by slab."""

import math

import numpy as np

from volrecon.errors import ConfigError
from volrecon.geometry import VolumeGeometry
from volrecon.phantoms.abdomen import Abdomen
from volrecon.phantoms.canvas import Axes, Canvas, Organ
from volrecon.phantoms.chest import Chest
from volrecon.phantoms.skeleton import Skeleton
from volrecon.phantoms.texture import Lattice
from volrecon.phantoms.torso import Diaphragm, Torso

SLAB_VOXELS = 2**18
"""Voxels painted at once, at least one slice: each temporary is about 1 MB and stays in a core's cache."""

FINE_CELLS, COARSE_CELLS = 96, 26
"""The two bands of the texture: their grains are about 1/48 and 1/13 of the box wide."""


def anatomy(volume: VolumeGeometry, seed: int, water_per_mm: float = 0.02) -> np.ndarray:
    """A thorax and abdomen in contrast-enhanced CT, procedural, made for tests and demonstrations.

    The object is defined in the normalised coordinates of the grid's box: grids that cut one box differently
    show one patient, at their own resolution, and a box that is not a cube shows the patient stretched.
    Slices much thicker than the pixels are means of thin ones. +x is the patient's left, +y the back, +z the head;
    the outer 4% of the box on every side are air, but for partial volume on grids of under 32 voxels.

    Args:
        volume: the grid.
        seed: at least 0; draws shapes, vessel trees, lesions and texture, from a local Philox generator.
        water_per_mm: attenuation of water, which is 0 HU; mu = water_per_mm * (1 + HU / 1000).

    Returns:
        (z, y, x) float32, 1/mm; never negative, air around the body exactly 0.

    Raises:
        ConfigError: a negative seed, or a water attenuation that is not above 0.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0")
    if not math.isfinite(water_per_mm) or water_per_mm <= 0:
        raise ConfigError(f"water_per_mm is {water_per_mm}; it must be above 0 (about 0.02 at 70 keV)")
    rng = np.random.Generator(np.random.Philox(seed))
    torso = Torso.draw(rng)
    diaphragm = Diaphragm.draw(rng)
    chest = Chest.draw(rng, torso, diaphragm)
    organs = (torso, Abdomen.draw(rng, torso, diaphragm), chest, Skeleton.draw(rng, torso))
    bands = ((0.8, Lattice.draw(rng, FINE_CELLS)), (0.6, Lattice.draw(rng, COARSE_CELLS)))

    out = np.zeros(volume.shape, np.float32)
    thin, axes = _thin_axes(volume)
    rows = max(1, SLAB_VOXELS // (volume.shape[1] * volume.shape[2]))
    for start in range(0, len(axes[0]), rows):
        slab = (axes[0][start : start + rows], axes[1], axes[2])
        relative = _relative_to_water(slab, torso, organs, bands)
        for k, plane in enumerate(relative, start):
            out[k // thin] += plane * np.float32(water_per_mm / thin)
    return out


def _thin_axes(volume: VolumeGeometry) -> tuple[int, Axes]:
    """How many thin slices, about as thick as a pixel is wide, make a slice of the grid; their voxel centres."""
    depth, height, width = volume.shape
    thin = max(1, round(math.sqrt(height * width) / depth))
    z, y, x = (((2 * np.arange(n) + 1) / n - 1).astype(np.float32) for n in (depth * thin, height, width))
    return thin, (z, y, x)


def _relative_to_water(
    axes: Axes, torso: Torso, organs: tuple[Organ, ...], bands: tuple[tuple[float, Lattice], ...]
) -> np.ndarray:
    """Attenuation over water's of one slab of thin slices, float32 (z, y, x)."""
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    voxel = 2 / math.sqrt(shape[1] * shape[2])
    place = torso.warped(axes, voxel)
    canvas = Canvas(axes, voxel, place, np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    for organ in organs:
        organ.paint(canvas)
    for share, band in bands:
        canvas.hu[...] += share * canvas.texture * band.on(axes, voxel)
    return np.asarray(np.maximum(1 + canvas.hu / 1000, 0) * torso.cover(canvas))
