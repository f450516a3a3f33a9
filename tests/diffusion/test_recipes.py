"""What every diffusion recipe must do, with a prior known in closed form; a newcomer is found by its `algorithm`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from balls import GRID, MU, ball_projections, small_scan

from volrecon import engine
from volrecon.engine.solving import Course
from volrecon.jobs import describe, recipe_names, resolve_method
from volrecon.rehearsal import rehearse
from volrecon.resources import resource
from volrecon.solvers import Measurement
from volrecon.store import Generations, ZarrSpace
from volrecon.strict_toml import load_toml
from volrecon.volume import RamSpace, RamVolume


def stated(name: str) -> dict:
    return load_toml(resource("configs") / "methods" / f"{name}.toml")


RECIPES = [name for name in recipe_names() if stated(name)["algorithm"] == "diffusion"]
PRESETS = [(name, preset) for name in RECIPES for preset in stated(name)["presets"]]
SHORT = {"levels": {"high": 1.0, "low": 0.02, "steps": 4}}

each = pytest.mark.parametrize("name", RECIPES)
each_preset = pytest.mark.parametrize(("name", "preset"), PRESETS)


def measurement(beam="cone", space=None, views=12) -> Measurement:
    scan = small_scan(beam, views)
    y = RamVolume(torch.from_numpy(ball_projections(scan)))
    return Measurement(y, scan, GRID, space or RamSpace(), 2 * MU)


def short(name: str, preset: str = "fast", **changes):
    """A recipe with few levels."""
    return resolve_method({"recipe": name, "preset": preset, **SHORT, **changes})


def solved(method, data, keeper=None) -> np.ndarray:
    return engine.solve(method, data, keeper=keeper)[0].read(0, GRID.shape[0]).numpy().copy()


def test_both_presets_stand_in_every_recipe():
    assert {name: list(stated(name)["presets"]) for name in RECIPES} == {
        name: ["fast", "published"] for name in RECIPES
    }


@each_preset
def test_a_recipe_resolves_to_what_describes_it(name, preset):
    method = resolve_method({"recipe": name, "preset": preset})
    assert resolve_method(describe(method)) == method


@each
def test_a_fast_preset_takes_at_most_100_passes(name):
    method = resolve_method({"recipe": name, "preset": "fast"})
    assert method.sampler.passes(method.levels.steps) <= 100


@each_preset
def test_it_reconstructs_a_ball(name, preset):
    """Better than the prior's mean everywhere, which is where it would stay without data.

    Four steps are few for published numbers, which were chosen for a thousand.
    """
    found = solved(short(name, preset), measurement())
    assert np.isfinite(found).all()
    x, y, z = np.meshgrid(*(np.arange(n) for n in GRID.shape[::-1]), indexing="ij")
    at = np.stack([x, y, z], -1) * GRID.voxel_xyz_mm + GRID.origin_xyz_mm - (2.0, -1.0, 1.0)
    distance = np.linalg.norm(at, axis=-1).transpose(2, 1, 0)
    inside, outside = found[distance < 7], found[distance > 14]
    assert inside.mean() > outside.mean() + (0.15 if preset == "fast" else 0.05)


@each
def test_tiers_agree_to_the_byte(name, tmp_path):
    memory = solved(short(name), measurement(space=RamSpace(2**13)))
    with ZarrSpace(tmp_path / "scratch", 2**13) as space:
        disk = solved(short(name), measurement(space=space))
    assert memory.tobytes() == disk.tobytes()


@each
def test_a_run_that_goes_on_gives_the_same_bytes(name, tmp_path):
    """From what was committed after the second step, in another process's place."""
    whole = solved(short(name), measurement())

    class Keeper:
        def __init__(self, saved):
            self.found = saved

        def saved(self):
            return self.found

        def begin(self):
            """Nothing to note."""

        def keep(self, course: Course, known) -> None:
            if course.state.step == 2 and self.found is None:
                generations.commit(replace(course.generation(known)))
                raise InterruptedError

    with ZarrSpace(tmp_path / "state") as disk:
        generations = Generations(disk, 2)
        with pytest.raises(InterruptedError):
            solved(short(name), measurement(), Keeper(None))
        space = RamSpace()
        again = solved(short(name), measurement(space=space), Keeper(Generations(disk, 2).latest(space)))
    assert again.tobytes() == whole.tobytes()


@each
def test_the_same_seed_the_same_bytes_and_nobody_elses_numbers(name):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = solved(short(name), measurement())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert solved(short(name), measurement()).tobytes() == one.tobytes()
    assert solved(short(name, seed=1), measurement()).tobytes() != one.tobytes()


@pytest.mark.parametrize("beam", ["fan", "parallel", "helical"])
def test_other_beams(beam):
    name = "diffusionblend++"
    assert np.isfinite(solved(short(name), measurement(beam))).all()


@each
@pytest.mark.parametrize("on_disk", [False, True])
def test_it_can_be_planned(name, on_disk):
    """Every pass of a step is counted, the prior's among them, and a step takes as long as its passes."""
    counted = rehearse(short(name), measurement(), 2, on_disk)
    assert {one.phase for one in counted.passes} == {"prepare", "start", "step"}
    assert any(one.count for one in counted.passes if one.phase == "step")
    assert counted.steps == 4
    assert all(one.work >= 0 and one.held >= 0 for one in counted.passes)
