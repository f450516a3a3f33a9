"""Ending early, at a place to go on from."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def told_to_stop(grace: float | None = None) -> Iterator[list[int]]:
    """A list that fills when SIGTERM or SIGINT arrives; a second one takes its usual course.

    A signal that the process was started to ignore (a shell starts what runs in the background so) stays ignored.

    Args:
        grace: seconds after the first within which the caller must have left, or a KeyboardInterrupt makes it leave.
    """
    told: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        told.append(number)
        _restore(before)
        if grace is not None:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, out_of_grace)
            signal.setitimer(signal.ITIMER_REAL, grace)

    def out_of_grace(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        for kind in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(kind) is not signal.SIG_IGN:
                before[kind] = signal.signal(kind, note)
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        yield told
    finally:
        if told and grace is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(before)


def _restore(handlers: dict[int, Any]) -> None:
    for kind, handler in handlers.items():
        # None: it was not set from Python and cannot be put back.
        signal.signal(kind, signal.SIG_DFL if handler is None else handler)
