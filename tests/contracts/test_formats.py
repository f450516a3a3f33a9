"""What every outside format must do, run over whatever is registered."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from volrecon.errors import ConfigError, DataError, ResourceError, VolreconError
from volrecon.formats import FORMATS, Format, Hints, VolumeData, format_of
from volrecon.formats.agreement import float32_slices
from volrecon.formats.base import SlicedArray
from volrecon.formats.files import reading, replacing
from volrecon.geometry import VolumeGeometry

GRID = VolumeGeometry((5, 4, 3), (1.5, 0.5, 0.25), (1.0, -2.0, 3.0))
VALUES = np.arange(60, dtype=np.float32).reshape(GRID.shape) - 20
HINTS = Hints(voxel_zyx_mm=GRID.voxel_zyx_mm, quantity="hu")

CASES = [(name, suffix) for name, known in FORMATS.items() for suffix in known.suffixes if known.write_volume]


@pytest.fixture(params=CASES, ids=lambda case: "".join(case))
def case(request, tmp_path) -> tuple[Format, Path]:
    """A format and a volume written by it."""
    name, suffix = request.param
    path = tmp_path / f"volume{suffix}"
    FORMATS[name].write_volume(path, VALUES, GRID, "hu")
    return FORMATS[name], path


def files_of(path: Path) -> list[Path]:
    """A volume is a file, or a folder of files."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def check_round_trip(known: Format, path: Path) -> None:
    volume = known.read_volume(path, HINTS)
    np.testing.assert_array_equal(volume.slices[:], VALUES)
    assert volume.geometry.shape == GRID.shape
    np.testing.assert_allclose(volume.geometry.voxel_zyx_mm, GRID.voxel_zyx_mm, rtol=1e-6)
    assert volume.quantity == "hu"
    assert volume.notes
    assert all("\n" not in note for note in volume.notes)


def check_refuses(known: Format, path: Path, hints: Hints = HINTS) -> str:
    """The message with which a file is refused, on opening or on reading."""
    with pytest.raises(VolreconError) as caught:
        known.read_volume(path, hints).slices[:]
    assert str(path) in str(caught.value)
    return str(caught.value)


def check_survives(known: Format, path: Path, data: bytes) -> np.ndarray | None:
    """The values of a damaged file, None where it is refused; any other exception fails the test."""
    files_of(path)[-1].write_bytes(data)
    try:
        return known.read_volume(path, HINTS).slices[:]
    except VolreconError as error:
        message = str(error)
    assert str(path) in message
    return None


def test_registry():
    assert all(name == known.name for name, known in FORMATS.items())
    suffixes = [suffix for known in FORMATS.values() for suffix in known.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(known.read_volume or known.read_projections for known in FORMATS.values())
    for known in FORMATS.values():
        assert all(format_of(Path(f"a.b{suffix.upper()}")) is known for suffix in known.suffixes)


def test_unknown_suffix_lists_the_known():
    with pytest.raises(ConfigError, match=r"scan\.xyz.*npy \(\.npy\).*nifti \(\.nii \.nii\.gz\).*folder"):
        format_of(Path("scan.xyz"))


def test_folder_is_known_by_its_files(tmp_path):
    with pytest.raises(ConfigError, match="folder's files"):
        format_of(tmp_path)
    (tmp_path / "a.TIF").touch()
    assert format_of(tmp_path) is FORMATS["tiff"]


def test_round_trip(case):
    check_round_trip(*case)
    assert format_of(case[1]) is case[0]


def test_slabs_in_any_order(case):
    known, path = case
    slices = known.read_volume(path, HINTS).slices
    for slab in (slice(3, 5), slice(0, 2), slice(1, 4), slice(4, 99), slice(2, 2)):
        np.testing.assert_array_equal(slices[slab], VALUES[slab])
    assert slices[0:1].dtype.isnative
    np.testing.assert_array_equal(np.stack(list(slices)), VALUES)


def test_integers_and_generators_are_written_as_float32(case):
    known, path = case
    known.write_volume(path, (values.astype(">i2") for values in VALUES), GRID, "hu")
    check_round_trip(known, path)


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.3, 0.6, -9, -1])
def test_truncated_file(case, keep):
    known, path = case
    data = files_of(path)[-1].read_bytes()
    read = check_survives(known, path, data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert read is None or np.array_equal(read, VALUES)


def test_almost_nothing_left_is_refused(case):
    known, path = case
    file = files_of(path)[-1]
    file.write_bytes(file.read_bytes()[:40])
    check_refuses(known, path)


def test_wrong_magic(case):
    known, path = case
    files_of(path)[-1].write_bytes(b"this is not a volume" * 100)
    check_refuses(known, path)


def test_missing_file(case):
    known, path = case
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    check_refuses(known, path)


def test_flipped_bytes(case):
    known, path = case
    whole = files_of(path)[-1].read_bytes()
    rng = np.random.default_rng(7)
    # Headers are where parsers break: half of the damage goes to the first 400 bytes.
    for trial in range(60):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(0, 400 if trial % 2 else len(data))) % len(data)] = int(rng.integers(0, 256))
        check_survives(known, path, bytes(data))


def test_without_hints_it_names_the_hint_or_needs_none(case):
    known, path = case
    try:
        volume = known.read_volume(path, Hints())
    except ConfigError as error:
        message = str(error)
    else:
        np.testing.assert_allclose(volume.geometry.centre_xyz_mm, GRID.centre_xyz_mm, rtol=1e-6)
        assert volume.quantity == "hu"
        return
    assert str(path) in message
    assert "hint voxel_zyx_mm" in message or "hint quantity" in message


@pytest.mark.parametrize(
    "bad", [VALUES[:4], np.repeat(VALUES, 2, axis=0), VALUES[:, :, :2]], ids=["few", "many", "narrow"]
)
def test_a_wrong_number_of_slices_leaves_the_old_file(case, bad):
    known, path = case
    before = [file.read_bytes() for file in files_of(path)]
    with pytest.raises(DataError, match="slice"):
        known.write_volume(path, bad, GRID, "hu")
    assert [file.read_bytes() for file in files_of(path)] == before
    assert list(path.parent.iterdir()) == [path]


def test_unwritable_place(case, tmp_path):
    known, path = case
    target = tmp_path / "missing" / path.name
    with pytest.raises(ResourceError, match="cannot be written") as caught:
        known.write_volume(target, VALUES, GRID, "hu")
    assert str(target) in str(caught.value)


def test_a_new_format_is_one_module_and_one_line(tmp_path, monkeypatch):
    def read_volume(path, hints):
        with reading(path):
            array = np.frombuffer(path.read_bytes(), "<f4").reshape(GRID.shape)
            return VolumeData(SlicedArray.of(path, array), GRID, "hu", ("raw",))

    def write_volume(path, slices, geometry, quantity):
        with replacing(path) as partial:
            partial.write_bytes(b"".join(values.tobytes() for values in float32_slices(slices, geometry)))

    monkeypatch.setitem(FORMATS, "raw", Format("raw", (".raw",), read_volume, write_volume))

    path = tmp_path / "volume.raw"
    known = format_of(path)
    known.write_volume(path, VALUES, GRID, "hu")
    check_round_trip(known, path)
    path.write_bytes(path.read_bytes()[:-3])
    assert "ValueError" in check_refuses(known, path)
