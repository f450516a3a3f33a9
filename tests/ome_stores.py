"""OME-Zarr stores as zarr-python writes them, for the tests of reading them."""

import json

import numpy as np
import pytest
import zarr

from volrecon.errors import DataError, GeometryError
from volrecon.formats import FORMATS, Hints

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


def refused(path, match, hints=HINTS, kind=(DataError, GeometryError)):
    with pytest.raises(kind, match=match) as caught:
        OME.read_volume(path, hints).slices[:]
    assert str(path) in str(caught.value)


def chunk(path, fmt, *index):
    return path / "0" / ("c/" + "/".join(map(str, index)) if fmt == 3 else ".".join(map(str, index)))


def check_truncations(path, file):
    """No chunk that was cut anywhere may be read: numcodecs' Blosc returns whatever lies behind the buffer."""
    whole = file.read_bytes()
    for keep in range(0, len(whole), 3):
        file.write_bytes(whole[:keep])
        with pytest.raises(DataError):
            OME.read_volume(path, HINTS).slices[0:1]
