"""A scan of ours in the formats of others and back: the same rays, the same numbers, the same volume."""

import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from balls import CENTRE, FAR, GRID, MU, RADIUS, ball_projections

import volrecon as vr
from volrecon.errors import ConfigError, GeometryError
from volrecon.exchange import export_scan, import_scan
from volrecon.formats import GEOMETRIES, Hints
from volrecon.geometry import ScanGeometry, cone, fan
from volrecon.noise import Noise
from volrecon.store import ScanHeader, open_scan, write_scan

write_geometry = GEOMETRIES["geometry.toml"].write

# Nothing in it is symmetric, so that whatever is turned or mirrored on the way is seen.
SCAN = cone(
    **FAR,
    detector_shape=(36, 44),
    pixel_mm=(3.0, 2.5),
    angles=0.2 + np.linspace(0, 2 * np.pi, 40, endpoint=False),
    detector_offset_mm=(1.5, -4.0),
    axis_shift_mm=1.25,
)


def store(folder, scan: ScanGeometry = SCAN, edit=None, name="scan.zarr"):
    y = ball_projections(scan)
    if edit:
        edit(y)
    write_scan(folder / name, ScanHeader(scan, GRID, Noise(), MU), [y], bad_pixels="mask")
    return open_scan(folder / name)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return store(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def volume(scan):
    return vr.reconstruct(scan, "fdk", GRID)


@pytest.mark.parametrize("name", ["a.xml", "a.toml", "a.npy", "a.txt", "a.xtekct"])
def test_the_same_geometry_and_the_same_volume(tmp_path, scan, volume, name):
    out = tmp_path / name
    source = export_scan(scan, out)
    notes = import_scan(source, out if source != out else None, tmp_path / "again.zarr", Hints(), MU)
    assert notes
    again = open_scan(tmp_path / "again.zarr")
    # The counts of an .xtekct are float32: their logarithm is right to 1e-6.
    np.testing.assert_allclose(again.projections[:], scan.projections[:], atol=1e-6 if source == out else 0)
    np.testing.assert_allclose(again.geometry.vectors, SCAN.vectors, rtol=0, atol=1e-9 * np.abs(SCAN.vectors).max())
    found = vr.reconstruct(again, "fdk", GRID)
    np.testing.assert_allclose(found, volume, atol=1e-4 * MU)


def test_the_volume_is_the_ball(volume):
    x, y, z = np.meshgrid(
        *(
            o + d * np.arange(n)
            for o, d, n in zip(GRID.origin_xyz_mm, GRID.voxel_xyz_mm, GRID.shape[::-1], strict=True)
        ),
        indexing="ij",
    )
    distance = np.sqrt((x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (z - CENTRE[2]) ** 2).T
    assert volume[distance < RADIUS - 4].mean() == pytest.approx(MU, rel=0.05)
    assert np.abs(volume[distance > RADIUS + 4]).mean() < 0.05 * MU


def test_values_arrive_as_they_were(tmp_path, scan):
    y = scan.projections[:]
    for name, read in (
        ("p.tif", lambda path: tifffile.imread(path).swapaxes(0, 1)),
        ("p.npy", np.load),
        ("p.mha", lambda path: sitk.GetArrayFromImage(sitk.ReadImage(path)).swapaxes(0, 1)),
    ):
        assert export_scan(scan, tmp_path / "a.toml", tmp_path / name) == tmp_path / name
        np.testing.assert_array_equal(read(tmp_path / name), y)
    import_scan(tmp_path / "p.npy", tmp_path / "a.toml", tmp_path / "again.zarr", Hints(axes="v,angle,u"))
    np.testing.assert_array_equal(open_scan(tmp_path / "again.zarr").projections[:], y)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.toml", "again.zarr", "p.mha", "p.npy", "p.tif"]


def test_masked_pixels_stay_masked(tmp_path):
    def mask(y):
        y[20, 3, 7] = np.nan

    source = export_scan(store(tmp_path, edit=mask), tmp_path / "a.xml")
    notes = import_scan(source, tmp_path / "a.xml", tmp_path / "again.zarr", Hints(), bad_pixels="mask")
    assert "1 pixels masked" in notes[-1]
    assert np.isnan(open_scan(tmp_path / "again.zarr").projections[:][20, 3, 7])


def test_what_is_not_written(tmp_path, scan):
    for out, projections, message in (
        ("a.xml", "a.nii", r"a\.nii: scans are not written"),
        ("a.npy", "a.npy", "need two names"),
        ("a.doc", None, "no geometry format"),
        ("a.xml", "a.doc", "belongs to no known format"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_scan(scan, tmp_path / out, projections and tmp_path / projections)
    stack = store(tmp_path, fan(**FAR, columns=44, pixel_mm=3.0, rows=2, row_pitch_mm=2.0, angles=[0.0, 1.0]))
    with pytest.raises(GeometryError, match="no stack of fans"):
        export_scan(stack, tmp_path / "a.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.zarr"]


def test_only_files_that_were_named_are_replaced(tmp_path, scan):
    (tmp_path / "a.tif").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.tif is there.*--projections"):
        export_scan(scan, tmp_path / "a.toml")
    assert (tmp_path / "a.tif").read_text() == "mine"
    assert not (tmp_path / "a.toml").exists()
    export_scan(scan, tmp_path / "a.toml", tmp_path / "a.tif")
    with pytest.raises(ConfigError, match="lies inside"):
        export_scan(scan, scan.projections.folder.parent / "a.toml")


def test_images_of_another_scan_do_not_stay_beside_an_xtekct(tmp_path, scan):
    export_scan(scan, tmp_path / "a.xtekct")
    few = store(tmp_path, SCAN.select(np.arange(0, 40, 4)), name="few.zarr")
    with pytest.raises(ConfigError, match=r"a_0011\.tif of another scan"):
        export_scan(few, tmp_path / "a.xtekct")


def test_a_scanner_s_own_files_are_not_replaced(tmp_path, scan):
    (tmp_path / "raw.xtekct").write_text("[XTekCT]\nName=raw\n")
    (tmp_path / "raw_0001.tif").write_text("measured")
    (tmp_path / "other_0001.tif").write_text("measured")
    with pytest.raises(ConfigError, match="not volrecon's"):
        export_scan(scan, tmp_path / "raw.xtekct")
    with pytest.raises(ConfigError, match=r"other_0001\.tif is there"):
        export_scan(scan, tmp_path / "other.xtekct")
    assert (tmp_path / "raw_0001.tif").read_text() == (tmp_path / "other_0001.tif").read_text() == "measured"


@pytest.mark.parametrize(
    ("factor", "offset", "warns"), [(1, 0, False), (-1, 0, False), (1, 0.7, False), (1.1, 0, True)]
)
def test_angles_of_the_file_that_the_geometry_contradicts_are_said(tmp_path, factor, offset, warns):
    y = ball_projections(SCAN)
    np.savez(tmp_path / "y.npz", projections=y, angles_rad=offset + factor * SCAN.angles)
    write_geometry(tmp_path / "g.toml", SCAN)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_scan(tmp_path / "y.npz", tmp_path / "g.toml", tmp_path / "s.zarr", Hints(), MU)
    assert any("angles of its own" in str(w.message) for w in caught) == warns


def test_command_line(tmp_path, scan, cli):
    folder = scan.projections.folder.parent
    said = cli("export", folder, "a.xml")
    assert "wrote a.xml, geometry, with rtk" in said
    assert "wrote a.mha, projections, with mha" in said
    cli("export", folder, "a.txt", "--projections", "b.npy")
    assert (tmp_path / "b.npy").is_file()
    assert "is no scan" in cli("export", tmp_path, "a.nii", "--projections", "b.npy", code=2)
