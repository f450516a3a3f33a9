"""OME-Zarr images that zarr-python wrote, formats 2 and 3: axes, units and places, and what other writers leave out."""

import contextlib
import itertools
import json
import shutil

import numcodecs
import numpy as np
import pytest
import zarr

from volrecon.errors import ConfigError, DataError, GeometryError, VolreconError
from volrecon.exchange import import_volume, read_any_volume, water_of
from volrecon.formats import FORMATS, Hints, format_of
from volrecon.formats.foreign_zarr import open_array
from volrecon.formats.zarr_metadata import read_node
from volrecon.geometry import VolumeGeometry
from volrecon.store import open_volume, write_volume
from volrecon.store.output import is_ours
from volrecon.volume import RamSpace

OME = FORMATS["ome-zarr"]
HINTS = Hints(quantity="per_mm")
VALUES = np.random.default_rng(3).integers(1, 60_000, (6, 5, 4)).astype(np.uint16)
SCALE = {"z": 3.0, "y": 2.0, "x": 0.5, "t": 1.0, "c": 1.0}


def save(path, fmt=3, axes="zyx", unit="micrometer", changes=None, levels=1, **options):
    """VALUES as a store of one image, its further levels every 2nd, 4th ... value; returns `path`.

    `changes` go into the image's metadata, `options` into zarr's create_array.
    """
    array = np.transpose(VALUES, ["zyx".index(name) for name in axes if name in "zyx"])
    array = array.reshape([VALUES.shape["zyx".index(name)] if name in "zyx" else 1 for name in axes])
    group = zarr.open_group(path, mode="w", zarr_format=fmt)
    named = {"dimension_names": list(axes)} if fmt == 3 else {}
    datasets = []
    for level in range(levels):
        half = array[tuple(slice(None, None, 2**level) for _ in axes)]
        chunks = options.get("chunks", tuple(min(n, 2) for n in half.shape))
        group.create_array(str(level), **{**named, **options, "data": half, "chunks": chunks})
        scale = [SCALE[name] * 2 ** (level * (name in "zyx")) for name in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    space = {"type": "space", **({"unit": unit} if unit else {})}
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    image = {"axes": [{"name": n, **kinds.get(n, space)} for n in axes], "datasets": datasets, **(changes or {})}
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [image]}} if fmt == 3 else
                       {"multiscales": [{"version": "0.4", **image}]})  # fmt: skip
    return path


def transformed(*transformations):
    return {"datasets": [{"path": "0", "coordinateTransformations": list(transformations)}]}


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def translation(*values):
    return {"type": "translation", "translation": list(values)}


def image(table):
    """The image's metadata in those of a group."""
    table = table.get("attributes", table)
    return table.get("ome", table)["multiscales"][0]


def edit(path, change):
    """Rewrite a JSON file: change(table) alters it in place."""
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


@pytest.fixture(params=[2, 3])
def fmt(request) -> int:
    return request.param


def refused(path, match, hints=HINTS, kind=(DataError, GeometryError)):
    with pytest.raises(kind, match=match) as caught:
        OME.read_volume(path, hints).slices[:]
    assert str(path) in str(caught.value)


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


def check_truncations(path, file):
    """No chunk that was cut anywhere may be read: numcodecs' Blosc returns whatever lies behind the buffer."""
    whole = file.read_bytes()
    for keep in range(0, len(whole), 3):
        file.write_bytes(whole[:keep])
        with pytest.raises(DataError):
            OME.read_volume(path, HINTS).slices[0:1]


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


def chunk(path, fmt, *index):
    return path / "0" / ("c/" + "/".join(map(str, index)) if fmt == 3 else ".".join(map(str, index)))


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


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_damaged_chunks(tmp_path, damage):
    crc = {"compressors": [zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()]}
    path = save(tmp_path / "a.zarr", **crc)
    data = bytearray(chunk(path, 3, 1, 1, 1).read_bytes())
    data[-6] ^= 1
    chunk(path, 3, 1, 1, 1).write_bytes({"truncated": data[:-5], "empty": b"", "flipped": bytes(data)}[damage])
    volume = OME.read_volume(path, HINTS)
    np.testing.assert_array_equal(volume.slices[:2], VALUES[:2])
    with pytest.raises(DataError, match="damaged") as caught:
        volume.slices[2:4]
    assert str(path) in str(caught.value)


def test_a_huge_file_for_a_small_chunk(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt)
    with chunk(path, fmt, 0, 0, 0).open("wb") as stream:
        stream.truncate(50 * 2**30)  # sparse
    refused(path, "53687091200 bytes for 16 of values")


@pytest.mark.parametrize("name", ["../secret", "/etc", "0/../../x", "", ".", "a\\b", "a\0b", "0//1"])
def test_paths_out_of_the_store(tmp_path, fmt, name):
    save(tmp_path / "secret", fmt)
    refused(save(tmp_path / "a.zarr", fmt, changes={"datasets": [{"path": name}]}), "no plain path inside the store")


def test_links_out_of_the_store(tmp_path, fmt):
    path, other = save(tmp_path / "a.zarr", fmt), save(tmp_path / "b.zarr", fmt)
    target = chunk(path, fmt, 1, 0, 1)
    target.unlink()
    target.symlink_to(chunk(other, fmt, 1, 0, 1))
    refused(path, "link out of the store")
    target.unlink()
    target.symlink_to(chunk(path, fmt, 0, 0, 0))  # within the store
    np.testing.assert_array_equal(OME.read_volume(path, HINTS).slices[2:4][:, :2, 2:], VALUES[:2, :2, :2])
    shutil.rmtree(path / "0")
    (path / "0").symlink_to(other / "0")
    refused(path, "link out of the store")


def test_metadata_that_is_a_link(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt)
    name = "zarr.json" if fmt == 3 else ".zarray"
    (path / "0" / name).rename(tmp_path / "elsewhere")
    (path / "0" / name).symlink_to(tmp_path / "elsewhere")
    refused(path, "is a symbolic link")


V2 = {
    "pickled objects": ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "dtype"),
    "pickle codec": ({"filters": [{"id": "pickle", "protocol": 5}]}, "filters.0.id"),
    "unknown codec": ({"compressor": {"id": "turbo"}}, "compressor.id"),
    "structured": ({"dtype": [["a", "<u2"]]}, "dtype"),
    "complex": ({"dtype": "<c8"}, "dtype"),
    "chunk 0": ({"chunks": [0, 2, 2]}, r"chunks\.0"),
    "negative": ({"shape": [-6, 5, 4]}, r"shape\.0"),
    "absurd shape": ({"shape": [10**7] * 3}, "2000000000000000000000 bytes"),
    "absurd chunk": ({"chunks": [10**4] * 3}, "in chunks of 2000000000000"),
    "fewer axes": ({"shape": [6, 5], "chunks": [2, 2]}, "array"),
    "strange separator": ({"dimension_separator": "../"}, "dimension_separator"),
    "no shape": ({"shape": None}, "shape"),
    "format": ({"zarr_format": 7}, "format 7"),
}
V3 = {
    "unknown codec": ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}, "codecs"),
    "objects": ({"data_type": "string"}, "data_type"),
    "bool": ({"data_type": "bool"}, "data_type"),
    "rectilinear": ({"chunk_grid": {"name": "rectilinear", "configuration": {}}}, "chunk_grid"),
    "chunk 0": ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 0, 2]}}}, "chunk_shape"),
    "float shape": ({"shape": [6.0, 5, 4]}, "shape"),
    "absurd shape": ({"shape": [10**7] * 3}, "2000000000000000000000 bytes"),
    "transposed": ({"dimension_names": ["x", "y", "z"]}, r"axes \('z', 'y', 'x'\), its array \('x', 'y', 'z'\)"),
    "storage transformers": ({"storage_transformers": [{"name": "x"}]}, "storage_transformers"),
    "a group": ({"node_type": "group"}, "is a group"),
    "format": ({"zarr_format": 2}, "format 2"),
}


@pytest.mark.parametrize("case", V2)
def test_array_metadata_of_format_2(tmp_path, case):
    changes, match = V2[case]
    path = save(tmp_path / "a.zarr", 2)
    edit(path / "0" / ".zarray", lambda table: table.update(changes))
    refused(path, match)


@pytest.mark.parametrize("case", V3)
def test_array_metadata_of_format_3(tmp_path, case):
    changes, match = V3[case]
    path = save(tmp_path / "a.zarr", 3)
    edit(path / "0" / "zarr.json", lambda table: table.update(changes))
    refused(path, match)


def test_slices_too_large_to_read_whole(tmp_path):
    path = save(tmp_path / "a.zarr", 2, compressors=None)
    edit(path / "0" / ".zarray", lambda table: table.update(shape=[2, 10**5, 10**5], chunks=[2, 1000, 1000]))
    refused(path, "a slice has 20000000000 bytes in 10000 chunks")
    edit(path / "0" / ".zarray", lambda table: table.update(shape=[2, 4000, 4000], chunks=[1, 1, 1]))
    refused(path, "in 16000000 chunks")


IMAGES = {
    "no z": ({"axes": [{"name": n} for n in "tyx"]}, "has the axes"),
    "twice": ({"axes": [{"name": n} for n in "zyy"]}, "has the axes"),
    "names of 0.3": ({"axes": ["z", "y", "x"]}, "axes.0"),
    "strange unit": ({"axes": [{"name": n, "unit": "furlong"} for n in "zyx"]}, "lengths in 'furlong'"),
    "scale of two": (transformed(scale(1, 1)), "for 3 axes"),
    "scale in a file": (transformed({"type": "scale", "path": "scale"}), "scale None"),
    "scale 0": (transformed(scale(1, 0, 1)), "only positive"),
    "mirrored": (transformed(scale(1, -1, 1)), "only positive"),
    "rotation": (transformed({"type": "rotation", "rotation": []}), "coordinateTransformations.0.type"),
    "NaN": (transformed(scale(1, float("nan"), 1)), "finite number"),
    "huge": (transformed(scale(1e300, 1, 1), scale(1e300, 1, 1)), "voxel size in z is inf"),
    "far away": (transformed(scale(1e-3, 1, 1), translation(1e308, 0, 0)), "centre"),
    "no datasets": ({"datasets": []}, "datasets"),
    "missing dataset": ({"datasets": [{"path": "9"}]}, "no zarr.json"),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("case", IMAGES)
def test_image_metadata(tmp_path, fmt, case):
    changes, match = IMAGES[case]
    refused(save(tmp_path / "a.zarr", fmt, changes=changes), match)


def test_more_than_one_volume(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt, changes={"axes": [{"name": n} for n in "ctyx"]})
    refused(path, "has the axes")
    path = save(tmp_path / "a.zarr", fmt, "zyx")
    group = zarr.open_group(path)
    group.create_array("many", data=np.ones((3, 2, 2, 2, 2), "u1"), chunks=(1, 2, 2, 2, 2))
    axes = {"axes": [{"name": n} for n in "tczyx"], "datasets": [{"path": "many"}]}
    name = ".zattrs" if fmt == 2 else "zarr.json"
    edit(path / name, lambda table: image(table).update(axes))
    refused(path, "more than one volume: t of size 3, c of size 2", Hints(voxel_zyx_mm=(1, 1, 1), quantity="hu"))


def test_versions(tmp_path):
    path = save(tmp_path / "a.zarr", 3)
    edit(path / "zarr.json", lambda table: table["attributes"]["ome"].update(version="0.6"))
    refused(path, "OME-NGFF version '0.6' in Zarr format 3; read is 0.5")
    path = save(tmp_path / "b.zarr", 2, changes={"version": "0.1"})
    refused(path, "OME-NGFF version '0.1' in Zarr format 2; read is 0.4")
    edit(path / ".zattrs", lambda table: image(table).pop("version"))
    OME.read_volume(path, HINTS)


def test_what_is_no_image(tmp_path, fmt):
    group = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=fmt)
    group.attrs["plate"] = {}
    refused(tmp_path / "plate.zarr", r"without an OME image.*plate.*give the folder of one image, such as .*/0")
    path = save(tmp_path / "a.zarr", fmt)
    assert format_of(path / "0") is OME
    refused(path / "0", "single Zarr array")
    empty = tmp_path / "empty.zarr"
    empty.mkdir()
    assert format_of(empty) is OME
    refused(empty, "no Zarr group or array")
    refused(tmp_path / "nowhere.zarr", "no Zarr group or array")
    empty.rmdir()
    empty.write_bytes(b"not a folder")
    refused(empty, "no Zarr group or array")


def test_json_that_is_none(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt)
    target = path / ("zarr.json" if fmt == 3 else ".zattrs")
    whole = target.read_text()
    for text in (whole[: len(whole) // 2], "", "[]", "[" * 10**5, "\x00", "9" * 5000, '{"attributes": []}'):
        target.write_text(text)
        refused(path, "damaged|attributes|format|without an OME image")
    with target.open("wb") as stream:
        stream.truncate(2**40)
    refused(path, "metadata above")


def test_consolidated_metadata_are_not_believed(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt)
    if fmt == 3:
        edit(path / "zarr.json", lambda t: t.update(consolidated_metadata={"kind": "inline", "metadata": {"0": 1}}))
    else:
        (path / ".zmetadata").write_text('{"metadata": {"0/.zarray": {"shape": [1]}}}')
    np.testing.assert_array_equal(OME.read_volume(path, HINTS).slices[:], VALUES)


def test_flipped_bytes(tmp_path, fmt):
    path = save(tmp_path / "a.zarr", fmt, compressors=[zarr.codecs.Crc32cCodec()] if fmt == 3 else None)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    rng = np.random.default_rng(11)
    survived = 0
    for _ in range(150):
        file = files[int(rng.integers(len(files)))]
        whole = file.read_bytes()
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 3))):
            data[int(rng.integers(len(data)))] = int(rng.integers(32, 127))
        file.write_bytes(data)
        with contextlib.suppress(VolreconError):
            read = OME.read_volume(path, HINTS).slices[0:2]
            survived += 1
            if file.name != "zarr.json" and fmt == 3:  # checksums: a changed chunk is never read
                np.testing.assert_array_equal(read, VALUES[:2])
        file.write_bytes(whole)
    assert 0 < survived < 150


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
    write_volume(path, RamSpace().of(Readable(values)), grid, RamSpace(), {})
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
