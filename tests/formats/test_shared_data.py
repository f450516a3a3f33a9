"""Real files, where they are: `$VOLRECON_DATA` or ../shared/data beside the repository."""

import os
from pathlib import Path

import numpy as np
import pytest

from volrecon.errors import GeometryWarning
from volrecon.formats import Hints, format_of, read_geometry

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("VOLRECON_DATA", ROOT.parent / "shared" / "data"))


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in {DATA}; set VOLRECON_DATA")
    return path


@pytest.mark.parametrize(
    ("name", "key", "shape", "voxel"),
    [
        ("dev/lung1_001_chest_256.npz", None, (134, 256, 256), (3.0, 1.953125, 1.953125)),
        ("train/openkbp_hn_train48.npz", "hu[47]", (128, 128, 128), None),
        ("train/sts_limbs_train_a.npz", "hu_STS_009", (83, 238, 243), (3.27, 0.976562, 0.976562)),
    ],
)
def test_volumes(name, key, shape, voxel):
    path = real(name)
    volume = format_of(path).read_volume(path, Hints(key=key))
    assert volume.slices.shape == shape
    assert volume.quantity == "hu"
    assert voxel is None or volume.geometry.voxel_zyx_mm == pytest.approx(voxel)
    slab = volume.slices[60:62]
    assert slab.dtype == np.int16
    assert slab.min() >= -1024
    assert slab.max() > 0


def test_sinogram_with_its_geometry():
    path = real("proj/htc2022_ta_full.npz")
    data = format_of(path).read_projections(path, Hints())
    with pytest.warns(GeometryWarning, match="1 of 721 angles repeat"):
        stated = read_geometry(ROOT / "configs" / "geometry" / "htc2022.toml", data.frame)
    assert stated.scan.shape == data.projections.shape == (1, 721, 560)


def test_counts_of_a_parallel_scan():
    path = real("proj/savu_parallel3d.npz")
    data = format_of(path).read_projections(path, Hints(key="raw", axes="angle,v,u"))
    assert data.projections.shape == (135, 91, 160)
    assert data.angles is not None
    assert data.angles.size == 91
