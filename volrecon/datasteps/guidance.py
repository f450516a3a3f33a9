"""Guidance by the data's gradient through the denoiser (Chung et al., DPS, ICLR 2023), in two forms.

With D the estimate of x and J its Jacobian, g = J'A'(y - A D), and x <- x + step g:
    squared       step = zeta, of A with norm 1; from 2 on, where J is near 1, the iteration diverges
    unit length   step = zeta/||y - A D||; a step is at most zeta long

D's residual is `data_residual`; g is the prior's `vjp` of `problem.A.T(residual.r)`, whose slabs are computed as they
are read. One projection and one backprojection a step; volumes held besides x and D: g, and one set of projections.
"""

import numpy as np
import torch

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.solvers.normal import Residual
from volrecon.solvers.problem import LeastSquares
from volrecon.volume import Space, Volume, sweep

LARGEST_UNIT_STEP = 1e6


def squared_steps(problem: LeastSquares, zeta: float) -> np.ndarray:
    """The step of every slice in the squared form, (z,): zeta.

    Raises:
        ConfigError: zeta outside (0, 2).
    """
    if not 0 < zeta < 2:
        raise ConfigError(f"zeta is {zeta}; the squared form needs 0 < zeta < 2, or it diverges")
    return np.full(problem.A.domain_shape[0], zeta)


def unit_steps(problem: LeastSquares, zeta: float, left: Residual) -> np.ndarray:
    """The step of every slice in the unit-length form, (z,): zeta over the norm of what is left of its data.

    Where the rays stay in their slices every slice has a norm of its own, so that a step does not depend on how many
    slices there are; else all share the volume's. A slice whose data fit exactly, or which has none, does not move.

    Args:
        zeta: longest step, in the run's unit times sqrt(voxels).

    Raises:
        ConfigError: zeta outside (0, 1e6].
    """
    if not 0 < zeta <= LARGEST_UNIT_STEP:
        raise ConfigError(f"zeta is {zeta}; the unit-length form needs 0 < zeta <= {LARGEST_UNIT_STEP:g}")
    scan, volume = problem.A.operator.scan_geometry, problem.A.operator.volume_geometry
    if separates_slices(scan):
        squares = _slice_squares(scan, volume, left.row_squares)
    else:
        squares = np.full(volume.shape[0], left.squared)
    return np.divide(zeta, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


def add_scaled(space: Space, x: Volume, g: Volume, steps: np.ndarray) -> None:
    """x + steps g in place, a step a slice (z,); g is left as it is."""
    wide = torch.from_numpy(steps.astype(np.float32))[:, None, None]
    sweep(space, lambda slab, x, g: ([x + wide[slab.start : slab.stop] * g], []), [x, g], [x])


def separates_slices(scan: ScanGeometry) -> bool:
    """Whether a detector row sees one height, the same in every view: level parallel beams and stacks of fans."""
    forms = scan.pixel_forms()[:, 1]
    return scan.beam != "cone" and bool(np.allclose(forms, [0, 0, *forms[0, 2:]], rtol=0, atol=1e-6))


def _slice_squares(scan: ScanGeometry, volume: VolumeGeometry, row_squares: np.ndarray) -> np.ndarray:
    """Squared norms by slice from those by row: of the rows at the slice's height, as many as it is thick."""
    a_mm, at_0 = scan.pixel_forms()[0, 1, 2:]
    height, rows = volume.voxel_zyx_mm[0], len(row_squares)
    where = a_mm * (volume.origin_xyz_mm[2] + height * np.arange(volume.shape[0])) + at_0
    squares = abs(a_mm) * height * np.interp(where, np.arange(rows), row_squares)
    return np.where((where >= -0.5) & (where <= rows - 0.5), squares, 0.0)
