"""Real processes that run jobs: to be killed, told to stop, or measured.

They fork from a server that has imported volrecon and done nothing else, so that each costs a fraction of a second.
"""

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from faulty import UNWOUND, at_boundaries, job, run, small_blocks

from volrecon import engine
from volrecon.jobs import Job
from volrecon.memory import give_back_freed, peak_resident, resident
from volrecon.solvers.cgls import CGLS

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["volrecon.engine", "volrecon.cli.runs", "pytest"])

LONG = 300.0
"""Seconds after which a process of these tests hangs."""


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    """Of a process that ends by itself."""
    process.join(LONG)
    if process.exitcode is None:
        process.kill()
        process.join()
        pytest.fail("a process hangs")
    return process.exitcode


def run_small(folder: Path, method: str, tier: str, die_at: int = 0) -> None:
    """A tiny run; from the boundary `die_at` on there is no process any more."""
    small_blocks(pytest.MonkeyPatch().setattr)
    left = [die_at]

    def count_down(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)

    with at_boundaries(count_down, UNWOUND):
        run(job(method, tier), folder)


def run_command(folder: Path, printed: str, *arguments: str) -> None:
    """A command of the command line, what it prints in a file. After its second step CGLS waits for the file `go`."""
    small_blocks(pytest.MonkeyPatch().setattr)
    os.chdir(folder)
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    step = CGLS.step

    def pausing(self, problem, state):
        after = step(self, problem, state)
        if state.step == 1:
            Path("paused").touch()
            wait_for(Path("go"))
        return after

    CGLS.step = pausing
    sys.argv = ["volrecon", *arguments]
    from volrecon.cli import main

    main()


def wait_for(path: Path) -> None:
    until = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def run_measured(folder: Path, the_job: Job, told: str) -> None:
    """A run whose memory is measured: `resident` before it, the `peak`, and the `plan`'s figures, in a JSON file."""
    before = resident()
    give_back_freed()
    checked = engine.check(the_job, folder)
    engine.run(checked)
    events = [json.loads(line) for line in (checked.out / "log.jsonl").read_text().splitlines()]
    figures = {"resident": before, "peak": peak_resident(), "cpu": time.process_time(), **events[0]}
    (folder / told).write_text(json.dumps(figures))


def killed_at_random(folder: Path, method: str, tier: str, seconds: float, rng: random.Random) -> None:
    """Start a run of about so many seconds, and kill it somewhere."""
    process = start(run_small, folder, method, tier)
    time.sleep(rng.uniform(0, 1.1 * seconds))
    process.kill()
    process.join()


def done_again(out: Path) -> list[int]:
    """Steps that the log says were done after they were committed."""
    committed, again = 0, []
    for line in (out / "log.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "commit":
            committed = event["step"]
        if event["event"] == "step" and event["step"] <= committed:
            again.append(event["step"])
    return again
