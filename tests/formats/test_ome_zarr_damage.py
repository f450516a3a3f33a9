"""OME-Zarr stores that are damaged, hostile, or no image: refused with the reason, never read as something else."""

import contextlib
import shutil

import numpy as np
import pytest
import zarr
from ome_stores import (
    HINTS,
    OME,
    VALUES,
    chunk,
    edit,
    image,
    refused,
    save,
    scale,
    transformed,
    translation,
)

from volrecon.errors import DataError, VolreconError
from volrecon.formats import Hints, format_of


@pytest.fixture(params=[2, 3])
def fmt(request) -> int:
    return request.param


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
