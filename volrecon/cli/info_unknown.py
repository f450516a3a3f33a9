"""What `info` says of Zarr stores that are no image, and of what nobody here reads."""

from collections import Counter
from pathlib import Path

from volrecon.cli.described import Asked, Described
from volrecon.cli.info_outside import geometry_suffixes
from volrecon.errors import DataError
from volrecon.formats import FORMATS
from volrecon.formats.foreign_zarr import open_array
from volrecon.formats.zarr_metadata import read_node

MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive (numpy's are named .npz)"),
    (0, b"\x1f\x8b", "gzip (NIfTI's are named .nii.gz)"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 (.h5)"),
    (0, b"\x93NUMPY", "a numpy array (.npy)"),
    (128, b"DICM", "DICOM (.dcm)"),
    (344, b"n+1\0", "NIfTI (.nii)"),
    (4, b"n+2\0", "NIfTI-2 (.nii)"),
    (0, b"II*\0", "TIFF (.tif)"),
    (0, b"MM\0*", "TIFF (.tif)"),
    (0, b"II+\0", "BigTIFF (.tif)"),
    (0, b"MM\0+", "BigTIFF (.tif)"),
    (0, b"ObjectType", "MetaImage (.mha, .mhd)"),
    (0, b"<?xml", "XML (RTK's geometries are named .xml)"),
    (0, b"\xd0\xcf\x11\xe0", "an OLE container, such as Zeiss .txrm, which is not read"),
    (0, b"NRRD", "NRRD, which is not read"),
    (0, b"MATLAB 5.0", "a MATLAB file, which is not read"),
    (0, b"SIMPLE  =", "FITS, which is not read"),
    (0, b"\x89PNG", "a PNG image, which is not read"),
    (0, b"\xff\xd8\xff", "a JPEG image, which is not read"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x28\xb5\x2f\xfd", "zstd, which is not unpacked"),
    (0, b"BZh", "bzip2, which is not unpacked"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive, which is not unpacked"),
)
"""Place, bytes, and what they belong to."""


def is_plain_zarr(path: Path) -> bool:
    """Whether it is a Zarr array or group, other than an OME image."""
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        return False
    attributes = read_node(path).attributes
    ome = attributes.get("ome")
    return "multiscales" not in (ome if isinstance(ome, dict) else attributes)


def plain_zarr(path: Path, asked: Asked) -> Described:
    """A Zarr array or group that does not say how large its voxels are."""
    node = read_node(path)
    if not node.is_array:
        inside = ", ".join(sorted(entry.name for entry in path.iterdir() if entry.is_dir())[:20]) or "nothing"
        attributes = ", ".join(sorted(node.attributes)) or "none"
        first = f"{path}: a group of Zarr format {node.zarr_format}, neither volrecon's nor an OME image"
        return Described([first, f"it holds {inside}; its attributes: {attributes:.200}"])
    array = open_array(node, path)
    shape, chunks, names = array.layout.shape, array.layout.chunks, array.layout.names or "not named"
    return Described(
        [
            f"{path}: an array of Zarr format {node.zarr_format}, {shape} {array.layout.dtype}, axes {names}",
            f"chunks of {chunks}, {array.note}; read as part of an OME-Zarr image only, which states its voxel size",
        ]
    )


def unknown(path: Path, asked: Asked) -> Described:
    """Nothing that is read here.

    Raises:
        DataError: always; it says what the beginning looks like.
    """
    formats = ", ".join(f"{known.name} ({' '.join(known.suffixes)})" for known in FORMATS.values())
    known = f"Known are {formats}; geometries ({' '.join(geometry_suffixes())})"
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if entry.is_file())
        suffixes = Counter(entry.suffix.lower() or "without suffix" for entry in entries)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5)) or "none"
        first = f"; {entries[0].name} {_beginning(entries[0])}" if entries else ""
        raise DataError(f"{path} is a folder of no known kind; files: {kinds}{first}. {known}")
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder")
    raise DataError(f"{path} has no known suffix; it {_beginning(path)}. {known}")


def _beginning(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        return "is empty"
    likeness = next((words for at, magic, words in MAGICS if head[at : at + len(magic)] == magic), None)
    is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in head)
    return f"starts with {head[:16]!r}, which looks like {likeness or ('text' if is_text else 'nothing known')}"
