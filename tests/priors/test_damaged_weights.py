"""Damaged and hostile weights files: refused, in little memory, and nothing in them runs (rows W1 and W2)."""

import json
import os
import pickle
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from weight_files import (
    ABSURD,
    DAMAGE,
    key_twice_in_the_card,
    packed,
    refused,
    taken_apart,
    twice,
    twice_escaped,
    two_cards,
    two_metadata,
)

from volrecon.errors import WeightsError
from volrecon.priors import load_prior

# W1: files of other kinds


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def save_pickle(path, canary):
    path.write_bytes(pickle.dumps(canary))


def save_zip(path, canary):
    torch.save({"a": canary, "b": torch.zeros(3)}, path)


def save_old_torch(path, canary):
    torch.save({"a": canary}, path, _use_new_zipfile_serialization=False)


def save_npz(path, canary):
    with path.open("wb") as stream:
        np.savez(stream, a=np.array([canary], dtype=object))


@pytest.mark.parametrize("save", [save_pickle, save_zip, save_old_torch, save_npz])
def test_W1_pickles_under_our_name_are_refused_and_do_not_run(save, tmp_path):
    path, canary = tmp_path / "p.safetensors", tmp_path / "canary"
    save(path, Canary(str(canary)))
    refused(path, "not safetensors")
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:unclosed file")
def test_W1_the_canary_would_sing(tmp_path):
    pickle.loads(pickle.dumps(Canary(str(tmp_path / "canary"))))
    assert (tmp_path / "canary").exists()


# W2: damage


def test_W2_truncated_files_are_refused(whole, tmp_path):
    data, path = whole.read_bytes(), tmp_path / "cut.safetensors"
    (length,) = struct.unpack("<Q", data[:8])
    ends = {0, 1, 7, 8, 9, 8 + length - 1, 8 + length, 8 + length + 1, len(data) - 1}
    for end in sorted(ends | set(np.linspace(0, len(data) - 1, 40).astype(int).tolist())):
        path.write_bytes(data[:end])
        refused(path, "not safetensors|damaged")


@pytest.mark.parametrize("extra", [b"\0", b"x" * 64, b"\0" * 4096])
def test_W2_trailing_bytes_are_refused(whole, tmp_path, extra):
    path = tmp_path / "long.safetensors"
    path.write_bytes(whole.read_bytes() + extra)
    refused(path, "not safetensors, or damaged")


@pytest.mark.parametrize("damage", DAMAGE)
def test_W2_damage_is_refused(whole, tmp_path, damage):
    path = tmp_path / "d.safetensors"
    path.write_bytes(damage(*taken_apart(whole)))
    started = time.process_time()
    refused(path)
    assert time.process_time() - started < 2


def test_W2_the_tools_of_these_tests_make_good_files(whole, tmp_path):
    path = tmp_path / "again.safetensors"
    path.write_bytes(packed(*taken_apart(whole)))
    assert load_prior(path).card == load_prior(whole).card


@pytest.mark.parametrize("damage", [twice, twice_escaped, two_cards, two_metadata, key_twice_in_the_card])
def test_W2_what_is_said_twice_is_named(whole, tmp_path, damage):
    path = tmp_path / "d.safetensors"
    path.write_bytes(damage(*taken_apart(whole)))
    refused(path, "names '.*' twice")


def test_W2_flipped_bits_are_refused_or_change_nothing(whole, tmp_path):
    """One bit each time, half of them in the header; what still loads is the same prior to the bit."""
    good, data = load_prior(whole), whole.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    rng = np.random.default_rng(5)
    places = [*rng.integers(0, 8 * (8 + length), 100), *rng.integers(8 * (8 + length), 8 * len(data), 100)]
    path, harmless = tmp_path / "f.safetensors", 0
    for place in map(int, places):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = load_prior(path)
        except WeightsError:
            continue
        harmless += 1
        same = found.denoiser.network.state_dict()
        assert found.card == good.card
        assert all(torch.equal(same[key], value) for key, value in good.denoiser.network.state_dict().items())
    assert harmless <= 2


LIMITED = """
import re, sys
from pathlib import Path
from volrecon.errors import WeightsError
from volrecon.priors import load_prior
def peak():
    # Not ru_maxrss: a child's starts at its parent's.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
load_prior(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    try:
        load_prior(path)
        print("loaded", path)
    except WeightsError:
        pass
    if peak() - before > 100 * 1024:
        print((peak() - before) // 1024, "MB", path)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_W2_refusing_takes_less_than_100_MB(whole, tmp_path, changed):
    """Also sparse files of 64 GB, one with a header in order, and networks of more parameters than there is memory."""
    for damage in DAMAGE:
        (tmp_path / f"{damage.__name__}.safetensors").write_bytes(damage(*taken_apart(whole)))
    header, body = taken_apart(whole)
    end = len(body) + 2**36
    more = {"more": {"dtype": "F16", "shape": [2**35], "data_offsets": [len(body), end]}}
    for name, stated in [("sparse", header | more), ("trailing", header)]:
        (tmp_path / f"{name}.safetensors").write_bytes(packed(stated, body))
        os.truncate(tmp_path / f"{name}.safetensors", 8 + len(json.dumps(stated)) + end)
    for k, kind in enumerate(ABSURD):
        stated = {**json.loads(taken_apart(whole)[0]["__metadata__"]["volrecon"]), "network": kind}
        changed(stated=stated).rename(tmp_path / f"absurd{k}.safetensors")
    paths = sorted(map(str, tmp_path.glob("*.safetensors")))
    assert len(paths) == len(DAMAGE) + 2 + len(ABSURD)
    command = [sys.executable, "-c", LIMITED, whole, *paths]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.stdout + said.stderr == ""
