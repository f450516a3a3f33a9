"""The application that commands register themselves with, and how they show progress."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reconstruct CT volumes from few or limited-angle projections. Lengths are in mm.",
)

console = Console(highlight=False, soft_wrap=True)
LINES = 10
"""Log lines a run prints where there is no terminal."""


def say(text: str) -> None:
    console.print(text, markup=False)


def printable(text: str) -> str:
    """The text with what a terminal would obey or could not show (control characters, broken names) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def finite(value: float | None) -> float | None:
    """An option's number; a range lets NaN through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


@contextmanager
def shown_progress(name: str, quiet: bool) -> Iterator[Any]:
    """A callback for `engine.run`: a bar with step, residual and time left, or log lines off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield _Lines(name, quiet)
        return
    columns = (
        TextColumn(name),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=1, told="")

        def update(progress: Any) -> None:
            bar.update(task, completed=progress.step, total=progress.steps, told=_told(progress.info))

        yield update


class _Lines:
    """Every tenth of the steps as a line."""

    def __init__(self, name: str, quiet: bool) -> None:
        self.name, self.quiet = name, quiet

    def __call__(self, progress: Any) -> None:
        every = max(1, progress.steps // LINES)
        if self.quiet or (progress.step % every and progress.step != progress.steps):
            return
        told = _told(progress.info)
        print(
            f"{self.name}: step {progress.step}/{progress.steps}, {told}{', ' if told else ''}"
            f"{progress.seconds:.0f} s, {progress.seconds_left:.0f} s left",
            file=sys.stderr,
        )


def _told(info: Any) -> str:
    """What a step told, in a few words."""
    sigma = [] if info.sigma is None else [f"sigma {info.sigma:.3g}"]
    return ", ".join([*sigma, *([] if info.residual is None else [f"residual {info.residual:.4f}"])])
