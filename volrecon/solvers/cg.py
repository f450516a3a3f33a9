"""Conjugate gradients on volumes (Hestenes and Stiefel 1952), for data steps that start near the solution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch

from volrecon.errors import ConfigError
from volrecon.volume import Readable, Slab, Space, Volume, slice_dots, sweep


class Product(Readable, Protocol):
    """B p, computed as it is read, once.

    Attributes:
        curvature: <p, B p>.
    """

    @property
    def curvature(self) -> float: ...

    def release(self) -> None:
        """Give back what the product holds."""


class Stop(Enum):
    """Why conjugate gradients ended."""

    CONVERGED = "the residual is as small as asked"
    ITERATIONS = "all iterations are done"
    NOT_POSITIVE = "a direction has no curvature: the operator is not positive, or its transpose is no transpose"
    NOT_FINITE = "a number is not finite"


@dataclass(frozen=True)
class Solution:
    """Where conjugate gradients ended.

    Attributes:
        x: a new volume.
        alphas: the step along each direction, one an iteration.
        squares: <r, r> before each iteration and, where it is known, after the last.
    """

    x: Volume
    stop: Stop
    alphas: tuple[float, ...]
    squares: tuple[float, ...]

    @property
    def descent(self) -> float:
        """By how much <x, B x> - 2 <b, x> fell: the sum of alpha <r, r>."""
        return math.fsum(alpha * square for alpha, square in zip(self.alphas, self.squares, strict=False))


def conjugate_gradients(
    B: Callable[[Volume], Product], x: Volume, residual: Readable, iterations: int, tolerance: float, space: Space
) -> Solution:
    """Go from x towards the solution of B x = b, whose right side enters through the residual alone.

    M iterations apply B M times but read only M - 1 of the products: the last residual would serve nobody.
    Volumes held besides the arguments: the new x, the residual and the direction; for one iteration x and the
    direction. Inner products run over the whole volume.

    Args:
        B: symmetric and positive; B(p) makes a `Product`.
        x: the start (z, y, x); left as it is.
        residual: b - B x, read once.
        iterations: M, at least 1.
        tolerance: stop when ||r|| is at most this fraction of the first; 0 runs all iterations.

    Raises:
        ConfigError: fewer than one iteration, or a tolerance outside [0, 1).
    """
    if iterations < 1 or not 0 <= tolerance < 1:
        raise ConfigError(f"{iterations} CG iterations to a tolerance of {tolerance}: need 1 or more, and 0 to 1")
    own = [space.empty(x.shape) for _ in range(min(iterations, 2))]
    p, r = own[0], own[-1]
    (first,) = sweep(space, lambda slab, r: ([r] * len(own), [slice_dots(r, r)]), [residual], own)
    alphas: list[float] = []
    squares = [first]
    at, stop = x, _judged(first, first, tolerance)
    while stop is None:
        product, beta = B(p), None
        alpha, stop = _step(squares[-1], product.curvature)
        if stop is None:
            alphas.append(alpha)
            if len(alphas) == iterations:
                stop = Stop.ITERATIONS
            else:
                squares.append(_shorten(space, r, product, alpha))
                beta, stop = squares[-1] / squares[-2], _judged(squares[-1], first, tolerance)
        product.release()
        if alpha > 0:
            following = space.empty(x.shape) if at is x else at
            _advance(space, (at, p, r), following, alpha, beta)
            at = following
    for volume in own:
        volume.release()
    return Solution(space.of(x) if at is x else at, stop, tuple(alphas), tuple(squares))


def _judged(square: float, first: float, tolerance: float) -> Stop | None:
    if not math.isfinite(square):
        return Stop.NOT_FINITE
    return Stop.CONVERGED if square <= tolerance**2 * first else None


def _step(square: float, curvature: float) -> tuple[float, Stop | None]:
    """alpha, or why there is none; 0/0 is not taken."""
    if not math.isfinite(curvature):
        return 0.0, Stop.NOT_FINITE
    # A curvature that rounds to nothing beside the residual would throw x out of float32.
    if curvature <= 1e-30 * square:
        return 0.0, Stop.NOT_POSITIVE
    return square / curvature, None


def _shorten(space: Space, r: Volume, product: Product, alpha: float) -> float:
    """r - alpha B p in place; <r, r>."""

    def shorten(slab: Slab, r: torch.Tensor, Bp: torch.Tensor) -> tuple[list, list]:
        new = r - alpha * Bp
        return [new], [slice_dots(new, new)]

    (square,) = sweep(space, shorten, [r, product], [r])
    return square


def _advance(
    space: Space, volumes: tuple[Volume, Volume, Volume], following: Volume, alpha: float, beta: float | None
) -> None:
    """x + alpha p into `following` and, unless it was the last step, r + beta p into p."""
    x, p, r = volumes
    if beta is None:
        sweep(space, lambda slab, x, p: ([x + alpha * p], []), [x, p], [following])
    else:
        sweep(space, lambda slab, x, p, r: ([x + alpha * p, r + beta * p], []), [x, p, r], [following, p])
