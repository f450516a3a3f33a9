"""volume.zarr: a valid OME-Zarr, exact, with a pyramid of block means in the right place."""

import json

import numpy as np
import pytest
import torch
import zarr
from ome_zarr_models.v05.image import Image

from volrecon.errors import DivergedError, IntegrityError
from volrecon.geometry import VolumeGeometry
from volrecon.store import open_volume, verify, write_volume
from volrecon.volume import RamVolume

GRID = VolumeGeometry((70, 90, 131), (3.0, 1.5, 1.0), (4.0, -5.0, 6.0))


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(3).random(GRID.shape, np.float32)


def write(path, values, grid=GRID, **options):
    return write_volume(path, RamVolume(torch.from_numpy(values)), grid, {}, **options)


def test_round_trip_in_units(tmp_path, values):
    digest = write(tmp_path / "v.zarr", values, unit_per_mm=0.04)
    stored = open_volume(tmp_path / "v.zarr")
    assert np.array_equal(stored.data[:], values * np.float32(0.04))
    assert (stored.geometry, stored.digest) == (GRID, digest)
    assert list(verify(tmp_path / "v.zarr")) == []


def test_the_same_values_are_the_same_bytes(tmp_path, values):
    assert write(tmp_path / "a.zarr", values) == write(tmp_path / "b.zarr", values)
    files = [sorted((tmp_path / name).rglob("*")) for name in ("a.zarr", "b.zarr")]
    for a, b in zip(*files, strict=True):
        assert a.is_dir() or a.read_bytes() == b.read_bytes(), a


def test_it_is_ome_zarr(tmp_path, values):
    write(tmp_path / "v.zarr", values)
    image = Image.from_zarr(zarr.open_group(tmp_path / "v.zarr", mode="r"))
    (multiscale,) = image.ome_attributes.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        (name, "space", "millimeter") for name in "zyx"
    ]
    assert [dataset.path for dataset in multiscale.datasets] == ["0", "1", "2"]


def test_pyramid_levels_are_block_means_in_place(tmp_path, values):
    write(tmp_path / "v.zarr", values)
    group = zarr.open_group(tmp_path / "v.zarr", mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    index = np.indices(GRID.shape).astype(np.float64)
    world = [o + s * i for o, s, i in zip(GRID.origin_xyz_mm[::-1], GRID.voxel_zyx_mm, index, strict=True)]
    for k, dataset in enumerate(datasets):
        n, level = 2**k, group[dataset["path"]][:]
        nz, ny, nx = (size // n for size in GRID.shape)
        assert level.shape == (nz, ny, nx)

        def mean(full: np.ndarray, n=n, shape=(nz, ny, nx)) -> np.ndarray:
            z, y, x = shape
            return full[: z * n, : y * n, : x * n].reshape(z, n, y, n, x, n).mean(axis=(1, 3, 5))

        np.testing.assert_allclose(level, mean(values.astype(np.float64)), rtol=1e-5)
        scale, translation = (next(iter(t[t["type"]] for t in [one])) for one in dataset["coordinateTransformations"])
        places = np.indices(level.shape)
        for axis in range(3):
            np.testing.assert_allclose(translation[axis] + scale[axis] * places[axis], mean(world[axis]), atol=1e-9)


def test_one_slice_has_no_pyramid_and_a_centre_of_its_own(tmp_path):
    grid = VolumeGeometry((1, 80, 80), (1.0, 1.0, 1.0))
    write(tmp_path / "v.zarr", np.ones(grid.shape, np.float32), grid)
    assert not (tmp_path / "v.zarr" / "1").exists()
    Image.from_zarr(zarr.open_group(tmp_path / "v.zarr", mode="r"))
    assert np.array_equal(open_volume(tmp_path / "v.zarr").data[:], np.ones(grid.shape))


def test_air_is_stored(tmp_path):
    write(tmp_path / "v.zarr", np.zeros(GRID.shape, np.float32))
    chunks = sorted(p.name for p in (tmp_path / "v.zarr" / "0" / "c").iterdir())
    assert chunks == ["0", "1", "2", "3", "4"]
    assert not open_volume(tmp_path / "v.zarr").data[:].any()


def test_complete_is_written_last(tmp_path, values, monkeypatch):
    """At no moment before the last write does the group say that it is complete."""
    seen = []
    write_array = zarr.Array.__setitem__

    def spy(array, key, value):
        text = "".join(p.read_text() for p in tmp_path.rglob("zarr.json"))
        seen.append(("complete" in text, (tmp_path / "v.zarr").exists()))
        write_array(array, key, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", spy)
    write(tmp_path / "v.zarr", values)
    assert len(seen) >= 5
    assert set(seen) == {(False, False)}
    assert json.loads((tmp_path / "v.zarr" / "zarr.json").read_text())["attributes"]["volrecon"]["complete"] is True


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_never_written(tmp_path, values, bad):
    broken = values.copy()
    broken[60, 3, 5] = bad
    with pytest.raises(DivergedError, match=r"60.*3.*5"):
        write(tmp_path / "v.zarr", broken)
    assert list(tmp_path.iterdir()) == []


def test_verify_lists_all_faults_of_all_levels(tmp_path, values):
    path = tmp_path / "v.zarr"
    write(path, values)
    for key in ("0/c/1/0/0", "0/c/3/0/0"):
        (path / key).unlink()
    broken = path / "1" / "c" / "0" / "0" / "0"
    broken.write_bytes(broken.read_bytes()[:-1])
    (path / "2" / "zarr.json").unlink()
    faults = list(verify(path))
    assert len(faults) == 4
    for fault, place in zip(faults, ("/0: chunk c/1/0/0", "/0: chunk c/3/0/0", "/1: chunk c/0/0/0", "2"), strict=True):
        assert place in fault


def test_verify_knows_a_swapped_chunk(tmp_path, values):
    """Whole and checksummed, but not what was written."""
    path = tmp_path / "v.zarr"
    write(path, values)
    (path / "0" / "c" / "0" / "0" / "0").write_bytes((path / "0" / "c" / "1" / "0" / "0").read_bytes())
    (fault,) = verify(path)
    assert "sha256" in fault


def test_attributes_cannot_claim_completeness_early(tmp_path, values):
    path = tmp_path / "v.zarr"
    write(path, values)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["volrecon"]["complete"] = "true"
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(IntegrityError, match="--partial"):
        open_volume(path)
    assert open_volume(path, partial=True).digest is None
