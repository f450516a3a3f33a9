"""Ending early, at a place to go on from."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def told_to_stop(grace: float | None = None) -> Iterator[list[int]]:
    """A list that fills when SIGTERM or SIGINT arrives; a second one takes its usual course.

    Args:
        grace: seconds after the first within which the caller must have left, or a KeyboardInterrupt makes it leave.
    """
    told: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        told.append(number)
        signal.signal(number, before[signal.Signals(number)])
        if grace is not None:
            signal.setitimer(signal.ITIMER_REAL, grace)

    def out_of_grace(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = {kind: signal.signal(kind, note) for kind in kinds}
        alarm = signal.signal(signal.SIGALRM, out_of_grace) if grace is not None else None
    except ValueError:  # not the main thread: signals are somebody else's
        yield told
        return
    try:
        yield told
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        if grace is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
