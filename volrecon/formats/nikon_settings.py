"""What an .xtekct says: the keys of its section [XTekCT] that are read here, their units and ranges."""

import configparser
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_pascal

from volrecon.errors import ConfigError, DataError
from volrecon.strict_toml import LARGEST_FILE, Strict, validated

SECTION = "xtekct"
OURS = "volrecon"

# A hundred times what scanners write, and small enough that no list of views or voxels fills the memory.
Views = Annotated[int, Field(ge=1, le=100_000)]
Pixels = Annotated[int, Field(ge=0, le=1_000_000)]
Length = Annotated[float, Field(gt=0, le=1e5)]
Size = Annotated[float, Field(ge=0, le=1e5)]
Offset = Annotated[float, Field(ge=-1e5, le=1e5)]
Degrees = Annotated[float, Field(ge=-1e6, le=1e6)]
Lean = Annotated[float, Field(gt=-90, lt=90)]


class Settings(Strict):
    """The keys by their names in the file, `SrcToObject` as `src_to_object`; lengths in mm, angles in degrees.

    What has no default must be there. None is a key that the file lacks or leaves empty.
    """

    model_config = ConfigDict(strict=False, extra="ignore", alias_generator=to_pascal)

    name: str
    units: Literal["mm"] = "mm"
    input_name: str | None = None
    input_separator: str = "_"
    input_digits: Annotated[int, Field(ge=1, le=9)] = 4
    input_folder_name: str | None = None

    src_to_object: Length
    src_to_detector: Length
    detector_pixels_x: Annotated[Pixels, Field(ge=1)]
    detector_pixels_y: Annotated[Pixels, Field(ge=1)]
    detector_pixel_size_x: Length
    detector_pixel_size_y: Length
    detector_offset_x: Offset = 0.0
    detector_offset_y: Offset = 0.0
    region_start_x: Pixels = 0
    region_start_y: Pixels = 0
    region_pixels_x: Pixels = 0
    region_pixels_y: Pixels = 0

    projections: Views
    initial_angle: Degrees
    angular_step: Degrees
    white_level: Annotated[float, Field(gt=0, le=1e12)]

    centre_of_rotation_top: Offset | None = None
    centre_of_rotation_bottom: Offset | None = None
    object_offset_x: Offset | None = None
    object_offset_y: Offset = 0.0
    object_roll: Lean | None = None
    object_tilt: Lean = 0.0

    voxels_x: Pixels = 0
    voxels_y: Pixels = 0
    voxels_z: Pixels = 0
    voxel_size_x: Size = 0.0
    voxel_size_y: Size = 0.0
    voxel_size_z: Size = 0.0
    offset_x: Offset = 0.0
    offset_y: Offset = 0.0
    offset_z: Offset = 0.0
    mask_radius: Size = 0.0

    coef_x4: float = 0.0
    coef_x3: float = 0.0
    coef_x2: float = 0.0
    coef_x1: float = 1.0
    coef_x0: float = 0.0
    beam_hardening_lut_file: str | None = Field(None, alias="BeamHardeningLUTFile")

    @model_validator(mode="after")
    def _detector_behind_object(self) -> Self:
        if self.src_to_detector <= self.src_to_object:
            raise ValueError(
                f"SrcToDetector ({self.src_to_detector:g}) must be larger than SrcToObject ({self.src_to_object:g})"
            )
        return self

    @property
    def images(self) -> str:
        """What the names of images and of angle files begin with."""
        return self.input_name or self.name

    @property
    def detector_shape(self) -> tuple[int, int]:
        """The whole panel, (v, u)."""
        return self.detector_pixels_y, self.detector_pixels_x

    @property
    def region_shape(self) -> tuple[int, int]:
        """The region that the scanner's own reconstruction uses, (v, u); the whole panel where none is stated."""
        return self.region_pixels_y or self.detector_pixels_y, self.region_pixels_x or self.detector_pixels_x


class Turned(Strict):
    """Our own section: how images beside the file are turned against the scan that they were written from."""

    model_config = ConfigDict(strict=False, alias_generator=to_pascal)

    rows_reversed: bool
    columns_reversed: bool


def load_settings(path: Path) -> Settings:
    """The checked settings of an .xtekct of at most 1 MiB.

    Raises:
        DataError: not such a file.
        ConfigError: all missing keys and all values out of their range.
    """
    settings = validated(path, Settings, _section(path, SECTION), ())
    check_name(settings.images + settings.input_separator)
    return settings


def load_turned(path: Path) -> Turned | None:
    """How `volrecon` wrote, or is to write, the images beside an .xtekct; None where it is not one of volrecon's."""
    if OURS not in (name.lower() for name in _parsed(path).sections()):
        return None
    return validated(path, Turned, _section(path, OURS), ())


def check_name(name: str) -> None:
    """Refuse a name, of images or of their folder, that leads elsewhere or cannot be a value in an INI file."""
    if name != name.strip() or not name.isprintable() or name in ("", ".", "..") or set(name) & set("/\\:"):
        raise DataError(f"names its images {name!r:.100}; only a plain file name, without a folder, is followed")


def _section(path: Path, name: str) -> dict[str, str]:
    """The keys of one section."""
    parser = _parsed(path)
    found = [section for section in parser.sections() if section.lower() == name]
    if len(found) != 1:
        sections = ", ".join(parser.sections())[:200] or "none"
        raise ConfigError(f"needs one section [{name}]; it has the sections {sections}")
    # An empty value is no value, but for the separator: there it says that there is none.
    return {key: value for key, value in parser[found[0]].items() if value or key == "InputSeparator"}


def _parsed(path: Path) -> configparser.RawConfigParser:
    with path.open("rb") as stream:
        data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise DataError(f"more than {LARGEST_FILE} bytes; an .xtekct is a short text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    parser = configparser.RawConfigParser(delimiters=("=",), strict=True, empty_lines_in_values=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise DataError(f"not an .xtekct: {' '.join(error.message.split())[:300]}") from error
    return parser
