"""A method's steps from first to last: checked, committed, and gone on from."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from volrecon.errors import DivergedError, ResourceError, StorageWarning
from volrecon.memory import ran_out
from volrecon.solvers import Info, Measurement, Method, State
from volrecon.store import Generation
from volrecon.volume import Volume

RISES = 5
"""Steps in a row in which the residual may rise above that of an empty volume before a run counts as diverged."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """What a callback is told after every step.

    Attributes:
        step: steps done.
        steps: how many there are at most.
        seconds: since this process began the run, or went on with it.
        since: steps that were done then.
    """

    step: int
    steps: int
    info: Info
    seconds: float
    since: int = 0

    @property
    def seconds_left(self) -> float:
        return self.seconds / max(self.step - self.since, 1) * (self.steps - self.step)


Callback = Callable[[Progress], None]


@dataclass(frozen=True)
class Course:
    """Where a run is: the State, what its last step told, and how often in a row the residual rose."""

    state: State
    info: Info = field(default_factory=Info)
    rises: int = 0

    def generation(self, known: dict[str, float]) -> Generation:
        """What is committed of it. `known`: of the measurement."""
        filled = {name: self.state.filled.get(name, v.shape[0]) for name, v in self.state.volumes.items()}
        about = {"info": asdict(self.info), "rises": self.rises, "known": dict(known)}
        return Generation(self.state.step, self.state.volumes, filled, self.state.scalars, about)

    @classmethod
    def of(cls, saved: Generation) -> Course:
        """What `generation` made, again."""
        filled = {name: n for name, n in saved.filled.items() if n < saved.volumes[name].shape[0]}
        state = State(saved.step, saved.volumes, saved.scalars, filled)
        return cls(state, Info(**saved.about["info"]), saved.about["rises"])


class Keeper(Protocol):
    """Who keeps the course of a run, so that another process can go on from it."""

    def saved(self) -> Generation | None:
        """What an earlier process kept."""

    def begin(self) -> None:
        """Called before the first step."""

    def keep(self, course: Course, known: dict[str, float]) -> None:
        """Called after every step; may raise what ends the run here."""


def solve(
    method: Method, measurement: Measurement, callback: Callback | None = None, keeper: Keeper | None = None
) -> tuple[Volume, Info]:
    """All steps of a method; the reconstruction in the run's unit and what the last step told.

    Raises:
        DivergedError: a number is not finite, or the residual rose RISES times in a row.
        ResourceError: memory ran out with the smallest blocks.
    """
    started = time.monotonic()
    m = measurement
    saved = keeper.saved() if keeper else None
    if saved is not None:
        m.known.update(saved.about["known"])
    problem = within_memory(m, lambda: method.prepare(m))
    course = Course.of(saved) if saved else Course(within_memory(m, lambda: method.init(problem)))
    del saved
    since = course.state.step
    steps = method.steps(problem)
    if keeper:
        keeper.begin()
    while course.state.step < steps and not (course.state.step and method.finished(course.info)):
        course = _next(method, m, problem, course)
        if callback:
            callback(Progress(course.state.step, steps, course.info, time.monotonic() - started, since))
        if keeper:
            keeper.keep(course, m.known)
    return course.state["x"], course.info


def _next(method: Method, measurement: Measurement, problem: Any, course: Course) -> Course:
    state, info = within_memory(measurement, lambda: method.step(problem, course.state))
    _check_finite(method, state, info)
    last = course.info.residual
    # A regularised fit may rise again; past 1 it is worse than an empty volume.
    worse = last is not None and info.residual is not None and info.residual > max(last, 1.0)
    after = Course(state, info, course.rises + 1 if worse else 0)
    if after.rises >= RISES:
        raise DivergedError(
            f"step {state.step}: the residual rose {RISES} times in a row, to {info.residual:.4g} of the data; "
            f"use a smaller step, or a matched projector."
        )
    return after


def within_memory(measurement: Measurement, call: Callable[[], Result]) -> Result:
    """What `call` gives; where memory runs out in it, again with blocks of half the size.

    Raises:
        ResourceError: also the smallest blocks do not fit.
    """
    space, shape = measurement.space, measurement.volume.shape
    while True:
        try:
            result = call()
            space.flush()
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            reason = str(error) or type(error).__name__
        else:
            return result
        with contextlib.suppress(MemoryError):
            space.flush()  # blocks that wait to be written are memory too
        # Here nobody holds the frames any more in which the arrays of the failed attempt were.
        block_mib = space.block_bytes / 2**20
        if not space.halve(shape):
            raise ResourceError(
                f"memory ran out on a volume of {shape} with blocks of {space.height(shape)} slices, the smallest: "
                f"{reason:.200}. Use compute.tier = 'zarr' if it is 'ram', a smaller grid, or a machine with more."
            )
        warnings.warn(
            f"memory ran out with blocks of {block_mib:.3g} MiB; going on with {space.block_bytes / 2**20:.3g} MiB",
            StorageWarning,
            stacklevel=2,
        )


def _check_finite(method: Method, state: State, info: Info) -> None:
    numbers = {**state.scalars, "residual": info.residual or 0.0, "change": info.change or 0.0}
    wrong = [name for name, value in numbers.items() if not np.isfinite(value)]
    if wrong:
        raise DivergedError(f"step {state.step} of {type(method).__name__}: {', '.join(wrong)} is not finite; stopped")
