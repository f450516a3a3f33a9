"""A method run on nothing, to count what it will hold: every volume, every block, every temporary.

The method's own code runs, on the job's own geometry and with whole slices, but every pass over an array takes three
low blocks of ones: the one in work, the next one being read, the last one being written. What is alive in each pass
is counted, at two block heights; between the two all is linear, so that any other height can be told.
"""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from volrecon.solvers import Measurement, Method
from volrecon.store.scratch import UNWRITTEN
from volrecon.volume import CHUNK_BYTES, Readable, Space, Volume, slice_bytes

BLOCKS = 3

Batch = TypeVar("Batch")


@dataclass
class Pass:
    """One pass over arrays.

    Attributes:
        phase: "prepare", "start" or "step".
        shape: of the array whose blocks set the height.
        height: slices of a block, as rehearsed.
        held: bytes of all volumes alive.
        kept: bytes alive besides the volumes when the pass begins, such as a network; the same for any height.
        work: most bytes alive besides those: blocks and temporaries.
        moved: bytes read from and written to volumes, for one block.
        seconds: for one block.
        count: batches of tiles in the pass; None where it goes block by block.
    """

    phase: str
    shape: tuple[int, ...]
    height: int
    held: int
    count: int | None = None
    kept: int = 0
    work: int = 0
    moved: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Rehearsal:
    """What was counted: every pass, the bytes of a State, and how many steps there are."""

    passes: list[Pass]
    state: int
    steps: int


def rehearse(method: Method, measurement: Measurement, height: int, on_disk: bool) -> Rehearsal:
    """Run `prepare`, `init` and one `step` of a method on nothing.

    Args:
        measurement: its projections and its space are not used.
        height: slices of a block.
        on_disk: whether volumes are read into blocks and written from them, or are where they are used.
    """
    counter = _Counter()
    space = _HollowSpace(counter, height, on_disk)
    source = _HollowSource(measurement.scan.shape)
    with counter:
        problem = method.prepare(replace(measurement, projections=source, space=space, known={}))
        space.phase = "start"
        state = method.init(problem)
        space.phase = "step"
        after, _ = method.step(problem, state)
    state_bytes = sum(_bytes(volume.shape) for volume in after.volumes.values())
    return Rehearsal(space.passes, state_bytes, method.steps(problem))


def _bytes(shape: tuple[int, ...]) -> int:
    return slice_bytes(shape) * shape[0]


class _Counter(TorchFunctionMode):
    """Bytes of torch's and numpy's arrays that were made while it is entered and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ignoring = self._traced = False
        self._others = 0

    def __enter__(self) -> _Counter:
        self._traced = tracemalloc.is_tracing()
        tracemalloc.start()
        self._others = tracemalloc.get_traced_memory()[0]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if not self._traced:
            tracemalloc.stop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                # Memory that came from numpy is counted there.
                self._count(tensor.untyped_storage(), 0 if self._ignoring or func is torch.from_numpy else 1)
        return out

    def _count(self, storage: Any, times: int) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = times * storage.nbytes()
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.alive -= size

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        self._ignoring = True
        try:
            yield
        finally:
            self._ignoring = False

    def begin(self) -> int:
        """Forget the highest level so far; the present one."""
        tracemalloc.reset_peak()
        self.most = self.alive
        return self.alive + tracemalloc.get_traced_memory()[0] - self._others

    def highest(self) -> int:
        return self.most + tracemalloc.get_traced_memory()[1] - self._others


class _HollowSpace(Space):
    """Volumes of ones without memory; a pass takes `BLOCKS` blocks and is written down."""

    def __init__(self, counter: _Counter, height: int, on_disk: bool) -> None:
        super().__init__()
        self.counter, self.low, self.on_disk = counter, height, on_disk
        self.passes: list[Pass] = []
        self.phase = "prepare"
        self.held, self.reading = 0, False
        self.unwritten: deque[torch.Tensor] = deque(maxlen=UNWRITTEN)
        self._ones: dict[tuple[int, ...], torch.Tensor] = {}

    def empty(self, shape: tuple[int, ...]) -> Volume:
        return _HollowVolume(self, shape)

    def flush(self) -> None:
        """Nothing is written."""

    def height(self, shape: tuple[int, ...]) -> int:
        return min(self.low, shape[0])

    def blocks(self, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        height = self.height(shape)
        count = min(BLOCKS, -(-shape[0] // height))
        first = (shape[0] - count * height) // 2  # in the middle, where there are neighbours
        first = max(first, 0)
        starts = range(first, min(first + count * height, shape[0]), height)
        blocks = ((start, min(start + height, shape[0])) for start in starts)
        yield from self._noted(Pass(self.phase, tuple(shape), height, self.held), blocks, count)

    def tiles(self, shape: tuple[int, ...], batches: Iterable[Batch], count: int) -> Iterator[Batch]:
        one = Pass(self.phase, tuple(shape), self.height(shape), self.held, count)
        yield from self._noted(one, itertools.islice(batches, BLOCKS), min(BLOCKS, count))

    def _noted(self, one: Pass, items: Iterable[Batch], count: int) -> Iterator[Batch]:
        """The items of a pass, while what they take is counted."""
        self.passes.append(one)
        self.reading = False
        started, one.kept = time.perf_counter(), self.counter.begin()
        yield from items
        one.seconds = (time.perf_counter() - started) / count
        one.work = self.counter.highest() - one.kept
        one.moved //= count
        self.unwritten.clear()

    def change(self, count: int) -> None:
        """A volume is made, or goes."""
        self.held += count
        for one in self.passes[-1:]:
            one.held = max(one.held, self.held)

    def moving(self, count: int) -> None:
        for one in self.passes[-1:]:
            one.moved += count

    def ones(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A block that is there anyway."""
        if shape not in self._ones:
            with self.counter.ignoring():
                self._ones[shape] = torch.ones(shape)
        return self._ones[shape]


class _HollowVolume(Volume):
    def __init__(self, space: _HollowSpace, shape: tuple[int, ...]) -> None:
        self.space, self.shape = space, shape
        space.change(_bytes(shape))
        self._gone = weakref.finalize(self, space.change, -_bytes(shape))

    def read(self, start: int, stop: int) -> torch.Tensor:
        shape = (stop - start, *self.shape[1:])
        self.space.reading = True
        self.space.moving(_bytes((max(stop - start, 1), *self.shape[1:])))
        return torch.ones(shape) if self.space.on_disk else self.space.ones(shape)

    def fetch(self, start: int, stop: int) -> Callable[[], torch.Tensor]:
        if not self.space.on_disk:
            return super().fetch(start, stop)
        block = [self.read(start, stop)]
        return block.pop

    def write(self, start: int, block: torch.Tensor) -> None:
        self.space.moving(block.numel() * 4)
        if self.space.on_disk:
            self.space.unwritten.append(block)
            # Reads wait for the writes before them. Where there are none, a slow disk lets as many wait as may.
            while not self.space.reading and len(self.space.unwritten) < UNWRITTEN:
                self.space.unwritten.append(block.clone())

    def add(self, start: int, block: torch.Tensor) -> None:
        if self.space.on_disk:
            super().add(start, block)
        else:
            self.space.moving(2 * block.numel() * 4)

    def release(self) -> None:
        self._gone()


@dataclass(frozen=True)
class _HollowSource(Readable):
    """Projections on disk, which are decoded chunk by chunk."""

    whole: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole

    def read(self, start: int, stop: int) -> torch.Tensor:
        block = torch.ones(stop - start, *self.shape[1:])
        torch.empty(min(math.prod(self.shape), 2 * CHUNK_BYTES // 4))  # a chunk as stored and as decoded
        return block
