"""What every reconstruction method must do, run over whatever is registered in `METHODS`."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from balls import CENTRE, GRID, MU, RADIUS, ball_projections, small_scan

from volrecon.errors import ConfigError
from volrecon.noise import Noise
from volrecon.solvers import METHODS, Info, Measurement, State
from volrecon.solvers.problem import Iterative, LeastSquares
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume, Space, slice_dots

BEAMS = ("cone", "fan", "parallel", "helical")
ONLY = {"fdk": ("cone",), "fbp": ("fan", "parallel")}
"""The beams of methods that do not serve all; a method not listed here must serve every one."""

UNIT = 2 * MU  # the ball is 0.5 inside a run
STEPS, FEW = 20, 4


def cases() -> list[tuple[str, str]]:
    return [(name, beam) for name in METHODS for beam in ONLY.get(name, BEAMS)]


each = pytest.mark.parametrize(("name", "beam"), cases())
each_method = pytest.mark.parametrize(("name", "beam"), [(n, ONLY.get(n, BEAMS)[0]) for n in METHODS])


def measurement(y: np.ndarray, beam: str, space: Space | None = None, noise: Noise | None = None) -> Measurement:
    stored = RamVolume(torch.from_numpy(y.copy()))
    return Measurement(stored, small_scan(beam), GRID, space or RamSpace(), UNIT, noise or Noise())


def method(name: str, steps: int = STEPS, **numbers):
    kind = METHODS[name]
    return kind(**({"iterations": steps} if "iterations" in kind.model_fields else {}), **numbers)


def history(name: str, data: Measurement, steps: int = STEPS, **numbers) -> tuple[State, list[Info]]:
    """All steps of a method, with nothing released on the way."""
    recipe = method(name, steps, **numbers)
    problem = recipe.prepare(data)
    state, infos = recipe.init(problem), []
    while state.step < recipe.steps(problem):
        state, info = recipe.step(problem, state)
        infos.append(info)
    return state, infos


def result(name: str, data: Measurement, steps: int = STEPS, **numbers) -> np.ndarray:
    return history(name, data, steps, **numbers)[0]["x"].read(0, GRID.shape[0]).numpy().copy()


def distance_from_centre() -> np.ndarray:
    z, y, x = np.indices(GRID.shape)
    points = GRID.origin_xyz_mm + np.stack([x, y, z], axis=-1) * GRID.voxel_xyz_mm
    return np.linalg.norm(points - np.array(CENTRE), axis=-1)


def check_ball(name: str, beam: str) -> None:
    x = result(name, measurement(ball_projections(small_scan(beam)), beam))
    r = distance_from_centre()
    assert x[r < 0.6 * RADIUS].mean() == pytest.approx(0.5, rel=0.03)
    # A neighbourhood in the ball's own slices, where every geometry has data.
    around = (r > 1.3 * RADIUS) & (r < 1.7 * RADIUS)
    around[: int(GRID.shape[0] / 4)] = around[-int(GRID.shape[0] / 4) :] = False
    assert abs(x[around].mean()) < 0.02


@each
def test_reconstructs_a_ball(name, beam):
    check_ball(name, beam)


@each
def test_the_residual_falls(name, beam):
    _, infos = history(name, measurement(ball_projections(small_scan(beam)), beam))
    if METHODS[name].kind == "direct":
        assert all(info == Info() for info in infos)
        return
    residuals = [info.residual for info in infos]
    assert residuals[-1] < 0.1
    # Regularised ones may rise again, but never to where they came from.
    assert residuals[-1] < 0.9 * residuals[0]
    assert all(info.change is not None and info.change >= 0 for info in infos)


@each
def test_the_residual_is_that_of_the_volume(name, beam):
    """`Info.residual` at the end is ||y - Ax|| / ||y|| of the x that the last step was given or returned."""
    if METHODS[name].kind == "direct":
        pytest.skip("direct methods tell no residual")
    recipe = method(name)
    problem = recipe.prepare(measurement(ball_projections(small_scan(beam)), beam))
    state = recipe.init(problem)
    for _ in range(5):
        before, (state, info) = state, recipe.step(problem, state)
    y = problem.y.read(0, problem.y.shape[0])
    sizes = [torch.linalg.norm(y - problem.A(s["x"]).read(0, len(y))) / torch.linalg.norm(y) for s in (before, state)]
    assert any(info.residual == pytest.approx(float(size), rel=1e-3) for size in sizes)


def block_spaces(tmp_path, block_bytes: int) -> list[Space]:
    return [RamSpace(block_bytes), ZarrSpace(tmp_path / "scratch", block_bytes)]


@each_method
@pytest.mark.parametrize("noisy", [False, True], ids=["exact", "weights"])
def test_tiers_agree_to_the_byte(name, beam, noisy, tmp_path):
    y = ball_projections(small_scan(beam))
    noise = Noise("poisson", 1e4) if noisy else Noise()
    ram, zarr = (result(name, measurement(y, beam, s, noise), FEW) for s in block_spaces(tmp_path, 1))
    assert ram.tobytes() == zarr.tobytes()


@each
def test_any_block_height(name, beam, monkeypatch):
    """Blocks of three slices and of all; only float32 rounding may differ."""
    y = ball_projections(small_scan(beam))
    y[3, 2, 5:7] = np.nan
    whole = result(name, measurement(y, beam), FEW)
    monkeypatch.setattr("volrecon.volume.CHUNK_SLICES", 3)
    assert RamSpace(1).height(GRID.shape) == 3
    thin = result(name, measurement(y, beam, RamSpace(1)), FEW)
    np.testing.assert_allclose(thin, whole, atol=1e-4 * np.abs(whole).max())


@each_method
def test_a_step_leaves_the_old_state_alone(name, beam):
    if METHODS[name].kind == "direct":
        pytest.skip("a direct method fills one volume, slab after slab")
    recipe = method(name)
    problem = recipe.prepare(measurement(ball_projections(small_scan(beam)), beam))
    state = recipe.init(problem)
    for _ in range(3):
        held = {key: volume.read(0, volume.shape[0]).clone() for key, volume in state.volumes.items()}
        scalars, y = copy.deepcopy(dict(state.scalars)), problem.y.read(0, problem.y.shape[0]).clone()
        after, _ = recipe.step(problem, state)
        again, _ = recipe.step(problem, state)
        assert dict(state.scalars) == scalars
        assert torch.equal(problem.y.read(0, len(y)), y)
        for key, volume in state.volumes.items():
            assert torch.equal(volume.read(0, volume.shape[0]), held[key]), key
        for key, volume in after.volumes.items():
            assert torch.equal(volume.read(0, volume.shape[0]), again[key].read(0, volume.shape[0])), key
        assert after.step == state.step + 1
        assert set(after.volumes) == set(state.volumes)
        state = after


@each_method
def test_R1_the_same_bytes_twice(name, beam):
    y = ball_projections(small_scan(beam))
    first, second = (result(name, measurement(y, beam), FEW) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@each_method
def test_R3_the_callers_random_numbers(name, beam):
    y = ball_projections(small_scan(beam))
    first = result(name, measurement(y, beam), FEW)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    second = result(name, measurement(y, beam), FEW)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert first.tobytes() == second.tobytes()


@each_method
def test_masked_pixels(name, beam):
    y = ball_projections(small_scan(beam))
    clean = result(name, measurement(y, beam))
    y[:, 3, 10] = np.nan
    y[4, 5, :] = np.nan
    masked = result(name, measurement(y, beam))
    assert np.isfinite(masked).all()
    inside = distance_from_centre() < 0.6 * RADIUS
    assert masked[inside].mean() == pytest.approx(clean[inside].mean(), rel=0.03)
    assert not np.array_equal(masked, clean)


@each_method
def test_masked_pixels_do_not_matter_to_a_fit(name, beam):
    """Whatever stands behind a mask, the answer is that of zero weight: a wild value there changes it, NaN does not."""
    if METHODS[name].kind == "direct":
        pytest.skip("direct methods interpolate")
    y = ball_projections(small_scan(beam))
    wild, gone = y.copy(), y.copy()
    wild[:, 3, 10], gone[:, 3, 10] = 5.0, np.nan
    clean, bad, good = (result(name, measurement(a, beam), FEW) for a in (y, wild, gone))
    assert np.abs(good - clean).max() < 0.25 * np.abs(bad - clean).max()


@each_method
@pytest.mark.parametrize("factor", [1e-3, 40.0])
def test_scaling_unit_and_data_together_changes_nothing(name, beam, factor):
    """(c y, c unit): x is dimensionless, so every weight of a recipe is, too."""
    y = ball_projections(small_scan(beam))
    plain = result(name, measurement(y, beam), FEW)
    data = measurement(y * np.float32(factor), beam)
    scaled = result(name, Measurement(data.projections, data.scan, GRID, data.space, UNIT * factor), FEW)
    np.testing.assert_allclose(scaled, plain, atol=2e-4)


@each_method
@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e6])
def test_linear_methods_are_equivariant(name, beam, factor):
    """A(cx) = c A(x): row N8, from tiny to huge."""
    y = ball_projections(small_scan(beam))
    numbers = {"lam": 0.0} if "lam" in METHODS[name].model_fields else {}
    plain = result(name, measurement(y, beam), FEW, **numbers)
    scaled = result(name, measurement(y * np.float32(factor), beam), FEW, **numbers)
    np.testing.assert_allclose(scaled / factor, plain, atol=1e-3)


@each_method
def test_no_data_gives_air(name, beam):
    y = np.zeros(small_scan(beam).shape, np.float32)
    state, infos = history(name, measurement(y, beam))
    assert not state["x"].read(0, GRID.shape[0]).any()
    assert all(np.isfinite(info.residual or 0.0) and np.isfinite(info.change or 0.0) for info in infos)


@each_method
@pytest.mark.parametrize("weights", ["noise", "none"])
def test_weights(name, beam, weights: Literal["noise", "none"]):
    """Noise weights change a noisy fit and reconstruct it no worse; a scan without noise has none."""
    if "weights" not in METHODS[name].model_fields:
        pytest.skip("no weights")
    exact = ball_projections(small_scan(beam))
    noise = Noise("poisson", 500.0)
    y = np.stack([noise.sampled(row, k, 7) for k, row in enumerate(exact)])
    with_model = result(name, measurement(y, beam, noise=noise), weights=weights)
    without = result(name, measurement(y, beam), weights=weights)
    assert np.array_equal(with_model, without) == (weights == "none")
    inside = distance_from_centre() < 0.6 * RADIUS
    assert with_model[inside].mean() == pytest.approx(0.5, rel=0.1)


@each_method
def test_keys_are_strict(name, beam):
    with pytest.raises(ValueError, match="extra"):
        METHODS[name](no_such_number=1)


class Bad(Iterative):
    """A method that shrinks the answer of its data by half."""

    iterations: int = 5

    def init(self, problem: LeastSquares) -> State:
        return State(0, {"x": problem.space.zeros(problem.A.domain_shape)})

    def step(self, problem: LeastSquares, state: State) -> tuple[State, Info]:
        x = problem.space.of(problem.A.T(problem.y))
        square = float(slice_dots(x.read(0, x.shape[0]), x.read(0, x.shape[0])).sum())
        return State(state.step + 1, {"x": x}), Info(0.5, square)


def test_a_new_method_is_picked_up(monkeypatch):
    """A registered name gets every beam, and a wrong method fails the suite."""
    monkeypatch.setitem(METHODS, "bad", Bad)
    assert [beam for name, beam in cases() if name == "bad"] == list(BEAMS)
    with pytest.raises(AssertionError):
        check_ball("bad", "parallel")
    with pytest.raises(AssertionError):
        test_the_residual_falls("bad", "parallel")


@pytest.mark.parametrize(("name", "beams"), ONLY.items())
def test_other_beams_are_refused_with_an_alternative(name, beams):
    for beam in set(BEAMS) - set(beams):
        with pytest.raises(ConfigError, match=r"[Uu]se "):
            method(name).prepare(measurement(np.zeros(small_scan(beam).shape, np.float32), beam))
