"""Weights: what is written comes back; other tensors, other cards and other names are refused (rows W3, W4, C3)."""

import hashlib
import json
import os
import re
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from weight_files import ABSURD, packed, refused, taken_apart

from volrecon.errors import ConfigError, WeightsError
from volrecon.priors import Conditions, Preconditioned, builtin_priors, load_prior, read_card
from volrecon.priors.weights import save_prior

X = 0.4 + 0.2 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# What is written comes back


def test_what_is_saved_is_loaded(whole, card, network):
    prior = load_prior(whole, precision=torch.float32)
    assert prior.card == card()
    assert prior.sha256 == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert (prior.denoiser.slices, prior.denoiser.positions) == (3, False)
    original = network(card())
    for key, value in original.state_dict().items():
        found = prior.denoiser.network.state_dict()[key]
        assert found.dtype == torch.float32
        assert torch.equal(found, value.half().float())
        assert not found.requires_grad
    assert not prior.denoiser.network.training
    original.load_state_dict({key: value.half().float() for key, value in original.state_dict().items()})
    D = Preconditioned(original, slices=3, positions=False, sigma_data=0.2, centre=0.4)
    torch.testing.assert_close(prior.denoiser(X, 0.1, Conditions()), D(X, 0.1, Conditions()))


def test_float32_weights_are_loaded_too(changed, card, network):
    path = changed({key: value.contiguous() for key, value in network(card()).state_dict().items()})
    found = load_prior(path).denoiser.network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in network(card()).state_dict().items())


def test_saving_gives_the_sha256_and_the_same_bytes(tmp_path, card, network):
    digests = {save_prior(tmp_path / f"{k}.safetensors", card(), network(card())) for k in range(2)}
    assert digests == {hashlib.sha256((tmp_path / "0.safetensors").read_bytes()).hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_patch_priors_have_position_channels(tmp_path, card, network):
    about = card(patch=8)
    save_prior(tmp_path / "p.safetensors", about, network(about))
    prior = load_prior(tmp_path / "p.safetensors")
    assert prior.denoiser.positions
    position = torch.zeros(2, 2, 8, 8)
    assert prior.denoiser(X, 0.1, Conditions(1.0, position)).shape == X.shape


def test_read_card_reads_no_tensor(whole, card, tmp_path):
    header, body = taken_apart(whole)
    spoilt = tmp_path / "spoilt.safetensors"
    spoilt.write_bytes(packed(header, bytes(len(body))))
    assert read_card(spoilt)[0] == card()
    refused(spoilt, "is damaged")


def test_weights_that_float16_cannot_hold_are_not_saved(tmp_path, card, network):
    net = network(card())
    net.leave.bias.data[0] = 1e5
    with pytest.raises(WeightsError, match=r"not finite \(float16 ends at 65504\), first leave.bias"):
        save_prior(tmp_path / "a.safetensors", card(), net)
    assert list(tmp_path.iterdir()) == []


def test_R3_loading_leaves_random_numbers_and_defaults_alone(whole):
    before = torch.get_rng_state()
    prior = load_prior(whole)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in load_prior(whole).denoiser.network.parameters()} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)
    assert isinstance(prior.denoiser.network, nn.Module)


# Names


def test_builtin_priors_are_listed_and_load():
    names = builtin_priors()
    assert names == sorted(names)
    for name in names:
        assert load_prior(name).card.name == name.removeprefix("builtin:")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "../x",
        "builtin:nope",
        "builtin:../x.safetensors",
        "builtin:/etc/passwd",
        "",
        "ct",
        "x.pt",
        "a\0b",
        "~",
    ],
)
def test_C3_unknown_names_list_the_valid_ones(name, monkeypatch, tmp_path, whole):
    (tmp_path / "one.safetensors").write_bytes(whole.read_bytes())
    monkeypatch.setattr("volrecon.priors.weights.BUILTIN", tmp_path)
    with pytest.raises(ConfigError, match=re.escape("(builtin:one)")) as caught:
        load_prior(name)
    assert caught.value.exit_code == 2
    assert load_prior("builtin:one").card.name == "tiny"


def test_missing_files_folders_and_pipes_are_refused_at_once(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("none.safetensors", "folder.safetensors", "pipe.safetensors", "a\0b.safetensors"):
        refused(tmp_path / name, "no such file")


# W3: other tensors, other cards


def test_W3_all_differences_come_in_one_message(changed):
    tensors = load_file(changed())
    message = refused(
        changed(
            {
                "leave.bias": None,
                "extra": torch.zeros(2, dtype=torch.float16),
                "enter.weight": torch.zeros(8, 3, 5, 5, dtype=torch.float16),
                "enter.bias": tensors["enter.bias"].double(),
                "renamed": tensors["leave.weight"],
                "leave.weight": None,
            }
        ),
        "6 differences",
    )
    for part in [
        "leave.bias is missing",
        "leave.weight is missing",
        "extra is unknown",
        "renamed is unknown",
        "enter.weight has shape [8, 3, 5, 5], the network [8, 3, 3, 3]",
        "enter.bias is 'F64'",
    ]:
        assert part in message


def test_W3_a_long_list_of_differences_is_cut(changed):
    message = refused(changed({f"extra{k:03d}": torch.zeros(1) for k in range(500)}), "500 differences.* and 480 more")
    assert len(message) < 2000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int16, torch.uint8, torch.bool])
def test_W3_other_types_are_refused(changed, dtype):
    refused(changed({"leave.bias": torch.ones(3).to(dtype)}), "1 differences: leave.bias is .* expected F16 or F32")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_W3_weights_that_are_not_finite_are_refused(changed, value):
    refused(changed({"leave.bias": torch.tensor([0.0, value, 0.0])}), "1 tensors are not finite .* first leave.bias")


@pytest.mark.parametrize(
    ("change", "shape"),
    [({"slices": 5}, "8, 5, 3, 3"), ({"patch": 8}, "8, 5, 3, 3"), ({"slices": 1}, "8, 1, 3, 3")],
    ids=str,
)
def test_W3_another_group_size_is_refused(changed, change, shape):
    refused(changed(**change), rf"enter.weight has shape \[8, 3, 3, 3\], the network \[{shape}\]")


def without(key):
    return lambda stated: stated.pop(key)


def stating(**changes):
    return lambda stated: stated.update(changes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (stating(card_version=2), "version 2; this volrecon reads 1"),
        (without("card_version"), "version None"),
        (stating(card_version="x" * 10_000), "version 'xxx"),
        (stating(surprise=1), "surprise: Extra inputs"),
        (without("unit_per_mm"), "unit_per_mm: Field required"),
        (stating(unit_per_mm=0.0), "unit_per_mm: .*greater than 0"),
        (stating(unit_per_mm="0.04"), "unit_per_mm: .*valid number"),
        (stating(sigma_data=float("nan")), "sigma_data: .*finite"),
        (stating(centre=float("inf")), "centre: .*finite"),
        (stating(slices=0), "slices: "),
        (stating(slices=10**9), "slices: "),
        (stating(patch=10**6), "patch: "),
        (stating(value_range=[2.0, 0.0]), "value_range: .*no range"),
        (stating(value_range=[0.0]), "value_range"),
        (stating(voxel_mm=[0.0, 2.0]), "voxel_mm.0"),
        (stating(noise=[-1.0, 2.0]), "noise.0"),
        (stating(noise=[3.0, 2.0]), "noise: .*no range"),
        (stating(soft_tissue=0.0), "soft_tissue"),
        (stating(gaps=[]), "gaps"),
        (stating(gaps=[-1]), "gaps.0"),
        (stating(network={"kind": "os.system"}), "network: "),
        (stating(network={"kind": "unet", "channels": [8], "depth": 3}), "network.unet.depth: Extra"),
        (stating(network={"kind": "unet", "channels": [0]}), "network.unet.channels"),
        (stating(network={"kind": "unet", "channels": [8] * 9}), "network.unet.channels"),
        (stating(network={"kind": "unet", "channels": [10**7]}), "network.unet.channels"),
        (stating(network={"kind": "unet", "channels": [8, 16], "blocks": 10**6}), "network.unet.blocks"),
        *((stating(network=network), "claims a network of .* parameters") for network in ABSURD),
    ],
)
def test_W3_cards_that_cannot_be_are_refused_at_once(changed, whole, change, match):
    stated = json.loads(taken_apart(whole)[0]["__metadata__"]["volrecon"])
    change(stated)
    path = changed(stated=stated)
    started = time.process_time()
    refused(path, match)
    assert time.process_time() - started < 2


def test_W3_all_problems_of_a_card_come_in_one_message(changed, whole):
    stated = json.loads(taken_apart(whole)[0]["__metadata__"]["volrecon"])
    stated |= {"slices": 0, "surprise": 1, "unit_per_mm": -1.0}
    message = refused(changed(stated=stated))
    assert all(word in message for word in ("slices", "surprise", "unit_per_mm"))


# W4: another file than the one wanted


def test_W4_a_pinned_sha256_must_be_the_files(whole):
    known = hashlib.sha256(whole.read_bytes()).hexdigest()
    assert load_prior(whole, sha256=known).sha256 == known
    message = refused(whole, "the job wants 000", sha256="0" * 64)
    assert known in message
