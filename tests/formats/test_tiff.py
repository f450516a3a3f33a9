"""TIFF stacks that tifffile wrote: one file or a folder, volumes or projections, whole or not."""

import struct
import sys

import numpy as np
import pytest
import tifffile

from volrecon.errors import ConfigError, DataError
from volrecon.formats import FORMATS, Hints, format_of
from volrecon.geometry import VolumeGeometry

TIFF = FORMATS["tiff"]
HINTS = Hints(voxel_zyx_mm=(2.0, 1.0, 0.5), quantity="per_mm")
PAGES = np.random.default_rng(5).integers(0, 60_000, (12, 6, 8)).astype(np.uint16)


def save(path, pages, **options):
    tifffile.imwrite(path, pages, photometric="minisblack", **options)
    return path


def save_folder(folder, pages, name="slice{}.tif"):
    folder.mkdir()
    for index, page in enumerate(pages):
        save(folder / name.format(index), page)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"compression": "zlib"},
        {"rowsperstrip": 2},
        {"tile": (16, 16)},
        {"metadata": None},
        {"imagej": True},
    ],
    ids=str,
)
def test_kinds_of_files(tmp_path, options):
    path = save(tmp_path / "a.tif", PAGES, **options)
    volume = TIFF.read_volume(path, HINTS)
    np.testing.assert_array_equal(volume.slices[:], PAGES)
    assert volume.slices[2:4].dtype == np.uint16
    assert volume.geometry.voxel_zyx_mm == (2.0, 1.0, 0.5)
    views = TIFF.read_projections(path, Hints())
    assert views.projections.shape == (6, 12, 8)
    np.testing.assert_array_equal(views.projections[1:4], PAGES.swapaxes(0, 1)[1:4])
    assert "a page a view (v, u)" in views.notes[0]


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "u1"])
def test_number_types(tmp_path, dtype):
    array = (PAGES % 100).astype(dtype)
    volume = TIFF.read_volume(save(tmp_path / "a.tif", array, byteorder=dtype[0] if dtype[0] in "<>" else None), HINTS)
    np.testing.assert_array_equal(volume.slices[:], array)


def test_folder_in_natural_order(tmp_path):
    folder = save_folder(tmp_path / "stack", PAGES)
    (folder / "log.txt").write_text("not a page")
    (folder / "._slice0.tif").write_bytes(b"a Mac's shadow file")
    assert format_of(folder) is TIFF
    volume = TIFF.read_volume(folder, HINTS)
    np.testing.assert_array_equal(volume.slices[:], PAGES)
    assert "slice0.tif to slice11.tif" in volume.notes[0]
    np.testing.assert_array_equal(TIFF.read_projections(folder, Hints()).projections[2:3], PAGES.swapaxes(0, 1)[2:3])


def test_folder_that_is_not_a_stack(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no file named"):
        TIFF.read_volume(empty, HINTS)
    mixed = save_folder(tmp_path / "mixed", PAGES[:3])
    save(mixed / "slice1.tif", PAGES[0, :4])
    with pytest.raises(DataError, match=r"slice1\.tif: page 0 is \(4, 8\).*the first \(6, 8\)"):
        TIFF.read_volume(mixed, HINTS).slices[:]
    save(mixed / "slice1.tif", PAGES[:2])
    with pytest.raises(DataError, match=r"slice1\.tif: 2 pages; in a folder"):
        TIFF.read_volume(mixed, HINTS).slices[:]
    (mixed / "slice2.tif").write_bytes((mixed / "slice2.tif").read_bytes()[:60])
    with pytest.raises(DataError, match=r"slice2\.tif"):
        TIFF.read_volume(mixed, HINTS).slices[2:3]


def test_sinogram_stacks(tmp_path):
    path = save(tmp_path / "a.tif", PAGES)
    rows = TIFF.read_projections(path, Hints(axes="v,angle,u"))
    np.testing.assert_array_equal(rows.projections[:], PAGES)
    with pytest.raises(DataError, match="12 pages; axes 'angle,u' need a single one"):
        TIFF.read_projections(path, Hints(axes="angle,u"))
    one = TIFF.read_projections(save(path, PAGES[0]), Hints(axes="angle,u"))
    np.testing.assert_array_equal(one.projections[:], PAGES[:1])


def test_missing_hints(tmp_path):
    path = save(tmp_path / "a.tif", PAGES)
    with pytest.raises(ConfigError, match=r"a\.tif.*voxel_zyx_mm"):
        TIFF.read_volume(path, Hints(quantity="hu"))
    with pytest.raises(ConfigError, match=r"a\.tif.*quantity"):
        TIFF.read_volume(path, Hints(voxel_zyx_mm=(1.0, 1.0, 1.0)))
    with pytest.raises(ConfigError, match=r"a\.tif.*voxel size in z"):
        TIFF.read_volume(path, Hints(voxel_zyx_mm=(0.0, 1.0, 1.0), quantity="hu"))


def test_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="expected grey values"):
        TIFF.read_volume(tmp_path / "a.tif", HINTS)


def test_imagej_stack_of_one_page_is_not_one_slice(tmp_path):
    path = save(tmp_path / "a.tif", PAGES, imagej=True, truncate=True)
    with pytest.raises(DataError, match="claims 12 images in 1 pages"):
        TIFF.read_volume(path, HINTS)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["plain", "zlib"])
def test_no_truncation_loses_pages_silently(tmp_path, options):
    data = save(tmp_path / "a.tif", PAGES, **options).read_bytes()
    for keep in range(0, len(data) - 16, 37):  # tifffile pads the end
        (tmp_path / "a.tif").write_bytes(data[:keep])
        with pytest.raises(DataError, match=r"a\.tif"):
            TIFF.read_volume(tmp_path / "a.tif", HINTS).slices[:]


def test_pages_that_point_back(tmp_path):
    path = save(tmp_path / "a.tif", PAGES[0])
    data = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    path.write_bytes(data)
    with pytest.raises(DataError, match="points back"):
        TIFF.read_volume(path, HINTS)


def test_absurd_page_is_refused_before_allocation(tmp_path):
    path = save(tmp_path / "a.tif", PAGES[0], compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(2_000_000)
        tif.pages[0].tags["ImageLength"].overwrite(2_000_000)
    with pytest.raises(DataError, match="claims 8000000000000 bytes"):
        TIFF.read_volume(path, HINTS)


def test_tifffile_reads_what_we_write(tmp_path):
    path = tmp_path / "a.tif"
    TIFF.write_volume(path, PAGES, VolumeGeometry(PAGES.shape, (2.0, 1.0, 0.5)), "per_mm")
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 12
        assert "voxel_zyx_mm (2.0, 1.0, 0.5)" in tif.pages[0].description
        np.testing.assert_array_equal(np.stack([page.asarray() for page in tif.pages]), PAGES)


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = save(tmp_path / "a.tif", PAGES)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ConfigError, match=r"tifffile.*pip install 'volrecon\[io\]'"):
        TIFF.read_volume(path, HINTS)
