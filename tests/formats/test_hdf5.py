import h5py
import numpy as np
import pytest

from volrecon.errors import ConfigError, DataError
from volrecon.formats import FORMATS, Hints, format_of, hdf5_stacks
from volrecon.formats.hdf5_stacks import KeptBlock

HDF5 = FORMATS["hdf5"]
FRAMES = np.random.default_rng(3).integers(1, 60_000, (9, 6, 8)).astype(np.uint16)
DEGREES = np.arange(9) * 20.0
HINTS = Hints(voxel_zyx_mm=(2.0, 1.0, 0.5), quantity="per_mm")


def save(path, contents, **options):
    """An HDF5 file of datasets; a value (array, units) has an attribute `units`."""
    with h5py.File(path, "w", **options) as file:
        for name, value in contents.items():
            array, units = value if isinstance(value, tuple) else (value, None)
            file[name] = array
            if units is not None:
                file[name].attrs["units"] = units
    return path


def data_exchange(path, **others):
    """The example of the specification: counts with flats, darks and angles; `others` replace or, when None, remove."""
    contents = {"data": FRAMES, "data_white": FRAMES[:3], "data_dark": FRAMES[:2] // 100, "theta": (DEGREES, "deg")}
    contents |= others
    return save(path, {f"exchange/{name}": value for name, value in contents.items() if value is not None})


def nxtomo(path, entry="entry1/tomo_entry", keys=(2, 1, 0, 0, 3, 0, 1, 0, 1), **others):
    contents = {
        "definition": "NXtomo",
        "instrument/detector/data": FRAMES,
        "instrument/detector/image_key": np.array(keys),
        "sample/rotation_angle": (DEGREES[: len(keys)], "degree"),
    }
    contents |= {name.replace("__", "/"): value for name, value in others.items()}
    return save(path, {f"{entry}/{name}": value for name, value in contents.items() if value is not None})


def check_values(data, stack):
    """The projections are `stack` (angle, v, u), whole and by slabs."""
    expected = stack.swapaxes(0, 1)
    assert data.projections.shape == expected.shape
    assert data.projections[0:1].dtype == stack.dtype.newbyteorder("=")
    for rows in (slice(None), slice(1, 3), slice(0, 1), slice(4, 99)):
        np.testing.assert_array_equal(data.projections[rows], expected[rows])


def test_data_exchange(tmp_path):
    path = data_exchange(tmp_path / "scan.h5")
    data = format_of(path).read_projections(path, Hints())
    check_values(data, FRAMES)
    np.testing.assert_allclose(data.angles, np.deg2rad(DEGREES))
    np.testing.assert_array_equal(data.counts.flats, FRAMES[:3])
    np.testing.assert_array_equal(data.counts.darks, FRAMES[:2] // 100)
    assert data.counts.flats.dtype == np.float32
    assert data.stated is None
    assert data.notes == (
        "Data Exchange: '/exchange/data' (9, 6, 8) uint16, axes taken as (angle,v,u)",
        "9 angles from '/exchange/theta' in deg; sense of rotation as stored, set it in geometry.toml "
        "([angles] direction)",
        "values taken as detector counts, with 3 flats and 2 darks",
    )


def test_data_exchange_for_sinograms(tmp_path):
    path = data_exchange(tmp_path / "scan.h5", data=FRAMES.swapaxes(0, 1))
    with pytest.raises(DataError, match=r"data_white' \(3, 6, 8\).*images of \(6, 8\), the projections \(9, 8\)"):
        HDF5.read_projections(path, Hints())
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = "y:theta:x"
        file["exchange/data_white"].attrs["axes"] = np.bytes_("theta_white:y:x")
    data = HDF5.read_projections(path, Hints())
    check_values(data, FRAMES)
    np.testing.assert_array_equal(data.counts.flats, FRAMES[:3])


def test_data_exchange_of_unknown_axes(tmp_path):
    path = data_exchange(tmp_path / "scan.h5")
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = "theta:x:y"
    with pytest.raises(DataError, match=r"has the axes 'theta:x:y'; known are theta:y:x, y:theta:x"):
        HDF5.read_projections(path, Hints())
    check_values(HDF5.read_projections(path, Hints(axes="angle,v,u")), FRAMES)


@pytest.mark.parametrize(("unit", "scale"), [(None, np.pi / 180), ("Degrees", np.pi / 180), ("rad", 1.0)])
def test_units_of_angles(tmp_path, unit, scale):
    data = HDF5.read_projections(data_exchange(tmp_path / "a.h5", theta=(DEGREES, unit)), Hints())
    np.testing.assert_allclose(data.angles, DEGREES * scale)


def test_angles_that_cannot_be_used(tmp_path):
    data = HDF5.read_projections(data_exchange(tmp_path / "a.h5", theta=(DEGREES, "gon")), Hints())
    assert data.angles is None
    assert "unknown unit 'gon'" in data.notes[1]
    data = HDF5.read_projections(data_exchange(tmp_path / "b.h5", theta=None), Hints())
    assert data.angles is None
    assert "no theta in the file" in data.notes[1]
    with pytest.raises(DataError, match=r"c\.h5: 9 projections but 8 angles"):
        HDF5.read_projections(data_exchange(tmp_path / "c.h5", theta=DEGREES[1:]), Hints())
    with pytest.raises(DataError, match=r"d\.h5: 1 of the 9 angles of its projections are not finite"):
        HDF5.read_projections(data_exchange(tmp_path / "d.h5", theta=np.append(DEGREES[1:], np.nan)), Hints())


@pytest.mark.parametrize(
    ("data", "flats", "units", "counted"),
    [
        (FRAMES, None, None, True),
        (FRAMES.astype("f4"), FRAMES[:1], None, True),
        (FRAMES.astype("f4"), None, "counts", True),
        (FRAMES.astype("f4"), None, None, False),
        (FRAMES.astype(">f8"), np.zeros((0, 6, 8)), "1", False),
    ],
)
def test_what_is_taken_as_counts(tmp_path, data, flats, units, counted):
    path = data_exchange(tmp_path / "a.h5", data=(data, units), data_white=flats, data_dark=None)
    read = HDF5.read_projections(path, Hints())
    check_values(read, data)
    assert (read.counts is not None) == counted
    assert ("detector counts" if counted else "line integrals") in read.notes[2]


def test_a_series_of_scans(tmp_path):
    path = save(
        tmp_path / "a.h5", {"exchange_1/data": FRAMES, "exchange_2/data": FRAMES + 1, "exchange_2/theta": DEGREES}
    )
    with pytest.raises(ConfigError, match=r"2 scans: '/exchange_1', '/exchange_2'; say which with the hint key"):
        HDF5.read_projections(path, Hints())
    for key in ("exchange_2", "/exchange_2/data"):
        data = HDF5.read_projections(path, Hints(key=key))
        check_values(data, FRAMES + 1)
        assert data.angles.size == 9


@pytest.mark.parametrize("entry", ["entry1/tomo_entry", "entry", "entry0000"])
@pytest.mark.parametrize("options", [{}, {"chunks": (4, 2, 8), "compression": "gzip"}], ids=["plain", "gzip"])
def test_nxtomo(tmp_path, entry, options):
    path = nxtomo(tmp_path / "scan.nxs", entry)
    with h5py.File(path, "a") as file:
        detector = file[entry]["instrument/detector"]
        del detector["data"]
        detector.create_dataset("data", data=FRAMES, **options)
        file[entry]["data/data"] = h5py.SoftLink(f"/{entry}/instrument/detector/data")
    data = format_of(path).read_projections(path, Hints())
    check_values(data, FRAMES[[2, 3, 5, 7]])
    np.testing.assert_allclose(data.angles, np.deg2rad(DEGREES[[2, 3, 5, 7]]))
    np.testing.assert_array_equal(data.counts.flats, FRAMES[[1, 6, 8]])
    np.testing.assert_array_equal(data.counts.darks, FRAMES[[0]])
    assert "4 projections, 1 frames left out" in data.notes[0]
    check_values(HDF5.read_projections(path, Hints(key=f"{entry}/data/data")), FRAMES[[2, 3, 5, 7]])


def test_nxtomo_angles_of_the_projections_alone(tmp_path):
    path = nxtomo(tmp_path / "a.nxs", sample__rotation_angle=(np.arange(4.0), "rad"))
    np.testing.assert_array_equal(HDF5.read_projections(path, Hints()).angles, np.arange(4.0))
    path = nxtomo(tmp_path / "b.nxs", sample__rotation_angle=None)
    assert HDF5.read_projections(path, Hints()).angles is None
    path = nxtomo(tmp_path / "c.nxs", sample__rotation_angle=np.arange(5.0))
    with pytest.raises(DataError, match="4 projections but 5 angles"):
        HDF5.read_projections(path, Hints())


def test_nxtomo_alignment_projections_are_left_out(tmp_path):
    control = np.array([2, 1, 0, 0, 3, 0, 1, -1, 1])
    path = nxtomo(tmp_path / "a.nxs", instrument__detector__image_key_control=control)
    data = HDF5.read_projections(path, Hints())
    check_values(data, FRAMES[[2, 3, 5]])
    assert "3 projections, 2 frames left out" in data.notes[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((0,) * 8, "9 frames, but 8 image keys"),
        ((0,) * 8 + (4,), r"image_key holds \[0.0, 4.0\]; known are 0, 1, 2 and 3"),
        ((1,) * 9, "none of the 9 frames.*is a projection"),
    ],
)
def test_nxtomo_keys_that_do_not_fit(tmp_path, keys, message):
    with pytest.raises(DataError, match=rf"a\.nxs: .*{message}"):
        HDF5.read_projections(nxtomo(tmp_path / "a.nxs", keys=keys), Hints())


def test_nxtomo_that_is_not_whole(tmp_path):
    with pytest.raises(DataError, match="holds no instrument/detector/image_key"):
        HDF5.read_projections(nxtomo(tmp_path / "a.nxs", instrument__detector__image_key=None), Hints())
    with pytest.raises(DataError, match="says it is NXtomo, but holds no instrument/detector/data"):
        HDF5.read_projections(nxtomo(tmp_path / "b.nxs", instrument__detector__data=None), Hints())


@pytest.mark.parametrize(
    ("x", "y", "size_vu_mm"),
    [
        ((6.5, "um"), (7.5, "µm"), (0.0075, 0.0065)),
        ((6.5e-6, "m"), (np.array([7.5e-3]), "millimeter"), (0.0075, 0.0065)),
        ((6.5, "pixel"), (7.5, "um"), None),
        ((6.5, None), (7.5, None), None),
        ((0.0, "um"), (7.5, "um"), None),
        ((np.nan, "um"), (np.nan, "um"), None),
        ((np.inf, "um"), (7.5, "um"), None),
        ((6.5, "um"), None, None),
    ],
)
def test_nxtomo_pixels(tmp_path, x, y, size_vu_mm):
    sizes = {"instrument__detector__x_pixel_size": x, "instrument__detector__y_pixel_size": y}
    data = HDF5.read_projections(nxtomo(tmp_path / "a.nxs", **sizes), Hints())
    if size_vu_mm is None:
        assert data.pixels is None
        assert "no pixel size taken from the file" in data.notes[3]
    else:
        assert data.pixels.size_vu_mm == pytest.approx(size_vu_mm)


@pytest.mark.parametrize(("axes", "order"), [("angle,v,u", (0, 1, 2)), ("v,angle,u", (1, 0, 2))])
@pytest.mark.parametrize("options", [{}, {"chunks": (2, 5, 3)}, {"compression": "lzf", "chunks": (1, 6, 8)}], ids=str)
def test_any_dataset_by_hints(tmp_path, axes, order, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("group/raw", data=FRAMES.transpose(order).astype(">u2"), **options)
        file["other"] = FRAMES[:2]
    data = HDF5.read_projections(tmp_path / "a.h5", Hints(key="group/raw", axes=axes))
    check_values(data, FRAMES)
    assert data.angles is None
    assert data.counts is None
    with pytest.raises(ConfigError, match=r"a\.h5: .*'/other' \(2, 6, 8\) uint16, '/group/raw' .*hints key and axes"):
        HDF5.read_projections(tmp_path / "a.h5", Hints(axes=axes))
    with pytest.raises(ConfigError, match=r"holds nothing named 'grup'.*'/other'"):
        HDF5.read_projections(tmp_path / "a.h5", Hints(key="grup", axes=axes))
    with pytest.raises(ConfigError, match="give the hint axes"):
        HDF5.read_projections(tmp_path / "a.h5", Hints(key="other"))
    with pytest.raises(ConfigError, match="'/group' is not a dataset"):
        HDF5.read_projections(tmp_path / "a.h5", Hints(key="group"))


def test_one_sinogram(tmp_path):
    path = save(tmp_path / "a.hdf5", {"sino": FRAMES[:, 2], "stack": FRAMES})
    data = HDF5.read_projections(path, Hints(axes="angle,u"))
    np.testing.assert_array_equal(data.projections[:], FRAMES[np.newaxis, :, 2])
    with pytest.raises(DataError, match=r"shape \(9, 8\); axes 'angle,v,u' need 3 dimensions"):
        HDF5.read_projections(path, Hints(key="sino", axes="angle,v,u"))


@pytest.mark.parametrize("options", [{}, {"chunks": (4, 3, 2), "compression": "gzip"}], ids=["plain", "gzip"])
def test_volume(tmp_path, options):
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        file.create_dataset("reconstruction/data", data=FRAMES, **options)
    volume = HDF5.read_volume(tmp_path / "a.hdf", HINTS)
    for slab in (slice(None), slice(3, 5), slice(0, 2), slice(1, 8)):
        np.testing.assert_array_equal(volume.slices[slab], FRAMES[slab])
    assert volume.geometry.voxel_zyx_mm == (2.0, 1.0, 0.5)
    assert "axes taken as (z, y, x)" in volume.notes[0]
    with pytest.raises(ConfigError, match="voxel_zyx_mm"):
        HDF5.read_volume(tmp_path / "a.hdf", Hints(quantity="hu"))
    with pytest.raises(ConfigError, match="quantity"):
        HDF5.read_volume(tmp_path / "a.hdf", Hints(voxel_zyx_mm=(1.0, 1.0, 1.0)))


def test_volume_of_four_axes(tmp_path):
    path = save(tmp_path / "a.h5", {"movie": FRAMES[np.newaxis]})
    with pytest.raises(ConfigError, match="its datasets of 3 axes are none"):
        HDF5.read_volume(path, HINTS)
    with pytest.raises(DataError, match=r"'/movie' \(1, 9, 6, 8\) uint16 is not a volume of three axes"):
        HDF5.read_volume(path, Hints(key="movie", voxel_zyx_mm=(1.0, 1.0, 1.0), quantity="hu"))


def test_a_kept_block_is_read_once_and_is_not_the_caller_s():
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return np.arange(start, stop)

    kept = KeptBlock(read, 10, height=4, step=4)
    for start in (5, 4, 7, 8, 9):
        for _ in range(2):
            block = kept(start, start + 1)
            assert block.tolist() == [start]
            block[:] = -1
    assert reads == [(4, 8), (8, 10)]
    assert kept(1, 9).tolist() == list(range(1, 9))
    assert kept(3, 6).tolist() == [3, 4, 5]


def test_high_chunks_are_read_in_affordable_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_stacks, "BLOCK_BYTES", 4 * 9 * 8 * 2)
    with h5py.File(data_exchange(tmp_path / "a.h5", data=None), "a") as file:
        file.create_dataset("exchange/data", data=FRAMES, chunks=(1, 6, 8), compression="gzip")
    data = HDF5.read_projections(tmp_path / "a.h5", Hints())
    check_values(data, FRAMES)
    np.testing.assert_array_equal(np.stack(list(data.projections)), FRAMES.swapaxes(0, 1))
    assert "compressed in chunks of (1, 6, 8): every 4 rows the whole array is unpacked, 2 times" in data.notes[3]
