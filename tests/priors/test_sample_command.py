"""`volrecon sample`: a picture and a volume from a weights file."""

import json
from functools import partial

import pytest

from volrecon.priors.weights import save_prior
from volrecon.store import open_volume

FAST = ["--steps", "2", "--count", "1"]


@pytest.fixture
def sample(cli):
    """sample(*arguments, code=0): `volrecon sample`, as `cli` runs it."""
    return partial(cli, "sample")


@pytest.fixture
def prior(tmp_path, card, network):
    """prior(patch=8): a weights file of random weights."""

    def save(**changes):
        save_prior(tmp_path / "prior.safetensors", card(**changes), network(card(**changes)))
        return "prior.safetensors"

    return save


def test_a_picture_and_a_volume(sample, prior, tmp_path):
    said = sample(prior(), "--shape", "4,16,18", "--steps", "3", "--count", "2", "--volume", "volume.zarr")
    assert "sample 1: " in said
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    stored = open_volume(tmp_path / "volume.zarr")
    assert stored.geometry.shape == (4, 16, 18)
    assert stored.geometry.voxel_zyx_mm == (1.5, 1.5, 1.5)
    assert stored.attributes["water_per_mm"] == 0.02
    assert stored.attributes["sampled_from"]["seed"] == 1
    assert str(tmp_path) not in json.dumps(stored.attributes)


def test_a_seed_gives_the_same_volume(sample, prior, tmp_path):
    name, digests = prior(patch=8, gaps=(0,)), []
    for k, seed in enumerate([5, 5, 6]):
        sample(name, *FAST, "--shape", "1,9,11", "--seed", seed, "--volume", f"{k}.zarr", "--voxel-mm", 3, "--quiet")
        digests.append(open_volume(tmp_path / f"{k}.zarr").digest)
    assert digests[0] == digests[1] != digests[2]
    assert open_volume(tmp_path / "0.zarr").geometry.voxel_zyx_mm == (3.0, 3.0, 3.0)


def test_tall_samples_are_shown_in_three_planes(sample, prior, tmp_path):
    sample(prior(), *FAST, "--shape", "9,16,16", "--out", "tall.png")
    assert (tmp_path / "tall.png").stat().st_size > 1000


@pytest.mark.parametrize("shape", ["3,16", "a", "3,0,16", "3,16.5,16", "-1,16,16", "nan", "3,8,16"])
def test_bad_shapes_are_exit_2(sample, prior, shape):
    assert shape in sample(prior(), *FAST, "--shape", shape, code=2)


def test_slices_smaller_than_a_patch_are_exit_2(sample, prior):
    assert "at least 24 pixels" in sample(prior(patch=24), *FAST, "--shape", "3,16,40", code=2)


def test_bad_options_are_exit_2(sample, prior):
    name = prior()
    for option in (["--eta", "1.5"], ["--steps", "1"], ["--count", "0"], ["--seed", "-1"], ["--out", "no/such.png"]):
        sample(name, *FAST, *option, code=2)


def test_unknown_and_damaged_priors(sample, prior, tmp_path):
    assert "builtin:nope" in sample("builtin:nope", *FAST, code=2)
    (tmp_path / "damaged.safetensors").write_bytes((tmp_path / prior()).read_bytes()[:-5])
    assert "damaged.safetensors" in sample("damaged.safetensors", *FAST, code=3)


def test_an_existing_volume_is_found_before_sampling(sample, prior, tmp_path):
    arguments = prior(), *FAST, "--shape", "1,16,16", "--volume", "volume.zarr"
    sample(*arguments)
    (tmp_path / "samples.png").unlink()
    assert "--overwrite" in sample(*arguments, code=2)
    assert not (tmp_path / "samples.png").exists()
    sample(*arguments, "--overwrite", "--seed", "3")
    assert open_volume(tmp_path / "volume.zarr").attributes["sampled_from"]["seed"] == 3


def test_N3_samples_that_are_not_finite_end_with_7(sample, tmp_path, card, network):
    net = network(card())
    for parameter in net.parameters():
        parameter.fill_(6e4)
    save_prior(tmp_path / "wild.safetensors", card(), net)
    assert "values from inf to inf" in sample("wild.safetensors", *FAST, "--shape", "3,16,16", code=7)
