"""`volrecon info`: whatever it is given, it says what it is or why not, and never ends in a traceback."""

import json
import os
import shutil

import numpy as np
import pytest
from info_files import VALUES, is_picture, volume_store

from volrecon.cli.app import printable
from volrecon.cli.info import KINDS
from volrecon.cli.info_unknown import MAGICS
from volrecon.formats import FORMATS
from volrecon.resources import resource


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
    assert "job, reconstructs ../scan.zarr into . in the auto tier" in said
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
