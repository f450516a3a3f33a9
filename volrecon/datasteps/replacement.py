"""Steps that replace what the data determine and keep the rest: DDNM, ILVR, and the parts of MCG.

A^+ is filtered backprojection, FDK or FBP as the geometry has it. With few views it is far from a pseudo-inverse: in
a cone beam on slices of 72 x 72 pixels the largest eigenvalue of A^+ A is 1.4 at 60 views of a turn, 3.5 at 20 and 12
at 8 (Hann window; Ram-Lak 3.5, 5.5, 35), and from 2 on a chain of replacements diverges. `relaxed` divides by it;
clipping, as published, only bounds what each of them adds.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from volrecon.errors import ConfigError
from volrecon.sampling import NoiseKey, standard_normal
from volrecon.solvers.filtered import Filtered, FilteredProjections
from volrecon.solvers.problem import LeastSquares, Measurement
from volrecon.volume import Readable, Slab, Volume, slice_dots, sweep


@dataclass(frozen=True)
class Inverse:
    """A^+ of a measurement's geometry, for any projections of the problem's unit (y/norm, without weights).

    Attributes:
        method: FDK or FBP, whose window and cutoff count; it must serve the scan.
        measurement: of the run; its projections are not read.
        relaxation: a factor of A^+.
    """

    method: Filtered
    measurement: Measurement
    relaxation: float = 1.0

    def __call__(self, problem: LeastSquares, y: Volume) -> "Inverted":
        """A^+ y; one set of projections is held until it is released."""
        # A.scale is the run's unit over the norm; filtered backprojection is linear and undoes both at once.
        given = replace(self.measurement, projections=y, unit_per_mm=problem.A.scale / self.relaxation)
        return Inverted(self.method, self.method.prepare(given))


def relaxed(problem: LeastSquares, inverse: Inverse, iterations: int = 10) -> Inverse:
    """A^+ over the largest eigenvalue of A^+ A where that is above 1, by power iteration.

    An iteration is a projection and a filtered backprojection. Ten find the eigenvalue to some percent, and a chain of
    replacements stays finite even if it is twice as large.
    """
    space, shape = problem.space, problem.A.domain_shape
    g, gain = space.empty(shape), 1.0
    for start, stop in space.blocks(shape):
        g.write(start, standard_normal(NoiseKey(0), start, (stop - start, *shape[1:])))
    (before,) = sweep(space, lambda slab, g: ([], [slice_dots(g, g)]), [g])
    for _ in range(iterations):
        seen, square = _filtered(problem, inverse, replace(problem.A, root_weights=None)(g))
        g.release()
        g, gain = seen, (square / before) ** 0.5
        before = square
    g.release()
    return replace(inverse, relaxation=inverse.relaxation / max(1.0, gain))


@dataclass(frozen=True)
class Inverted(Readable):
    """A^+ y (z, y, x), computed slab by slab as it is read."""

    method: Filtered
    projections: FilteredProjections

    @property
    def shape(self) -> tuple[int, ...]:
        return self.projections.shape

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.method.slices(self.projections, start, stop)

    def release(self) -> None:
        self.projections.filtered.release()


def range_replaced(
    problem: LeastSquares, inverse: Inverse, x0: Volume, clip: tuple[float, float] | None = None
) -> Volume:
    """x0 + A^+(y - A x0): the range of A from the data, its null space from x0 (Wang et al., DDNM, ICLR 2023).

    One projection and one filtered backprojection; volumes held besides x0: the result, and two sets of projections
    besides y. With a clip one filtered backprojection and one set more.

    Args:
        x0: left as it is. Masked pixels count as already explained by it.
        clip: bounds in the run's unit for A^+ y and A^+ A x0, each on its own; None adds A^+ of the difference.
    """
    if clip is not None and not clip[0] < clip[1]:
        raise ConfigError(f"A^+ terms cannot be clipped to {clip}; the lower bound comes first")
    out = problem.space.empty(x0.shape)
    projected, r = _unexplained(problem, x0)
    if clip is None:
        projected.release()
    difference = inverse(problem, r)
    r.release()
    if clip is None:
        sweep(problem.space, lambda slab, x, d: ([x + d], []), [x0, difference], [out])
    else:
        own = inverse(problem, projected)
        projected.release()
        low, high = clip

        def replaced(slab: Slab, x: torch.Tensor, own: torch.Tensor, d: torch.Tensor) -> tuple[list, list]:
            return [x + (own + d).clamp(low, high) - own.clamp(low, high)], []

        sweep(problem.space, replaced, [x0, own, difference], [out])
        own.release()
    difference.release()
    return out


def filtered_residual(problem: LeastSquares, inverse: Inverse, x0: Volume) -> tuple[Volume, float]:
    """A^+(y - A x0) as a new volume, and its squared norm: MCG's direction before the denoiser's Jacobian.

    Chung et al. (MCG, NeurIPS 2022) descend ||A^+(y - A x0)||. For a pseudo-inverse A'A^+'A^+ r = A^+ r, so
    the gradient of half its square is -A^+ r, and no adjoint of a filter is needed. One projection and one filtered
    backprojection; one volume and, while it runs, two sets of projections besides y.
    """
    projected, r = _unexplained(problem, x0)
    projected.release()
    return _filtered(problem, inverse, r)


def null_part(problem: LeastSquares, inverse: Inverse, g: Volume) -> Volume:
    """g - A^+ A g, what the data do not see of g; cost as `filtered_residual`, g is left as it is."""
    projected = replace(problem.A, root_weights=None)(g)
    seen, out = inverse(problem, projected), problem.space.empty(g.shape)
    projected.release()
    sweep(problem.space, lambda slab, g, seen: ([g - seen], []), [g, seen], [out])
    seen.release()
    return out


def low_frequencies_replaced(x: torch.Tensor, reference: torch.Tensor, factor: int) -> torch.Tensor:
    """x + P(reference - x), P the mean over squares of `factor` pixels (Choi et al., ILVR, ICCV 2021).

    A rule of a slab (slices, y, x); the reference is noised to the level of x. Squares at the far edges may be cut.

    Raises:
        ConfigError: a factor below 1.
    """
    if factor < 1:
        raise ConfigError(f"squares of {factor} pixels; ILVR needs at least 1")
    means = F.avg_pool2d(reference - x, factor, ceil_mode=True, count_include_pad=False)
    wide = means.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    return x + wide[:, : x.shape[1], : x.shape[2]]


def _filtered(problem: LeastSquares, inverse: Inverse, y: Volume) -> tuple[Volume, float]:
    """A^+ y as a new volume, and its squared norm; y is released."""
    found, out = inverse(problem, y), problem.space.empty(problem.A.domain_shape)
    y.release()
    (square,) = sweep(problem.space, lambda slab, block: ([block], [slice_dots(block, block)]), [found], [out])
    found.release()
    return out, square


def _unexplained(problem: LeastSquares, x: Readable) -> tuple[Volume, Volume]:
    """A x and y - A x without weights, in the unit of y; masked pixels leave nothing."""
    projected = replace(problem.A, root_weights=None)(x)
    root = problem.A.root_weights

    def subtract(slab: Slab, Ax: torch.Tensor, y: torch.Tensor, *w: torch.Tensor) -> tuple[list, list]:
        if not w:
            return [y - Ax], []
        return [torch.where(w[0] > 0, y / w[0].clamp(min=1e-30) - Ax, torch.zeros_like(Ax))], []

    r = problem.space.empty(projected.shape)
    sweep(problem.space, subtract, [projected, problem.y, *([root] if root else [])], [r])
    return projected, r
