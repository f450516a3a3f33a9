"""Fault matrix, numerics: N2 (degenerate systems), N4 (numbers out of range), N5 (divergence)."""

import itertools
import json

import numpy as np
import pytest
import torch
from balls import GRID, MU, ball_projections, small_scan

from volrecon import engine, jobs
from volrecon.errors import ConfigError, DivergedError, ResourceError
from volrecon.geometry import VolumeGeometry
from volrecon.jobs import Job, resolve_method
from volrecon.solvers import METHODS, Info, Measurement, State
from volrecon.solvers.problem import Iterative, LeastSquares
from volrecon.volume import RamSpace, RamVolume

ITERATIVE = [name for name in METHODS if METHODS[name].kind == "iterative"]


def measured(y: np.ndarray, grid=GRID) -> Measurement:
    return Measurement(RamVolume(torch.from_numpy(y)), small_scan("parallel"), grid, RamSpace(), 2 * MU)


@pytest.mark.parametrize("name", ITERATIVE)
def test_N2_no_data(name):
    x, info = engine.solve(METHODS[name](iterations=3), measured(np.zeros(small_scan("parallel").shape, np.float32)))
    assert not x.read(0, 20).any()
    assert info.residual == 0.0


@pytest.mark.parametrize("name", ITERATIVE)
def test_N2_an_operator_that_sees_nothing(name):
    away = VolumeGeometry(GRID.shape, GRID.voxel_zyx_mm, (0.0, 0.0, 900.0))
    with pytest.raises(ConfigError, match="no view sees the volume"):
        engine.solve(METHODS[name](iterations=3), measured(ball_projections(small_scan("parallel")), away))


@pytest.mark.parametrize("name", ITERATIVE)
def test_N2_everything_masked(name):
    """No pixel has any weight: as an operator that sees nothing."""
    with pytest.raises(ConfigError, match="no ray is left"):
        engine.solve(METHODS[name](iterations=3), measured(np.full(small_scan("parallel").shape, np.nan, np.float32)))


@pytest.mark.parametrize("value", [-1.0, float("nan"), 1e30, float("inf")])
@pytest.mark.parametrize(
    ("name", "key"), [("tv", "lam"), ("tv", "rho"), ("sirt", "relaxation"), ("fdk", "cutoff"), ("tv", "cg_iterations")]
)
def test_N4_numbers_out_of_range(name, key, value):
    with pytest.raises(ConfigError, match=rf"\n  {key}: "):
        resolve_method({"algorithm": name, key: value})


@pytest.mark.parametrize(
    ("name", "key"), [("tv", "rho"), ("sirt", "relaxation"), ("fdk", "cutoff"), ("tv", "iterations")]
)
def test_N4_zero_where_it_means_nothing(name, key):
    with pytest.raises(ConfigError, match=rf"\n  {key}: .*greater than"):
        resolve_method({"algorithm": name, key: 0})


def test_N4_lam_0_is_the_least_squares_solution():
    """TV without a weight follows CGLS to the same fit; restarting CG every 8 iterations costs some speed."""
    data = measured(ball_projections(small_scan("parallel")))
    _, plain = engine.solve(METHODS["cgls"](iterations=40), data)
    tv = METHODS["tv"](lam=0.0, nonnegative=False, iterations=5, cg_iterations=8)
    _, free = engine.solve(tv, data)
    assert free.residual == pytest.approx(plain.residual, rel=0.15)


@pytest.mark.parametrize("lam", [1e-3, 1.0])
def test_N4_a_heavy_weight_is_not_divergence(lam):
    """The fit of a strongly regularised run gets worse from step to step, as it must."""
    data = measured(ball_projections(small_scan("parallel")))
    infos = []
    x, _ = engine.solve(METHODS["tv"](lam=lam, iterations=25), data, lambda p: infos.append(p.info.residual))
    assert sum(b > a for a, b in itertools.pairwise(infos)) > engine.solving.RISES
    assert torch.isfinite(x.read(0, 20)).all()


class Scripted(Iterative):
    """A method whose residuals are given."""

    iterations: int = 100
    residuals: tuple[float, ...] = ()
    scalar: float = 0.0

    def init(self, problem: LeastSquares) -> State:
        return State(0, {"x": problem.space.zeros(problem.A.domain_shape)})

    def step(self, problem: LeastSquares, state: State) -> tuple[State, Info]:
        residual = self.residuals[min(state.step, len(self.residuals) - 1)]
        x = problem.space.zeros(problem.A.domain_shape)
        return State(state.step + 1, {"x": x}, {"gamma": self.scalar}), Info(residual, 1.0)


def scripted(residuals, **numbers) -> tuple[int, Exception | None]:
    """How many steps a run with these residuals does, and how it ends."""
    steps = []
    method = Scripted.model_construct(residuals=residuals, iterations=len(residuals), weights="none", **numbers)
    try:
        engine.solve(method, measured(ball_projections(small_scan("parallel"))), lambda p: steps.append(p.step))
    except DivergedError as error:
        return len(steps), error
    return len(steps), None


def test_N5_a_rising_residual_stops_with_the_numbers():
    steps, error = scripted([2.0**k for k in range(20)])
    assert steps == engine.solving.RISES
    assert f"rose {engine.solving.RISES} times in a row, to 32 of the data" in str(error)
    assert error.exit_code == 7


@pytest.mark.parametrize(
    "residuals",
    [[1.5, 1.4, 1.5, 1.4] * 5, [0.9**k for k in range(20)], [0.1 + 0.01 * k for k in range(20)], [1.0] * 20],
    ids=["zigzag", "falling", "regularised", "stuck"],
)
def test_N5_what_is_no_divergence(residuals):
    assert scripted(residuals) == (20, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_N3_a_number_that_is_not_finite(bad):
    steps, error = scripted([0.5, 0.4, bad, 0.3])
    assert steps == 2
    assert "step 3 of Scripted: residual is not finite" in str(error)
    steps, error = scripted([0.5] * 5, scalar=bad)
    assert steps == 0
    assert "gamma" in str(error)


def test_N5_too_long_a_step_of_sirt(monkeypatch):
    """SIRT beyond its range really diverges, and is stopped."""
    wild = METHODS["sirt"].model_construct(iterations=300, relaxation=3.0, nonnegative=False, weights="none")
    with pytest.raises(DivergedError):
        engine.solve(wild, measured(ball_projections(small_scan("parallel"))))


def test_N5_a_diverged_run_leaves_no_volume(write_ball, tmp_path, monkeypatch):
    write_ball()
    monkeypatch.setitem(jobs.METHODS, "scripted", Scripted)
    monkeypatch.setattr(Scripted, "model_fields", Scripted.model_fields, raising=False)
    checked = engine.check(
        Job(scan="scan.zarr", out="run", method={"algorithm": "scripted", "iterations": 9}), tmp_path
    )
    object.__setattr__(checked.method, "residuals", tuple(10.0**k for k in range(9)))
    with pytest.raises(DivergedError):
        engine.run(checked)
    assert not (tmp_path / "run" / "volume.zarr").exists()
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event for event in events if event != "commit"] == ["start", *["step"] * engine.solving.RISES]


def test_memory_that_runs_out_is_a_resource_error(write_ball, tmp_path):
    """Row M3: what cannot be allocated ends with a message, not with torch's own error."""
    write_ball(grid=None)
    grid = {"shape": (100_000, 100_000, 100_000), "voxel_mm": (1e-4, 1e-4, 1e-4)}
    with pytest.raises(ResourceError, match="GiB"):
        engine.run(engine.check(Job(scan="scan.zarr", out="run", method="sirt", grid=grid), tmp_path))
