"""MetaImage: files that SimpleITK wrote in every orientation, ours read by it, and those that cannot be meant."""

import itertools
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from volrecon.errors import ConfigError, DataError, VolreconError
from volrecon.formats import FORMATS, Hints, PixelGrid
from volrecon.geometry import VolumeGeometry

MHA, NIFTI = FORMATS["mha"], FORMATS["nifti"]
HU = Hints(quantity="hu")

# Asymmetric in every axis, (z, y, x); our world is (right, front, up), ITK's (left, back, up).
VALUES = np.random.default_rng(3).integers(-1000, 2000, (6, 5, 4)).astype(np.int16)
GRID = VolumeGeometry((6, 5, 4), (2.0, 0.75, 0.5), (1.0, -2.0, 30.0))

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*axes)
]


def itk_image(values=VALUES, grid=GRID) -> sitk.Image:
    """A volume of ours as an ITK image: x and y of its world run against ours."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(grid.voxel_xyz_mm)
    image.SetOrigin(grid.origin_xyz_mm * [-1, -1, 1])
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    return image


def save(path, image=None, compressed=False):
    sitk.WriteImage(itk_image() if image is None else image, path, compressed)
    return path


def text_file(path, data=b"\1\0\2\0" * 4, file="LOCAL", **changed):
    """A header by hand; `changed` values replace or add keys, None drops one."""
    keys = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 2 3",
        "DimSize": "2 2 2",
        "ElementType": "MET_SHORT",
        **changed,
        "ElementDataFile": file,
    }
    path.write_bytes("".join(f"{k} = {v}\n" for k, v in keys.items() if v is not None).encode("latin1") + data)
    return path


def refused(path, kind=DataError, read=MHA.read_volume, hints=HU) -> str:
    with pytest.raises(kind) as caught:
        read(path, hints).slices[:]
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_is_the_same_volume(tmp_path, codes):
    # SimpleITK's letters say where an axis points, DICOM's way; ours is stored as R, A, S.
    path = save(tmp_path / "a.mha", sitk.DICOMOrient(itk_image(), codes))
    volume = MHA.read_volume(path, HU)
    np.testing.assert_array_equal(volume.slices[:], VALUES)
    np.testing.assert_array_equal(volume.slices[1:4], VALUES[1:4])
    assert volume.geometry.shape == GRID.shape
    np.testing.assert_allclose(volume.geometry.voxel_zyx_mm, GRID.voxel_zyx_mm)
    np.testing.assert_allclose(volume.geometry.centre_xyz_mm, GRID.centre_xyz_mm, atol=1e-12)
    assert f"stored as {codes}," in volume.notes[0]


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_simpleitk_reads_what_we_write(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    MHA.write_volume(path, VALUES, GRID, "per_mm")
    image = sitk.ReadImage(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), VALUES)
    assert image.GetPixelID() == sitk.sitkFloat32
    assert image.GetSpacing() == itk_image().GetSpacing()
    assert image.GetOrigin() == itk_image().GetOrigin()
    assert image.GetDirection() == itk_image().GetDirection()
    again = MHA.read_volume(path, Hints())
    assert again.quantity == "per_mm"
    assert again.geometry == GRID


def test_nifti_and_mha_are_at_the_same_place_for_itk(tmp_path):
    for known, name in ((MHA, "a.mha"), (NIFTI, "a.nii")):
        known.write_volume(tmp_path / name, VALUES, GRID, "hu")
    images = [sitk.ReadImage(tmp_path / name) for name in ("a.mha", "a.nii")]
    for index in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (1, 2, 5)):
        places = [image.TransformIndexToPhysicalPoint(index) for image in images]
        np.testing.assert_allclose(places[0], places[1], atol=1e-5)
        assert images[0][index] == images[1][index]


def test_an_itk_image_is_the_same_volume_through_nifti(tmp_path):
    volumes = [
        FORMATS[name].read_volume(save(tmp_path / f"a{suffix}"), HU)
        for name, suffix in (("mha", ".mha"), ("nifti", ".nii"))
    ]
    np.testing.assert_array_equal(volumes[0].slices[:], volumes[1].slices[:])
    np.testing.assert_allclose(volumes[0].geometry.centre_xyz_mm, volumes[1].geometry.centre_xyz_mm, atol=1e-5)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize(("name", "compressed"), [("a.mha", False), ("a.mha", True), ("a.mhd", False), ("a.mhd", True)])
def test_types_and_compression(tmp_path, dtype, name, compressed):
    values = (VALUES % 100).astype(dtype)
    volume = MHA.read_volume(save(tmp_path / name, itk_image(values), compressed), HU)
    assert volume.slices.dtype == dtype
    np.testing.assert_array_equal(volume.slices[2:5], values[2:5])


def test_big_endian(tmp_path):
    values = np.arange(8, dtype=">i2")
    volume = MHA.read_volume(text_file(tmp_path / "a.mha", values.tobytes(), BinaryDataByteOrderMSB="True"), HU)
    slices = volume.slices[:]
    assert slices.dtype == np.int16
    # Identity in ITK's world: x and y run against ours.
    np.testing.assert_array_equal(slices, values.reshape(2, 2, 2)[:, ::-1, ::-1])


def test_header_size_and_synonyms(tmp_path):
    plain = MHA.read_volume(text_file(tmp_path / "a.mha"), HU)
    data = b"\1\0\2\0" * 4
    (tmp_path / "b.raw").write_bytes(b"12345" + data)
    for size in ("5", "-1"):
        path = text_file(tmp_path / "b.mhd", b"", file="b.raw", HeaderSize=size, Offset=None, Position="0 0 0")
        volume = MHA.read_volume(path, HU)
        np.testing.assert_array_equal(volume.slices[:], plain.slices[:])
        assert volume.geometry == plain.geometry
        assert "in b.raw" in volume.notes[0]


def test_units_and_what_is_not_stated(tmp_path):
    micron = MHA.read_volume(text_file(tmp_path / "a.mha", DistanceUnits="um", Offset="10 20 30"), HU)
    np.testing.assert_allclose(micron.geometry.voxel_zyx_mm, (0.003, 0.002, 0.001))
    np.testing.assert_allclose(micron.geometry.centre_xyz_mm, (-0.0105, -0.021, 0.0315))
    assert "unit of length um" in micron.notes[0]
    nowhere = MHA.read_volume(text_file(tmp_path / "a.mha", Offset=None), HU)
    assert "states no position" in nowhere.notes[1]
    no_size = text_file(tmp_path / "a.mha", ElementSpacing=None)
    assert "hint voxel_zyx_mm" in refused(no_size, ConfigError)
    hinted = MHA.read_volume(no_size, Hints(quantity="hu", voxel_zyx_mm=(3.0, 2.0, 1.0)))
    assert hinted.geometry.voxel_zyx_mm == (3.0, 2.0, 1.0)
    assert "hint quantity" in refused(save(tmp_path / "b.mha"), ConfigError, hints=Hints())


@pytest.mark.parametrize(("degrees", "accepted"), [(0.05, True), (1.5, False), (30, False)])
def test_oblique_is_refused_with_its_angle(tmp_path, degrees, accepted):
    image = itk_image()
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    image.SetDirection([-1, 0, 0, 0, -c, s, 0, s, c])
    path = save(tmp_path / "a.mha", image)
    if accepted:
        np.testing.assert_array_equal(MHA.read_volume(path, HU).slices[:], VALUES)
        return
    assert f"turned by {degrees:.2f} degrees" in refused(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"NDims": "2"}, "NDims '2'"),
        ({"ObjectType": "Tube"}, "ObjectType 'Tube'"),
        ({"BinaryData": "False"}, "BinaryData 'False'"),
        ({"ElementNumberOfChannels": "3"}, "ElementNumberOfChannels '3'"),
        ({"ElementToIntensityFunctionSlope": "2.5"}, "Slope '2.5'"),
        ({"ElementType": "MET_LONG"}, "ElementType 'MET_LONG'"),
        ({"DistanceUnits": "furlong"}, "DistanceUnits 'furlong'"),
        ({"DimSize": "2 2"}, "DimSize '2 2'"),
        ({"DimSize": "2 2 0"}, "DimSize '2 2 0'"),
        ({"DimSize": "2 2 -2"}, "DimSize '2 2 -2'"),
        ({"DimSize": "1000000 1000000 1000000"}, "claims 2000000000000000000 bytes"),
        ({"DimSize": "2 2 3"}, "ends early: its header claims 24 bytes"),
        ({"HeaderSize": "-5"}, "ends early"),
        ({"Offset": "0 0 nan"}, "Offset '0 0 nan'"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0"}, "expected 9 finite numbers"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "expected unit vectors"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "oblique"),
        ({"Position": "1 2 3"}, "expected a new 'key = value'"),
        ({"a line without": None, "Modality\nno equals sign": "?"}, "expected a new 'key = value'"),
        ({"CompressedData": "True"}, "DataError|damaged"),
        ({"CompressedData": "True", "CompressedDataSize": "99"}, "99 compressed ones, of which 16 are there"),
        ({"CompressedData": "True", "DimSize": "999 999 999"}, "claims 1994005998 bytes in 16"),
    ],
)  # fmt: skip
def test_headers_that_are_not_read(tmp_path, changed, message):
    found = refused(text_file(tmp_path / "a.mha", **changed))
    assert any(part in found for part in message.split("|")), found


@pytest.mark.parametrize("spacing", ["0 1 1", "1 -1 1", "1 1 1e300"])
def test_sizes_that_no_voxel_has(tmp_path, spacing):
    refused(text_file(tmp_path / "a.mha", ElementSpacing=spacing), VolreconError)


@pytest.mark.parametrize(
    "name",
    [
        "../a.raw",
        "/etc/passwd",
        "..",
        "",
        "sub/a.raw",
        "sub\\a.raw",
        "C:a.raw",
        "a\0.raw",
        "a.mhd",
        "LIST",
        "s%03d.raw 1 9 1",
        "missing.raw",
    ],
)
def test_data_files_that_are_not_followed(tmp_path, name):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for place in (tmp_path / "a.raw", tmp_path / "in" / "sub" / "a.raw"):
        place.write_bytes(bytes(16))
    found = refused(text_file(tmp_path / "in" / "a.mhd", b"", file=name))
    assert "plain name" in found or "several files" in found or "not beside it" in found


def test_damaged_compressed_data(tmp_path):
    packed = zlib.compress(bytes(range(16)))
    keys = {"CompressedData": "True"}
    path = text_file(tmp_path / "a.mha", packed, **keys)
    assert MHA.read_volume(path, HU).slices[:].ravel().sum()
    for data in (packed[:-3], packed[:-1] + b"\0", zlib.compress(bytes(17)), zlib.compress(bytes(15)), b"\0" * 20):
        refused(text_file(tmp_path / "a.mha", data, **keys))


@pytest.mark.parametrize("name", ["a.mha", "a.mhd"])
def test_flipped_bytes_of_simpleitks_file(tmp_path, name):
    path = save(tmp_path / name)
    whole = path.read_bytes()
    end = whole.index(b"\n", whole.index(b"ElementDataFile"))
    rng = np.random.default_rng(5)
    read, messages = 0, []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(end))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            read += MHA.read_volume(path, HU).slices[:].size > 0
            read += MHA.read_projections(path, HU).projections[:].size > 0
        except VolreconError as error:
            messages.append(str(error))
    assert read
    assert messages
    assert all(str(path) in message for message in messages)


# Projections: (v, angle, u) = (3 rows, 4 views, 5 columns).
VIEWS = np.random.default_rng(4).normal(size=(3, 4, 5)).astype(np.float32)
PIXELS = PixelGrid((0.8, 0.4), (-3.25, 10.5))


def itk_projections() -> sitk.Image:
    """As RTK has them: x is u, y is v, z the view."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(VIEWS.transpose(1, 0, 2)))
    image.SetSpacing((0.4, 0.8, 1.0))
    image.SetOrigin((10.5, -3.25, 0.0))
    return image


@pytest.mark.parametrize(
    ("known", "name", "rtol"),
    [(MHA, "a.mha", 0), (MHA, "a.mhd", 0), (NIFTI, "a.nii", 1e-7), (NIFTI, "a.nii.gz", 1e-7)],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_projections_that_itk_wrote(tmp_path, known, name, rtol, compressed):
    data = known.read_projections(save(tmp_path / name, itk_projections(), compressed), Hints())
    np.testing.assert_array_equal(data.projections[:], VIEWS)
    np.testing.assert_array_equal(data.projections[1:3], VIEWS[1:3])
    assert data.angles is None
    np.testing.assert_allclose(data.pixels.size_vu_mm, PIXELS.size_vu_mm, rtol=rtol)
    np.testing.assert_allclose(data.pixels.first_vu_mm, PIXELS.first_vu_mm, rtol=rtol)
    assert data.frame.detector_shape == (3, 5)
    assert "taken as (u, v, view)" in data.notes[0]
    assert "first one at (-3.25, 10.5) mm" in data.notes[1]
    with pytest.raises(ConfigError, match="drop the hint"):
        known.read_projections(tmp_path / name, Hints(axes="v,angle,u"))


def test_itk_reads_our_projections(tmp_path):
    path = tmp_path / "a.mha"
    MHA.write_projections(path, VIEWS.transpose(1, 0, 2), VIEWS.shape, PIXELS)
    image, expected = sitk.ReadImage(path), itk_projections()
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(expected))
    for stated in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, stated)() == getattr(expected, stated)()
    assert MHA.read_projections(path, Hints()).pixels == PIXELS
    with pytest.raises(DataError, match=r"only 3 views for projections of \(3, 4, 5\)"):
        MHA.write_projections(path, VIEWS.transpose(1, 0, 2)[:3], VIEWS.shape, PIXELS)
    assert MHA.read_projections(path, Hints()).pixels == PIXELS
    with pytest.raises(ConfigError, match="place of the first pixel"):
        MHA.write_projections(path, VIEWS.transpose(1, 0, 2), VIEWS.shape, PixelGrid((1.0, 1.0)))


def test_projections_that_are_turned(tmp_path):
    image = itk_projections()
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    for known, name in ((MHA, "a.mha"), (NIFTI, "a.nii")):
        with pytest.raises(DataError, match="columns of projections run along x"):
            known.read_projections(save(tmp_path / name, image), Hints())
    nib.Nifti1Image(VIEWS, np.eye(4)).to_filename(tmp_path / "b.nii")
    with pytest.raises(DataError, match="its direction is the identity"):
        NIFTI.read_projections(tmp_path / "b.nii", Hints())
