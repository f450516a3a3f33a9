"""`volrecon info` of other people's files: geometries, projections, volumes, and what could be either."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from balls import GRID, ball_projections, small_scan
from info_files import GEOMETRY, VALUES, is_picture
from matplotlib.image import imread

from volrecon.formats import FORMATS, GEOMETRIES, write_vectors


def test_geometries(info, tmp_path):
    (tmp_path / "g.toml").write_text(GEOMETRY)
    said = info("g.toml", "--picture", "g.png")
    assert "parallel beam, 24 views, detector (20, 32)" in said
    assert "suggested grid (20, 32, 32)" in said
    assert is_picture(tmp_path / "g.png")
    (tmp_path / "g.toml").write_text(GEOMETRY.replace("step = 15\ncount = 24\n", "from_data = true\n"))
    assert "volrecon info PROJECTIONS --geometry g.toml" in info("g.toml")
    (tmp_path / "g.toml").write_text(GEOMETRY + "[grid]\nshape = [9, 9, 9]\nvoxel_mm = 1\ncentre_mm = [0, 0, 9e5]\n")
    assert "no reconstruction: no view sees the volume" in info("g.toml")


def test_vectors_need_projections(info, tmp_path):
    scan = small_scan("cone", 6)
    write_vectors(tmp_path / "v.txt", scan.vectors)
    said = info("v.txt", code=2)
    assert "vectors of 6 views" in said
    assert "(volrecon info PROJECTIONS --geometry v.txt)" in said
    write_vectors(tmp_path / "v.npy", scan.vectors)  # or a sinogram
    assert "vectors of 6 views" in info("v.npy")
    np.save(tmp_path / "y.npy", ball_projections(scan))
    said = info("y.npy", "--axes", "v,angle,u", "--geometry", "v.txt", "--picture", "y.png")
    assert "npy, projections (36, 6, 32) (v, angle, u), float32" in said
    assert "cone beam, 6 views" in said
    assert is_picture(tmp_path / "y.png")
    write_vectors(tmp_path / "v.txt", scan.vectors[:5])
    assert "5 views" in info("y.npy", "--axes", "v,angle,u", "--geometry", "v.txt", code=3)
    assert "need --quantity and --file-voxel-mm and --axes" in info("y.npy", "--geometry", "v.txt", code=2)
    (tmp_path / "v.txt").write_text("a shopping list\n")
    assert "v.txt" in info("v.txt", code=3)


def test_a_file_that_could_be_either_is_said_to_be_both(info, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VALUES, photometric="minisblack")
    said = info("a.tif")
    assert "tiff, volume (6, 7, 8) (z, y, x), float32\n" in said
    assert "state --quantity and --file-voxel-mm" in said
    assert "tiff, projections (7, 6, 8) (v, angle, u), float32" in said
    assert "(1.0, 1.0, 1.0)" not in said  # what was made up
    info("a.tif", "--picture", "p.png")
    assert is_picture(tmp_path / "p.png")
    said = info("a.tif", "--file-voxel-mm", "2", "--quantity", "hu", "--picture", "v.png")
    assert "volume (6, 7, 8) of (2.0, 2.0, 2.0) mm (z, y, x), float32, hu" in said
    assert imread(tmp_path / "v.png").shape != imread(tmp_path / "p.png").shape
    assert "of (2.0, 2.0, 2.0) mm (z, y, x), float32\n" in info("a.tif", "--file-voxel-mm", "2")


def test_arrays_without_names_of_axes(info, tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    said = info("a.npy")
    assert "npy, volume (6, 7, 8) (z, y, x), float32" in said
    assert "npy, projections of 336 values, float32; --axes says in which order" in said
    assert "state --quantity and --file-voxel-mm and --axes" in info("a.npy", "--picture", "a.png", code=2)
    assert not (tmp_path / "a.png").exists()
    np.save(tmp_path / "s.npy", VALUES[0])
    assert "projections of 56 values" in info("s.npy")
    assert "projections (1, 7, 8)" in info("s.npy", "--axes", "angle,u")
    assert "need 2 dimensions" in info("a.npy", "--axes", "angle,u", code=3)
    assert "volume" in info("s.npy", "--quantity", "hu", code=3)
    np.save(tmp_path / "l.npy", np.arange(5))
    assert "l.npy" in info("l.npy", code=3)


def test_npz_with_angles(info, tmp_path):
    y = ball_projections(small_scan("parallel", 24))
    np.savez(tmp_path / "a.npz", projections=y, angles_deg=15.0 * np.arange(24))
    said = info("a.npz")
    assert "angles in the file: 0 to 345 deg" in said
    assert "where the rays are" in said
    (tmp_path / "g.toml").write_text(GEOMETRY)
    said = info("a.npz", "--geometry", "g.toml", "--picture", "a.png")
    assert "parallel beam, 24 views" in said
    assert is_picture(tmp_path / "a.png")
    (tmp_path / "g.toml").write_text(GEOMETRY.replace("columns = 32", "columns = 31"))
    assert "states (20, 24, 31) (v, angle, u), the projections are (20, 24, 32)" in info(
        "a.npz", "--geometry", "g.toml", code=3
    )


def test_counts_in_hdf5(info, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("exchange")
        counts = np.random.default_rng(1).integers(900, 1000, (5, 6, 7)).astype(np.uint16)
        for name, values in (("data", counts), ("data_white", counts[:2]), ("data_dark", 0 * counts[:1])):
            group[name] = values
        group["theta"] = np.linspace(0, 180, 5, endpoint=False)
    said = info("a.h5", "--picture", "a.png")
    assert "hdf5, projections (6, 5, 7) (v, angle, u), uint16" in said
    assert "detector counts with 2 flats and 1 darks" in said
    assert is_picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if known.write_volume])
def test_every_format_we_write(info, tmp_path, name):
    known = FORMATS[name]
    path = tmp_path / f"a{known.suffixes[0]}"
    known.write_volume(path, VALUES, type(GRID)(VALUES.shape, (2.0, 1.0, 1.0)), "hu")
    hints = ["--quantity", "hu", "--file-voxel-mm", "2,1,1"]
    said = info(path.name, *hints, "--picture", "v.png")
    assert f"{name}, volume (6, 7, 8) of (2.0, 1.0, 1.0) mm (z, y, x), float32, hu" in said
    assert is_picture(tmp_path / "v.png")


def ome(path, **changes):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=np.ones((4, 4, 4), np.uint8), chunks=(2, 2, 2))
    axes = [{"name": n, "type": "space", "unit": "millimeter"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [2, 1, 1]}]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], **changes}
    group.attrs["multiscales"] = [image]
    return path


def test_foreign_zarr(info, tmp_path):
    ome(tmp_path / "a.zarr")
    said = info("a.zarr", "--picture", "a.png")
    assert "ome-zarr, volume (4, 4, 4) of (2.0, 1.0, 1.0) mm (z, y, x), uint8\n" in said
    assert "state --quantity" in said
    (tmp_path / "a.zarr").rename(tmp_path / "a folder")
    assert "ome-zarr, volume" in info("a folder")
    said = info("a folder/0")
    assert "an array of Zarr format 2, (4, 4, 4) uint8, axes not named" in said
    assert "all 8 chunks are there" in said
    assert "no picture" in info("a folder/0", "--picture", "b.png", code=2)
    zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=3).create_group("A").attrs["x"] = 1
    assert "a group of Zarr format 3, neither volrecon's nor an OME image\nit holds A" in info("plate.zarr")
    (tmp_path / "plate.zarr" / "zarr.json").write_text("{")
    assert "damaged" in info("plate.zarr", code=3)


def test_a_geometry_goes_with_projections_only(info, tmp_path):
    (tmp_path / "g.toml").write_text(GEOMETRY)
    ome(tmp_path / "a.zarr")
    assert "this format holds none" in info("a.zarr", "--geometry", "g.toml", code=2)


def test_a_geometry_whose_images_are_missing(info, tmp_path):
    GEOMETRIES["nikon"].write(tmp_path / "a.xtekct", small_scan("cone", 6))
    said = info("a.xtekct", "--picture", "a.png")
    assert "a.xtekct: geometry (nikon)\ncone beam, 6 views" in said
    assert "tif" in said  # what is missing
    assert is_picture(tmp_path / "a.png")
