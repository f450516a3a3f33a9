"""Measured data, where they are: `$VOLRECON_DATA` or ../shared/data beside the repository."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from volrecon import engine
from volrecon.errors import GeometryWarning
from volrecon.exchange import import_scan, select_views
from volrecon.formats import Hints
from volrecon.geometry import VolumeGeometry
from volrecon.store import open_scan

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("VOLRECON_DATA", ROOT.parent / "shared" / "data"))
GRID = VolumeGeometry((1, 256, 256), (1.0, 0.3, 0.3))


def imported(tmp_path, name: str, text: str):
    source = DATA / "proj" / "htc2022_ta_full.npz"
    if not source.exists():
        pytest.skip(f"{source} is missing; set VOLRECON_DATA")
    (tmp_path / f"{name}.toml").write_text(text)
    with warnings.catch_warnings(action="ignore", category=GeometryWarning):
        import_scan(source, tmp_path / f"{name}.toml", tmp_path / f"{name}.zarr", Hints())
    return open_scan(tmp_path / f"{name}.zarr")


def sharpness(image: np.ndarray) -> float:
    dy, dx = np.gradient(image)
    return float((dy**2 + dx**2).sum())


def test_htc2022_is_sharp_with_the_stated_sense(tmp_path):
    text = (ROOT / "configs" / "geometry" / "htc2022.toml").read_text()
    right = imported(tmp_path, "right", text)
    assert right.geometry.shape == (1, 721, 560)
    wrong = imported(tmp_path, "wrong", text.replace('"counter-clockwise"', '"clockwise"'))
    images = [engine.reconstruct(scan, "fbp", GRID)[0] for scan in (right, wrong)]
    assert sharpness(images[0]) > 1.2 * sharpness(images[1])
    # A 70 mm acrylic disc: its attenuation is plausible and its area right, holes included.
    disc = images[0] > 0.5 * np.percentile(images[0], 99)
    assert 0.75 < disc.sum() * 0.09 / (np.pi * 35**2) < 1.02


@pytest.mark.slow
def test_htc2022_few_views_by_tv(tmp_path):
    whole = imported(tmp_path, "whole", (ROOT / "configs" / "geometry" / "htc2022.toml").read_text())
    select_views(whole, np.arange(0, 720, 24), tmp_path / "few.zarr")
    full = engine.reconstruct(whole, "fbp", GRID)
    errors = {
        name: np.sqrt(np.mean((engine.reconstruct(tmp_path / "few.zarr", method, GRID) - full) ** 2))
        for name, method in {"fbp": "fbp", "tv": {"recipe": "tv", "iterations": 20}}.items()
    }
    assert errors["tv"] < errors["fbp"]
