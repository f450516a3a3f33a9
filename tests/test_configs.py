"""Every file in configs/ does what its name says."""

import numpy as np
import pytest
import torch
from balls import small_scan

from volrecon import engine
from volrecon.errors import ConfigError
from volrecon.formats import Frame, read_geometry
from volrecon.geometry import coverage
from volrecon.jobs import describe, load_job, recipe_names, resolve_method
from volrecon.resources import resource
from volrecon.solvers import METHODS
from volrecon.strict_toml import load_toml
from volrecon.training.config import Data, load_training

CONFIGS = resource("configs")


def files(folder: str) -> list[str]:
    return sorted(path.name for path in (CONFIGS / folder).glob("*.toml"))


def test_every_file_is_tested_here():
    found = {path.relative_to(CONFIGS).parts[0] for path in CONFIGS.rglob("*.toml")}
    assert found <= {"methods", "geometry", "jobs", "training"}
    assert recipe_names() == sorted(name.removesuffix(".toml") for name in files("methods"))


def recipe(name: str) -> dict:
    return load_toml(CONFIGS / "methods" / f"{name}.toml")


@pytest.mark.parametrize("name", [name for name in recipe_names() if "presets" not in recipe(name)])
def test_methods_resolve_and_run(name, write_ball):
    method = resolve_method(name)
    assert resolve_method(describe(method)) == method
    stated = recipe(name)
    assert {key: describe(method)[key] for key in stated} == stated
    few = {"recipe": name, **({"iterations": 2} if "iterations" in stated else {})}
    volume = engine.reconstruct(write_ball(beam="fan" if name == "fbp" else "cone"), few)
    assert volume.max() > 0


@pytest.mark.parametrize("name", [name for name in recipe_names() if "presets" in recipe(name)])
def test_recipes_with_presets_run_with_the_prior_that_ships(name, write_ball):
    """With few levels; tests/diffusion has what else they must do."""
    few = {"recipe": name, "levels": {"steps": 3, "high": 0.5, "low": 0.05}}
    volume = engine.reconstruct(write_ball(views=12), few)
    assert np.isfinite(volume).all()
    assert volume.max() > 0


@pytest.mark.parametrize("name", METHODS)
def test_every_algorithm_has_a_recipe_with_its_defaults(name):
    stated = load_toml(CONFIGS / "methods" / f"{name}.toml")
    assert stated.pop("algorithm") == name
    defaults = {key: field.default for key, field in METHODS[name].model_fields.items()}
    changed = {key: (value, defaults[key]) for key, value in stated.items() if value != defaults[key]}
    assert set(changed) <= {"iterations", "tolerance"}


@pytest.mark.parametrize("name", files("geometry"))
def test_geometries_state_a_scan_that_sees_its_grid(name):
    stated = load_toml(CONFIGS / "geometry" / name)
    angles = np.deg2rad(np.arange(0, 360, 5.0)) if stated["angles"].get("from_data") else None
    scan = read_geometry(CONFIGS / "geometry" / name, None if angles is None else Frame((1, 1), len(angles), angles))
    assert scan.grid is not None
    assert coverage(scan.grid, scan.scan).unseen < 0.25
    assert scan.scan.views == (72 if angles is not None else stated["angles"]["count"])


@pytest.mark.parametrize("name", files("jobs") or [pytest.param("", marks=pytest.mark.skip("there are no jobs yet"))])
def test_jobs_parse_and_their_methods_resolve(name):
    job, base = load_job(CONFIGS / "jobs" / name, [], {})
    assert base == CONFIGS / "jobs"
    resolve_method(job.method, base)


@pytest.mark.parametrize("name", files("training"))
def test_trainings_state_a_prior_of_their_name(name):
    training = load_training(CONFIGS / "training" / name)
    assert training.name == name.removesuffix(".toml")
    assert isinstance(load_toml(CONFIGS / "training" / name)["data"], str)


@pytest.mark.parametrize("name", ["ct.toml", "ct-patch.toml"])
def test_what_ships_fits_the_wheel(name):
    training = load_training(CONFIGS / "training" / name)
    with torch.device("meta"):
        network = training.network.build(training.groups.slices + 2 * training.patches.padded, training.groups.slices)
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) <= 12e6


@pytest.mark.parametrize("name", files("training/data"))
def test_training_data_say_where_they_are_from(name):
    stated = Data.model_validate(load_toml(CONFIGS / "training" / "data" / name))
    for source in stated.sources:
        assert source.licence.strip()
        assert source.origin.strip()
        assert source.file.startswith("train/"), "dev and test volumes are not for training"


@pytest.mark.parametrize("name", ["pyproject.toml", "configs/../pyproject.toml", "../..", "configs/none.toml", "/etc"])
def test_resources_are_configs_and_kernels_only(name):
    with pytest.raises(ConfigError, match="ships no"):
        resource(name)


def test_small_scans_are_seen(grid):
    for beam in ("cone", "fan", "parallel"):
        assert coverage(grid, small_scan(beam)).unseen == 0
