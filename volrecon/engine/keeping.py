"""When a run commits its state, and when it ends early."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field, replace
from typing import Any

from volrecon.engine.solving import Course
from volrecon.errors import StoppedError
from volrecon.store import Generation, Generations
from volrecon.volume import Space, slice_bytes

OVERHEAD = 0.05
"""The part of a run's time that commits may take."""
DISK_SPEED = 100e6
"""Bytes a second that the first commit is taken to manage; later ones are measured."""
GRACE = 20.0
"""Seconds a run has after SIGTERM to finish its step."""


@dataclass
class Committer:
    """A `Keeper` that commits generations on a schedule.

    Attributes:
        generations: where.
        space: of the run's volumes.
        every: seconds between commits; None for as often as OVERHEAD allows.
        told: signals that arrived; see `told_to_stop`.
        deadline: time.monotonic() after which no step may end, or None.
    """

    generations: Generations
    space: Space
    told: list[int]
    every: float | None = None
    deadline: float | None = None
    log: Any = None
    last: float = field(default_factory=time.monotonic)
    cost: float | None = None
    before: float = field(default_factory=time.monotonic)
    longest: float = 0.0
    committed: int = 0

    def saved(self) -> Generation | None:
        found = self.generations.latest(self.space)
        if found:
            self.space.block_bytes = min(self.space.block_bytes, found.about["block_bytes"])
        self.committed = found.step if found else 0
        return found

    def begin(self) -> None:
        self.last = self.before = time.monotonic()

    def keep(self, course: Course, known: dict[str, float]) -> None:
        now = time.monotonic()
        self.longest, self.before = max(self.longest, now - self.before), now
        if self.cost is None:
            self.cost = sum(slice_bytes(v.shape) * v.shape[0] for v in course.state.volumes.values()) / DISK_SPEED
        ending = self._ending(now)
        due = self.cost / OVERHEAD if self.every is None else self.every
        if ending or now - self.last >= due:
            generation = course.generation(known)
            # Blocks shrink when memory runs out: who goes on from here begins with what fitted.
            about = {**generation.about, "block_bytes": self.space.block_bytes}
            self.generations.commit(replace(generation, about=about))
            self.last = self.before = time.monotonic()
            self.cost, self.committed = self.last - now, course.state.step
            if self.log:
                self.log(event="commit", step=course.state.step, seconds=round(self.cost, 3))
        if ending:
            raise StoppedError(
                f"stopped after step {course.state.step} ({ending}); its state is committed, the same command goes on"
            )

    def _ending(self, now: float) -> str | None:
        if self.told:
            return signal.Signals(self.told[0]).name
        if self.deadline is not None and now + self.longest + 2 * (self.cost or 0.0) > self.deadline:
            return "--max-time"
        return None
