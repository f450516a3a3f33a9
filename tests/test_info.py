"""`volrecon info`: whatever it is given, it says what it is or why not, and never ends in a traceback."""

import json
import logging
import os
import shutil
import sys
import warnings

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from balls import GRID, ball_projections, small_scan
from matplotlib.image import imread

from volrecon.cli import main
from volrecon.cli.app import printable
from volrecon.cli.info import KINDS
from volrecon.cli.info_unknown import MAGICS
from volrecon.formats import FORMATS, GEOMETRIES, write_vectors
from volrecon.resources import resource
from volrecon.store import write_volume
from volrecon.volume import RamSpace

GEOMETRY = (
    'beam = "parallel"\n[detector]\nrows = 20\ncolumns = 32\npixel_mm = 2\n'
    '[angles]\nunit = "deg"\nstep = 15\ncount = 24\n'
)
VALUES = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)


@pytest.fixture
def info(tmp_path, monkeypatch, capfd):
    """info("scan.zarr", code=0): run the command in tmp_path; what it printed, errors included."""
    monkeypatch.chdir(tmp_path)
    # nibabel's logger writes to the standard error of the first test that imported it.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["volrecon", "info", *map(str, arguments)])
        with warnings.catch_warnings(action="default"), pytest.raises(SystemExit) as caught:
            main()
        printed = "".join(capfd.readouterr())
        assert (caught.value.code or 0) == code, printed
        assert "Traceback" not in printed
        assert printed.strip()
        return printed

    return call


def is_picture(path):
    image = imread(path)
    return path.stat().st_size > 5_000 and 650 < image.shape[1] <= 1400 and np.ptp(image[..., :3]) > 0.5


def volume_store(path, values=VALUES):
    grid = type(GRID)(values.shape, GRID.voxel_zyx_mm)
    write_volume(path, RamSpace().of(Readable(values)), grid, RamSpace(), {"water_per_mm": 0.02})
    return path


class Readable:
    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def read(self, start, stop):
        import torch

        return torch.from_numpy(self.values[start:stop])


def test_a_scan(info, write_ball, tmp_path):
    write_ball(views=24)
    said = info("scan.zarr", "--picture", "s.png")
    assert "scan, line integrals (v, angle, u) (36, 24, 32)" in said
    assert "24 views" in said
    assert "stated grid (20, 16, 16)" in said
    assert "middle row: 0 to 0.4" in said
    assert is_picture(tmp_path / "s.png")


def test_a_scan_with_masked_pixels(info, write_ball, tmp_path):
    def spoil(y):
        y[18, 3, 4] = np.nan
        return y

    write_ball(edit=spoil, bad_pixels="mask")
    assert "1 not finite" in info("scan.zarr", "--picture", "s.png")
    assert is_picture(tmp_path / "s.png")


def test_a_volume_and_a_run(info, tmp_path):
    volume_store(tmp_path / "v.zarr")
    said = info("v.zarr", "--picture", "v.png")
    assert "volume, attenuation in 1/mm (z, y, x) (6, 7, 8) of (2.0, 2.0, 2.0) mm" in said
    assert "complete" in said
    assert is_picture(tmp_path / "v.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "v.zarr").rename(tmp_path / "run" / "volume.zarr")
    (tmp_path / "run" / "log.jsonl").touch()
    said = info("run", "--picture", "r.png")
    assert "run directory with log.jsonl, volume.zarr" in said
    assert info("run/volume.zarr") in said.replace("wrote r.png\n", "")
    assert (tmp_path / "r.png").read_bytes()[:4] == b"\x89PNG"


def test_a_job_and_a_run_without_a_volume(info, tmp_path):
    (tmp_path / "run").mkdir()
    job = tmp_path / "run" / "job.toml"
    job.write_text('scan = "../scan.zarr"\nout = "."\nmethod = "tv"\nreference = "../r.zarr"\n')
    (tmp_path / "r.zarr").mkdir()
    said = info("run/job.toml")
    assert "job, reconstructs ../scan.zarr into . in the ram tier" in said
    assert "method algorithm tv, " in said
    assert "scan ../scan.zarr is not there" in said
    assert "reference ../r.zarr is there" in said
    assert "no volume yet" in info("run")
    assert "no picture" in info("run/job.toml", "--picture", "j.png", code=2)
    job.write_text('scan = 3\nout = "."\nmethod = "tv"\n')
    assert "scan" in info("run/job.toml", code=2)
    job.write_text('scan = "s"\nout = "."\nmethod = "magic"\n')
    assert "magic" in info("run", code=2)


def test_methods_and_other_toml(info, tmp_path):
    assert "method, algorithm tv" in info(resource("configs/methods/tv.toml"))
    (tmp_path / "x.toml").write_text('colour = "red"\n')
    assert "keys colour" in info("x.toml", code=3)
    (tmp_path / "x.toml").write_text("")
    assert "keys none" in info("x.toml", code=3)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe = 3")
    assert "not TOML" in info("x.toml", code=2)
    (tmp_path / "x.toml").write_text('beam = "moon"\n')
    assert "moon" in info("x.toml", code=2)


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


def test_damaged_stores_of_ours(info, write_ball, tmp_path):
    write_ball()
    volume_store(tmp_path / "v.zarr")
    (tmp_path / "v.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(b"")
    assert "damaged" in info("v.zarr", code=4)
    table = json.loads((tmp_path / "v.zarr" / "zarr.json").read_text())
    table["attributes"]["volrecon"]["complete"] = False
    (tmp_path / "v.zarr" / "zarr.json").write_text(json.dumps(table))
    assert "not complete" in info("v.zarr", code=4)
    shutil.rmtree(tmp_path / "v.zarr" / "0" / "c")
    assert "INCOMPLETE" in info("v.zarr", "--partial", "--picture", "v.png")
    whole = (tmp_path / "scan.zarr" / "zarr.json").read_text()
    for text in (whole[:300], whole.replace('"geometry"', '"geo"'), whole.replace("36", "37")):
        (tmp_path / "scan.zarr" / "zarr.json").write_text(text)
        assert "scan.zarr" in info("scan.zarr", code=3)


LOOKS = [(magic, words) for at, magic, words in MAGICS if at == 0] + [(b"hello\nyou", "text"), (b"\0", "nothing known")]


@pytest.mark.parametrize(("magic", "words"), LOOKS)
def test_unknown_files_are_said_to_look_like_something(info, tmp_path, magic, words):
    (tmp_path / "a.weird").write_bytes(magic + b" and so on")
    said = info("a.weird", code=3)
    assert "no known suffix; it starts with b" in said
    assert f"looks like {words}" in said
    assert "Known are npy (.npy), npz (.npz)" in said


def test_nothing_at_all(info, tmp_path):
    assert "does not exist" in info("nowhere", code=3)
    assert "nowhere" in info("n" * 5000 + "nowhere", code=3)
    (tmp_path / "empty.dat").touch()
    assert "is empty" in info("empty.dat", code=3)
    (tmp_path / "folder").mkdir()
    assert "files: none" in info("folder", code=3)
    for name in ("a.dat", "b.dat", "c.log"):
        (tmp_path / "folder" / name).write_bytes(b"%PDF")
    assert "files: 2 .dat, 1 .log; a.dat starts with b'%PDF', which looks like a PDF" in info("folder", code=3)
    os.mkfifo(tmp_path / "pipe.tif")
    assert "neither a file nor a folder" in info("pipe.tif", code=3)
    (tmp_path / "link").symlink_to("link")
    assert "link" in info("link", code=3)


SUFFIXES = sorted({suffix for known in FORMATS.values() for suffix in known.suffixes} | {".xml", ".geom", ".csv"})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"garbage " * 99], ids=["empty", "HDF5", "garbage"])
def test_rubbish_under_every_suffix(info, tmp_path, suffix, content):
    (tmp_path / f"a{suffix}").write_bytes(content)
    # RTK's geometry is not opened before there are projections for it; an .xtekct without keys lacks them.
    code = 2 if suffix == ".xml" or (suffix.startswith(".xtek") and not content) else 3
    assert f"a{suffix}" in info(f"a{suffix}", code=code)


def test_names_cannot_talk_to_the_terminal(info, tmp_path):
    name = "a\x1b]0;owned\x07.npy"
    np.save(tmp_path / name, VALUES)
    said = info(name, "--quantity", "hu", "--file-voxel-mm", "1")
    assert "\x1b" not in said
    assert "a\\x1b]0;owned\\x07.npy: npy, volume" in said
    assert printable("grün 12 µm\udcff\n") == "grün 12 µm\\udcff\\n"
    broken = os.fsencode(tmp_path) + b"/\xff.npy"
    shutil.copy(tmp_path / name, broken)
    assert "\\udcff.npy" in info(os.fsdecode(broken))


def test_pictures_do_not_replace_what_is_no_picture(info, write_ball, tmp_path):
    write_ball()
    (tmp_path / "note.txt").write_text("keep me")
    assert "is no PNG" in info("scan.zarr", "--picture", "note.txt", code=2)
    assert "is no PNG" in info("scan.zarr", "--picture", "scan.zarr", code=2)
    assert (tmp_path / "note.txt").read_text() == "keep me"
    assert "cannot be written" in info("scan.zarr", "--picture", "no/where.png", code=5)
    (tmp_path / "folder").mkdir()
    assert "is no PNG" in info("nowhere", "--picture", "folder", code=2)  # before any work
    info("scan.zarr", "--picture", "s.png")
    before = (tmp_path / "s.png").read_bytes()
    info("scan.zarr", "--picture", "s.png")
    assert (tmp_path / "s.png").read_bytes() == before


def test_the_last_kind_takes_everything(tmp_path):
    assert KINDS[-1].recognise(tmp_path / "nowhere")
