"""Volumes on the voxel sizes of a prior: which levels there are, what values they hold, and that the store is whole."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from trials import SPACING, data_of, hounsfield, quiet

from volrecon.errors import DataError, IntegrityError
from volrecon.geometry import VolumeGeometry
from volrecon.resample import resampled
from volrecon.training import prepare as module
from volrecon.training.config import Data
from volrecon.training.prepare import BODY, prepare


def whole(level):
    return level.array[0 : level.array.shape[0]]


def one(folder, array, voxel=(2.0, 2.0, 2.0), quantity="hu", told=(2.0,), **source) -> tuple[Path, Data]:
    """A source of one volume, and the data that name it."""
    np.savez(folder / "one.npz", volume=array, voxel_zyx_mm=np.array(voxel, float), quantity=np.array(quantity))
    stated = {"file": "one.npz", "origin": "o", "licence": "l", **source}
    return folder, Data.model_validate({"voxel_mm": list(told), "sources": [stated]})


def prepared_one(folder, *arguments, **more):
    root, data = one(folder, *arguments, **more)
    return prepare(folder / "p.zarr", data, root, quiet)


def test_values_are_attenuation_over_that_of_1000_hu_clipped(tmp_path):
    hu = np.array([-2000, -1000, 0, 40, 1000, 2999, 3000, 5000] * 36, np.int16).reshape(2, 12, 12)
    values = whole(prepared_one(tmp_path, hu).training[0])
    expected = np.clip((np.maximum(hu.astype(float), -1000) + 1000) / 2000, 0, 2)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values.dtype == np.float32
    assert values.max() == 2
    assert values.min() == 0


@pytest.mark.parametrize("water", [0.02, 0.03])
def test_attenuation_in_per_mm_is_divided_by_twice_that_of_water(tmp_path, water):
    mu = np.random.default_rng(0).uniform(0, 0.03, (3, 8, 8)).astype(np.float32)
    values = whole(prepared_one(tmp_path, mu, quantity="per_mm", water_per_mm=water).training[0])
    np.testing.assert_allclose(values, mu / (2 * water), rtol=1e-6)


@pytest.mark.parametrize(
    ("voxel", "told", "levels"),
    [
        ((2.0, 2.0, 2.0), (1.0, 1.7, 2.0, 4.0), [(2.0, 2.0), (4.0, 4.0)]),
        ((2.0, 2.0, 2.0), (1.75, 4.0), [(1.75, 1.75), (4.0, 4.0)]),  # 2.0 / 1.75 is below 1.15
        ((5.0, 1.0, 2.0), (1.0, 2.0), [(2.5, 2.0)]),  # slices at half of their own distance; the larger pixel counts
        ((6.0, 2.0, 2.0), (2.0, 4.0), [(3.0, 2.0), (4.0, 4.0)]),
        ((1.0, 5.0, 5.0), (2.0, 4.0), [(5.0, 5.0)]),  # coarser than all: its own
    ],
)
def test_levels_are_never_much_finer_than_the_volume(tmp_path, voxel, told, levels):
    found = prepared_one(tmp_path, hounsfield(1), voxel, told=told).training
    sizes = [(level.spacing * level.voxel_mm, level.voxel_mm) for level in found]
    np.testing.assert_allclose(sizes, levels)
    for level in found:
        extents = np.array(level.array.shape) * [level.spacing * level.voxel_mm, level.voxel_mm, level.voxel_mm]
        own = np.array(hounsfield(1).shape) * voxel
        half = np.array([level.spacing * level.voxel_mm, level.voxel_mm, level.voxel_mm]) / 2
        assert (np.abs(extents - own) <= half + 1e-9).all()
    assert sum(level.share for level in found) == pytest.approx(1.0)


def test_a_level_is_the_clipped_volume_resampled_about_its_centre(prepared):
    by_size = {level.voxel_mm: whole(level) for level in prepared.training[:2]}
    source = VolumeGeometry((12, 24, 24), SPACING)
    unit = np.clip((hounsfield(0) + 1000.0) / 2000, 0, 2).astype(np.float32)
    for size, shape, dz in ((2.0, (18, 24, 24), 2.0), (4.0, (9, 12, 12), 4.0)):
        expected = resampled(unit, source, VolumeGeometry(shape, (dz, size, size)))
        np.testing.assert_allclose(by_size[size], expected, atol=1e-6)


def test_boxes_are_the_body_s(prepared):
    empty = 0
    for level in (*prepared.training, *prepared.held_out):
        values = whole(level)
        assert level.boxes.shape == (len(values), 4)
        for plane, box in zip(values, level.boxes, strict=True):
            at = [(r, c) for r in range(plane.shape[0]) for c in range(plane.shape[1]) if plane[r, c] > BODY]
            empty += not at
            rows, columns = [r for r, _ in at] or [-1], [c for _, c in at] or [-1]
            expected = [min(rows), max(rows) + 1, min(columns), max(columns) + 1] if at else [0, 0, 0, 0]
            assert box.tolist() == expected
    assert empty > 0


def test_held_out_volumes_are_never_trained_on(prepared):
    unit = [np.clip((hounsfield(seed) + 1000.0) / 2000, 0, 2) for seed in range(3)]

    def nearest(level):
        planes = whole(level)[4]
        means = [np.abs(planes - whole_of[4]).mean() for whole_of in resampled_to(level, unit)]
        return int(np.argmin(means))

    def resampled_to(level, volumes):
        size = level.voxel_mm
        target = VolumeGeometry(level.array.shape, (level.spacing * size, size, size))
        return [resampled(v.astype(np.float32), VolumeGeometry(v.shape, SPACING), target) for v in volumes]

    same = {level.array.shape for level in prepared.held_out}
    assert {nearest(level) for level in prepared.held_out} == {2}
    assert {nearest(level) for level in prepared.training if level.array.shape in same} == {0, 1}
    assert (len(prepared.training), len(prepared.held_out)) == (6, 2)


def test_shares_split_a_source_s_weight(prepared):
    assert [level.share for level in prepared.training] == pytest.approx([0.5, 0.5, 0.5, 0.5, 1.5, 1.5])


def test_statistics_are_those_of_the_bodies(prepared):
    inside = [
        np.concatenate([p[a:b, c:d].ravel() for p, (a, b, c, d) in zip(whole(level), level.boxes, strict=True)])
        for level in prepared.training
    ]
    shares = np.array([level.share for level in prepared.training])
    weights = np.concatenate([np.full(v.size, s / v.size) for v, s in zip(inside, shares, strict=True)])
    values = np.concatenate(inside).astype(np.float64)
    mean = np.average(values, weights=weights)
    assert prepared.mean == pytest.approx(mean, abs=1e-6)
    assert prepared.deviation == pytest.approx(np.sqrt(np.average((values - mean) ** 2, weights=weights)), abs=1e-6)
    counts, edges = np.histogram(values, np.linspace(0.47, 0.6, 66), weights=weights)
    assert prepared.soft_tissue == pytest.approx((edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2)
    assert prepared.soft_tissue == pytest.approx(0.56, abs=0.012)  # 120 HU, of the volume with the largest share


def test_phantoms_are_patients_with_seeds_from_the_first_on(tmp_path, monkeypatch):
    def patient(grid, seed, water_per_mm):
        values = np.random.default_rng(seed).uniform(0, 5 * water_per_mm, grid.shape)
        return values.astype(np.float32)

    monkeypatch.setattr(module, "anatomy", patient)
    stated = {"count": 2, "shape": [4, 8, 8], "voxel_mm": 8.0, "first_seed": 11, "weight": 3.0}
    data = data_of(sources=[], phantoms=stated, voxel_mm=[8.0])
    made = prepare(tmp_path / "p.zarr", data, tmp_path, quiet)
    grid = VolumeGeometry((4, 8, 8), (8.0, 8.0, 8.0))
    for level, seed in zip(made.training, (11, 12), strict=True):
        np.testing.assert_allclose(whole(level), np.clip(patient(grid, seed, 0.02) / 0.04, 0, 2), rtol=1e-6)
        assert level.share == pytest.approx(1.5)


def test_what_shows_no_body_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"one\.npz shows no body: no value above 0\.25"):
        prepared_one(tmp_path, np.full((4, 8, 8), -1000, np.int16))
    assert not (tmp_path / "p.zarr").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, bad):
    mu = np.full((4, 8, 8), 0.02, np.float32)
    mu[1, 2, 3:5] = bad
    with pytest.raises(DataError, match=r"one\.npz.* 2 .*not finite"):
        prepared_one(tmp_path, mu, quantity="per_mm")
    assert not (tmp_path / "p.zarr").exists()


def test_constant_bodies_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"one constant value, 0\.52"):
        prepared_one(tmp_path, np.full((4, 8, 8), 40, np.int16))


def test_a_slice_without_a_body_is_no_error(tmp_path):
    hu = np.full((4, 8, 8), -1000, np.int16)
    hu[2, 3:6, 2:4] = 0
    hu[2, 4, 2] = 100
    (level,) = prepared_one(tmp_path, hu).training
    assert level.boxes.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [3, 6, 2, 4], [0, 0, 0, 0]]


def test_a_damaged_store_is_noticed_when_it_is_read(tmp_path):
    root, data = one(tmp_path, hounsfield(3))
    prepare(tmp_path / "p.zarr", data, root, quiet)
    chunk = next(p for p in (tmp_path / "p.zarr" / "0000" / "c").rglob("*") if p.is_file())
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    chunk.write_bytes(damaged)
    (level,) = prepare(tmp_path / "p.zarr", data, root, quiet).training
    with pytest.raises(IntegrityError, match="0000"):
        whole(level)


def test_shared_training_data(tmp_path):
    """One small file of the real training data, where it is."""
    root = Path(os.environ.get("VOLRECON_DATA", Path(__file__).parents[3] / "shared" / "data"))
    name = "train/ts_example_3mm.npz"
    if not (root / name).exists():
        pytest.skip(f"{name} is not in {root}; set VOLRECON_DATA")
    started = time.monotonic()
    data = Data.model_validate({"voxel_mm": [4.0], "sources": [{"file": name, "origin": "o", "licence": "l"}]})
    made = prepare(tmp_path / "p.zarr", data, root, quiet)
    assert made.training[0].voxel_mm == 4.0
    assert 0.2 < made.mean < 0.7
    assert 0.49 < made.soft_tissue < 0.56
    assert time.monotonic() - started < 60
