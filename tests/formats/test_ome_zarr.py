"""OME-Zarr images that zarr-python wrote, formats 2 and 3: axes, units and places, and what other writers leave out."""

import itertools
import shutil

import numcodecs
import numpy as np
import pytest
import zarr
from ome_stores import (
    HINTS,
    OME,
    VALUES,
    check_truncations,
    chunk,
    edit,
    refused,
    save,
    scale,
    transformed,
    translation,
)

from volrecon.errors import ConfigError, DataError
from volrecon.exchange import import_volume, read_any_volume, water_of
from volrecon.formats import Hints, format_of
from volrecon.formats.foreign_zarr import open_array
from volrecon.formats.zarr_metadata import read_node
from volrecon.geometry import VolumeGeometry
from volrecon.store import open_volume, write_volume
from volrecon.store.output import is_ours
from volrecon.volume import RamSpace


@pytest.fixture(params=[2, 3])
def fmt(request) -> int:
    return request.param


def test_the_stores_of_these_tests_are_ome_zarr(tmp_path, fmt):
    models = pytest.importorskip({2: "ome_zarr_models.v04", 3: "ome_zarr_models.v05"}[fmt])
    models.Image.from_zarr(zarr.open_group(save(tmp_path / "a.zarr", fmt), mode="r"))


def test_grid_and_values(tmp_path, fmt):
    path = save(tmp_path / "a.ome.zarr", fmt, levels=2)
    assert format_of(path) is OME
    volume = OME.read_volume(path, HINTS)
    np.testing.assert_array_equal(volume.slices[:], VALUES)
    np.testing.assert_array_equal(volume.slices[1:4], VALUES[1:4])
    assert volume.slices.dtype == np.uint16
    assert volume.geometry == VolumeGeometry(VALUES.shape, (3e-3, 2e-3, 5e-4))
    assert volume.quantity == "per_mm"
    assert f"OME-NGFF {'0.4' if fmt == 2 else '0.5'}, dataset '0' of '0', '1', axes (z, y, x)" in volume.notes[0]
    assert "from scale in micrometer; no translation, centred at 0" in volume.notes[1]
    assert volume.notes[2] == "all 18 chunks are there; quantity 'per_mm' from the hint"


@pytest.mark.parametrize("axes", ["".join(order) for order in itertools.permutations("zyx")] + ["tczyx", "xctzy"])
def test_axes_go_by_their_names(tmp_path, fmt, axes):
    volume = OME.read_volume(save(tmp_path / "a.zarr", fmt, axes), HINTS)
    np.testing.assert_array_equal(volume.slices[:], VALUES)
    np.testing.assert_array_equal(volume.slices[2:3], VALUES[2:3])
    assert volume.geometry.voxel_zyx_mm == pytest.approx((3e-3, 2e-3, 5e-4))


@pytest.mark.parametrize(
    ("unit", "mm"), [("nanometer", 1e-6), ("millimeter", 1), ("centimeter", 10), ("meter", 1e3), ("µm", 1e-3)]
)
def test_units(tmp_path, unit, mm):
    changes = transformed(scale(30.0, 20.0, 10.0))
    volume = OME.read_volume(save(tmp_path / "a.zarr", unit=unit, changes=changes), HINTS)
    assert volume.geometry.voxel_zyx_mm == pytest.approx((30 * mm, 20 * mm, 10 * mm))


def test_each_axis_has_its_own_unit(tmp_path):
    axes = [{"name": n, "type": "space", "unit": u} for n, u in zip("zyx", ["meter", "mm", "nm"], strict=True)]
    volume = OME.read_volume(save(tmp_path / "a.zarr", changes={"axes": axes, **transformed(scale(1, 2, 30))}), HINTS)
    assert volume.geometry.voxel_zyx_mm == pytest.approx((1000, 2, 3e-5))


def test_without_a_unit_the_hint_says_the_size_and_the_translation_follows(tmp_path, fmt):
    changes = transformed(scale(4, 2, 1), translation(8, 2, 3))
    path = save(tmp_path / "a.zarr", fmt, unit=None, changes=changes)
    refused(path, "states no voxel size; give the hint voxel_zyx_mm", kind=ConfigError)
    volume = OME.read_volume(path, Hints(voxel_zyx_mm=(0.4, 0.2, 0.1), quantity="hu"))
    assert volume.geometry.voxel_zyx_mm == (0.4, 0.2, 0.1)
    np.testing.assert_allclose(volume.geometry.origin_xyz_mm, [0.3, 0.2, 0.8])
    assert "from the hint" in volume.notes[1]


def test_no_scale_needs_the_hint(tmp_path):
    path = save(tmp_path / "a.zarr", changes={"datasets": [{"path": "0"}]})
    refused(path, "voxel_zyx_mm", kind=ConfigError)
    assert OME.read_volume(path, Hints(voxel_zyx_mm=(1, 1, 1), quantity="hu")).geometry.voxel_zyx_mm == (1, 1, 1)


def test_transformations_of_dataset_and_image_are_composed(tmp_path):
    changes = transformed(scale(2, 2, 2), translation(1, 2, 3)) | {
        "coordinateTransformations": [scale(10, 20, 30), translation(5, 5, 5)]
    }
    volume = OME.read_volume(save(tmp_path / "a.zarr", unit="millimeter", changes=changes), HINTS)
    assert volume.geometry.voxel_zyx_mm == (20, 40, 60)
    np.testing.assert_allclose(volume.geometry.origin_xyz_mm, [3 * 30 + 5, 2 * 20 + 5, 1 * 10 + 5])
    assert f"centre {volume.geometry.centre_xyz_mm} mm" in volume.notes[1]


def test_another_resolution(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt, levels=2)
    volume = OME.read_volume(path, Hints(key="1", quantity="per_mm"))
    np.testing.assert_array_equal(volume.slices[:], VALUES[::2, ::2, ::2])
    assert volume.geometry.voxel_zyx_mm == pytest.approx((6e-3, 4e-3, 1e-3))
    refused(path, "no dataset '7'; the hint key may be one of 0, 1", Hints(key="7", quantity="hu"), ConfigError)


def test_hints_are_asked_for_and_must_agree(tmp_path):
    path = save(tmp_path / "a.zarr")
    refused(path, "hint quantity", Hints(), ConfigError)
    refused(path, "drop one", Hints(voxel_zyx_mm=(1, 1, 1), quantity="hu"), ConfigError)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "i8", "f2", "f8"])
def test_number_types(tmp_path, fmt, dtype):
    values = (VALUES % 100).astype(dtype)
    path = save(tmp_path / "a.zarr", fmt, changes={"datasets": [{"path": "n", **transformed(scale(1, 1, 1))}]})
    named = {"dimension_names": list("zyx")} if fmt == 3 else {}
    zarr.open_group(path).create_array("n", data=values, chunks=(4, 4, 4), **named)
    volume = OME.read_volume(path, Hints(voxel_zyx_mm=(1, 1, 1), quantity="hu"))
    assert volume.slices[:].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.slices[:], values)


@pytest.mark.parametrize("compressor", [None, "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "blosc"])
def test_compressors_of_format_2(tmp_path, compressor):
    codec = compressor and numcodecs.get_codec({"id": compressor})
    filters = [numcodecs.Delta("<u2"), numcodecs.Shuffle(2)] if compressor in ("zstd", "blosc") else None
    path = save(tmp_path / "a.zarr", 2, compressors=codec, filters=filters)
    np.testing.assert_array_equal(OME.read_volume(path, HINTS).slices[:], VALUES)
    check_truncations(path, chunk(path, 2, 0, 1, 1))


@pytest.mark.parametrize("name", ["BloscCodec", "GzipCodec", "ZstdCodec", None])
@pytest.mark.parametrize("checksum", [False, True])
def test_compressors_of_format_3(tmp_path, name, checksum):
    codecs = [getattr(zarr.codecs, name)()] if name else []
    filters = [zarr.codecs.TransposeCodec(order=(2, 0, 1))]
    crc = [zarr.codecs.Crc32cCodec()] * checksum
    path = save(tmp_path / "a.zarr", 3, compressors=[*codecs, *crc], filters=filters)
    np.testing.assert_array_equal(OME.read_volume(path, HINTS).slices[:], VALUES)
    check_truncations(path, chunk(path, 3, 0, 1, 1))


def test_dots_and_slashes_in_the_keys(tmp_path):
    for fmt, name, separator in ((2, "v2", "/"), (2, "v2", "."), (3, "v2", "/"), (3, "default", ".")):
        path = save(tmp_path / "a.zarr", fmt, chunk_key_encoding={"name": name, "separator": separator})
        np.testing.assert_array_equal(OME.read_volume(path, HINTS).slices[:], VALUES)


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("compressor", [zarr.codecs.BloscCodec(), zarr.codecs.GzipCodec()], ids=["blosc", "gzip"])
def test_shards(tmp_path, place, compressor):
    shards = {"shape": (4, 2, 2), "index_location": place}
    path = save(tmp_path / "a.zarr", chunks=(1, 1, 1), shards=shards, compressors=compressor, fill_value=7)
    volume = OME.read_volume(path, HINTS)
    np.testing.assert_array_equal(volume.slices[:], VALUES)
    assert f"all {VALUES.size} chunks are there" in volume.notes[2]
    first = path / "0" / "c" / "0" / "0" / "0"
    whole = first.read_bytes()
    for keep in range(0, len(whole), 13):
        first.write_bytes(whole[:keep])
        with pytest.raises(DataError):
            OME.read_volume(path, HINTS).slices[:]
    first.unlink()
    assert (
        f"16 of {VALUES.size} chunks are absent and read as the fill value 7" in OME.read_volume(path, HINTS).notes[2]
    )


def test_chunks_left_out_inside_a_shard_are_counted(tmp_path):
    path = save(tmp_path / "a.zarr", chunks=(1, 1, 1), shards=(2, 2, 2))
    stored = zarr.open_array(path / "0")
    stored[5, 4, :3] = 0
    stored[0, 0, 0] = 0
    volume = OME.read_volume(path, HINTS)
    assert f"4 of {VALUES.size} chunks are absent and read as the fill value 0" in volume.notes[2]
    np.testing.assert_array_equal(volume.slices[:], stored[:])


def test_chunks_beyond_the_end_of_the_array_are_not_counted(tmp_path):
    """Some writers fill shards up; zarr-python does not, so one is forged."""
    path = save(tmp_path / "a.zarr", chunks=(1, 1, 1), shards=(4, 2, 2))
    last = path / "0" / "c" / "1" / "2" / "1"
    data = bytearray(last.read_bytes())
    data[-20:-4] = data[-4 - 16 * 16 :][:16]
    last.write_bytes(data)
    (path / "0" / "c" / "0" / "0" / "0").unlink()
    assert f"16 of {VALUES.size} chunks are absent" in OME.read_volume(path, HINTS).notes[2]


def test_absent_chunks_are_counted_and_said(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt, fill_value=7)
    chunk(path, fmt, 0, 0, 0).unlink()
    chunk(path, fmt, 2, 1, 1).unlink()
    chunk(path, fmt, 2, 1, 1).mkdir()  # zarr takes this for absent, too
    chunk(path, fmt, 0, 0, 9).write_bytes(b"no chunk of this array")
    volume = OME.read_volume(path, HINTS)
    assert "2 of 18 chunks are absent and read as the fill value 7" in volume.notes[2]
    expected = VALUES.copy()
    expected[:2, :2, :2] = expected[4:, 2:4, 2:] = 7
    np.testing.assert_array_equal(volume.slices[:], expected)


def test_air_that_a_writer_left_out_is_air(tmp_path):
    path = save(tmp_path / "a.zarr")
    stored = zarr.open_array(path / "0")
    stored[2:4] = 0  # zarr-python deletes these chunks
    volume = OME.read_volume(path, HINTS)
    assert "6 of 18 chunks are absent and read as the fill value 0" in volume.notes[2]
    assert not volume.slices[2:4].any()


def test_metadata_without_data(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt)
    for place in (path / "0").iterdir():
        if place.name[0] in "c012":
            shutil.rmtree(place) if place.is_dir() else place.unlink()
    refused(path, "none of its 18 chunks: metadata without data")


def test_absent_chunks_without_a_fill_value(tmp_path):
    path = save(tmp_path / "a.zarr", 2)
    edit(path / "0" / ".zarray", lambda table: table.update(fill_value=None))
    np.testing.assert_array_equal(OME.read_volume(path, HINTS).slices[:], VALUES)
    chunk(path, 2, 1, 1, 1).unlink()
    refused(path, "lacks 1 of 18 chunks and states no fill value")


def test_import_and_ours(tmp_path, fmt):
    path, out = save(tmp_path / "a.zarr", fmt, unit="millimeter"), tmp_path / "volume.zarr"
    notes = import_volume(path, out, Hints(quantity="hu"), water_per_mm=0.03)
    assert "OME-NGFF" in notes[0]
    mu = np.float32(0.03) * (VALUES.astype(np.float32) * np.float32(1e-3) + 1)
    np.testing.assert_allclose(open_volume(out).data[:], mu, rtol=1e-6)
    assert (is_ours(path), is_ours(out)) == (False, True)
    assert (water_of(path, None), water_of(out, None)) == (0.02, 0.03)
    ours, grid, _ = read_any_volume(out, Hints(), 0.02)
    theirs, same, _ = read_any_volume(path, Hints(quantity="hu"), 0.03)
    np.testing.assert_array_equal(ours, theirs)
    assert grid == same
    refused(out, "volrecon's own")
    with pytest.raises(ConfigError, match="hint quantity"):
        read_any_volume(path, Hints(), 0.02)


def test_our_own_volumes_read_as_ome_zarr_once_they_are_not_marked(tmp_path):
    grid = VolumeGeometry(VALUES.shape, (0.3, 0.2, 0.1), (5.0, -6.0, 7.0))
    values = (VALUES / 60_000).astype(np.float32)
    path = tmp_path / "v.zarr"
    write_volume(path, RamSpace().of(Readable(values)), grid, {})
    edit(path / "zarr.json", lambda table: table["attributes"].pop("volrecon"))
    volume = OME.read_volume(path, HINTS)
    np.testing.assert_array_equal(volume.slices[:], values)
    np.testing.assert_allclose(volume.geometry.centre_xyz_mm, grid.centre_xyz_mm)
    np.testing.assert_allclose(volume.geometry.voxel_zyx_mm, grid.voxel_zyx_mm)


class Readable:
    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def read(self, start, stop):
        import torch

        return torch.from_numpy(self.values[start:stop])


def test_a_bare_array_can_be_looked_at(tmp_path):
    zarr.save_array(tmp_path / "bare.zarr", VALUES)
    found = open_array(read_node(tmp_path / "bare.zarr"), tmp_path / "bare.zarr")
    assert found.layout.shape == VALUES.shape
    np.testing.assert_array_equal(found.array[:], VALUES)
