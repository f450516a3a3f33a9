"""Fault matrix, being told to stop (K7): SIGTERM, Ctrl-C and --max-time end at a commit; the same command goes on."""

import json
import os
import signal
import time

import pytest
from faulty import METHODS, committed, contents, job, run

from volrecon import engine
from volrecon.engine import keeping, running
from volrecon.errors import StoppedError
from volrecon.solvers.cgls import CGLS

SLOWLY = 1e9
"""compute.commit_seconds so long that only the end commits."""


def stop_at(step: int, the_job, folder, kinds=(signal.SIGTERM,), **options):
    """Run, and send the process signals after a step."""
    steps = []

    def tell(progress):
        steps.append(progress.step)
        for kind in kinds if progress.step == step else ():
            os.kill(os.getpid(), kind)

    try:
        engine.run(engine.check(the_job, folder), tell, **options)
    finally:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    return steps


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("tier", ["ram", "zarr"])
def test_K7_a_signal_ends_at_a_commit(small, undisturbed, tier, kind):
    the_job = job("cgls", tier, commit_seconds=SLOWLY)
    expected, _ = undisturbed(the_job)
    with pytest.raises(StoppedError, match=rf"after step 2 \({kind.name}\); its state is committed") as caught:
        stop_at(2, the_job, small, (kind,))
    assert caught.value.exit_code == 130
    assert committed(small / "run") == 2
    assert run(the_job, small) == [3]
    assert contents(small / "run" / "volume.zarr") == expected


def test_K7_at_the_last_step(small, undisturbed):
    """Nothing is left to compute, but the volume is not written yet."""
    the_job = job("fdk", "zarr", commit_seconds=SLOWLY)
    expected, _ = undisturbed(the_job)
    with pytest.raises(StoppedError, match="after step 3"):
        stop_at(3, the_job, small)
    assert run(the_job, small) == []
    assert contents(small / "run" / "volume.zarr") == expected


def test_K7_a_step_longer_than_the_grace_keeps_the_last_commit(small, undisturbed, monkeypatch):
    the_job = job("cgls", "ram")
    expected, _ = undisturbed(the_job)
    step = CGLS.step

    def slow(self, problem, state):
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        return step(self, problem, state)

    monkeypatch.setattr(running, "GRACE", 0.1)
    monkeypatch.setattr(CGLS, "step", slow)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(the_job, small)
    assert time.monotonic() - started < 15
    monkeypatch.setattr(CGLS, "step", step)
    assert committed(small / "run") == 2
    assert run(the_job, small) == [3]
    assert contents(small / "run" / "volume.zarr") == expected
    assert keeping.GRACE == 20


def test_K7_a_second_ctrl_c_ends_at_once(small, undisturbed):
    """Without a commit of the step it is in; the one before stands."""
    the_job = job("cgls", "ram")
    expected, _ = undisturbed(the_job)
    with pytest.raises(KeyboardInterrupt):
        stop_at(2, the_job, small, (signal.SIGINT, signal.SIGINT))
    assert committed(small / "run") == 1
    assert run(the_job, small) == [2, 3]
    assert contents(small / "run" / "volume.zarr") == expected


def test_K7_on_the_command_line(small, cli, monkeypatch):
    """Exit code 130, and what to do."""
    step = CGLS.step

    def told(self, problem, state):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, problem, state)

    monkeypatch.setattr(CGLS, "step", told)
    command = ["run", "--scan", "scan.zarr", "--method", "cgls", "--out", "run", "--set", "method.iterations=2"]
    command += ["--set", "compute.tier=ram", "--quiet"]
    printed = cli(*command, code=130)
    assert "stopped after step 1 (SIGTERM)" in printed
    assert "the same command goes on" in printed
    monkeypatch.setattr(CGLS, "step", step)
    assert "wrote" in cli(*command)
    events = [json.loads(line)["event"] for line in (small / "run" / "log.jsonl").read_text().splitlines()]
    assert events.count("step") == 2


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a step moves it on."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

        def perf_counter(self):
            return self.now

    clock = Clock()
    for module in (running, keeping):
        monkeypatch.setattr(module, "time", clock)
    return clock


def lasting(clock, monkeypatch, prepare: float, step: float) -> None:
    """Have CGLS take so long."""

    def slowed(call, seconds):
        def slow(self, *arguments):
            clock.now += seconds
            return call(self, *arguments)

        return slow

    monkeypatch.setattr(CGLS, "prepare", slowed(CGLS.prepare, prepare))
    monkeypatch.setattr(CGLS, "step", slowed(CGLS.step, step))


@pytest.mark.parametrize(("limit", "done"), [(25.0, 2), (15.0, 1), (35.0, 3), (1.0, 1)])
def test_max_time_ends_before_a_step_would_go_over_it(small, undisturbed, monkeypatch, clock, limit, done):
    the_job = job("cgls", "ram", commit_seconds=SLOWLY)
    the_job = the_job.model_copy(update={"method": {**METHODS["cgls"], "iterations": 4}})
    expected, _ = undisturbed(the_job)
    lasting(clock, monkeypatch, prepare=0.0, step=10.0)
    with pytest.raises(StoppedError, match=rf"after step {done} \(--max-time\)"):
        run(the_job, small, max_seconds=limit)
    assert committed(small / "run") == done
    assert run(the_job, small) == list(range(done + 1, 5))
    assert contents(small / "run" / "volume.zarr") == expected


def test_max_time_long_enough(small, undisturbed, monkeypatch, clock):
    the_job = job("cgls", "ram", commit_seconds=SLOWLY)
    lasting(clock, monkeypatch, prepare=50.0, step=10.0)
    assert run(the_job, small, max_seconds=95.0) == [1, 2, 3]
    assert committed(small / "run") == 0


def test_a_long_preparation_is_not_taken_for_a_long_step(small, monkeypatch, clock):
    """Else a run with --max-time would do one step each time it is started."""
    the_job = job("cgls", "ram", commit_seconds=SLOWLY)
    lasting(clock, monkeypatch, prepare=50.0, step=10.0)
    with pytest.raises(StoppedError, match="after step 2"):
        run(the_job, small, max_seconds=75.0)


def commits_of(the_job, folder, monkeypatch, clock, seconds: float) -> list[int]:
    """The steps that a run commits, each commit so long."""
    commit, commits = running.Generations.commit, []

    def slow(self, generation):
        clock.now += seconds
        commits.append(generation.step)
        commit(self, generation)

    monkeypatch.setattr(running.Generations, "commit", slow)
    run(the_job, folder)
    return commits


def test_commits_take_a_small_part_of_the_time(small, monkeypatch, clock):
    """Steps of 10 s and commits of 4 s: one in nine steps, so that it is below 5 %."""
    the_job = job("cgls", "ram", commit_seconds=None)
    the_job = the_job.model_copy(update={"method": {**METHODS["cgls"], "iterations": 40}})
    lasting(clock, monkeypatch, prepare=0.0, step=10.0)
    assert commits_of(the_job, small, monkeypatch, clock, 4.0) == [1, 9, 17, 25, 33]


def test_commit_seconds(small, monkeypatch, clock):
    the_job = job("cgls", "ram", commit_seconds=25.0)
    the_job = the_job.model_copy(update={"method": {**METHODS["cgls"], "iterations": 8}})
    lasting(clock, monkeypatch, prepare=0.0, step=10.0)
    assert commits_of(the_job, small, monkeypatch, clock, 0.0) == [3, 6]
