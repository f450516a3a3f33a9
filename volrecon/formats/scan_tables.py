"""The tables of a geometry.toml: one model a beam, each with exactly the keys that its constructor needs."""

import math
from abc import abstractmethod
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from volrecon.formats.angle_table import Angles
from volrecon.geometry import ScanGeometry, VolumeGeometry, cone, fan, helical, parallel
from volrecon.strict_toml import (
    Count,
    Counts3,
    Length,
    Lengths2,
    Lengths3,
    Number,
    Numbers2,
    Numbers3,
    Strict,
)


class Axis(Strict):
    """Where the rotation axis lies along u, from the middle of the undisplaced detector, measured at the axis."""

    shift_mm: Number = 0.0


class Pixels(Strict):
    """A detector of `rows` (v) x `columns` (u)."""

    rows: Count
    columns: Count


class Detector(Pixels):
    """A flat detector; sizes and offset are (v, u)."""

    pixel_mm: Lengths2
    offset_mm: Numbers2 = (0.0, 0.0)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    def note(self) -> str:
        return f"detector {self.shape} pixels of {self.pixel_mm} mm, offset {self.offset_mm} mm, all (v, u)"


class TiltedDetector(Detector):
    """A flat detector turned about (the central ray, u, v)."""

    tilt_deg: Numbers3 = (0.0, 0.0, 0.0)

    def note(self) -> str:
        return f"{super().note()}, tilted by {self.tilt_deg} deg about (central ray, u, v)"


class FanDetector(Pixels):
    """A stack of detector lines; along v it has a row pitch and no offset."""

    pixel_mm: Length
    row_pitch_mm: Length | None = None
    offset_mm: Numbers2 = (0.0, 0.0)

    @model_validator(mode="after")
    def _along_v(self) -> Self:
        if self.offset_mm[0] != 0:
            raise ValueError(f"a stack of fans has no offset along v; offset_mm is {self.offset_mm} (v, u)")
        if self.rows > 1 and self.row_pitch_mm is None:
            raise ValueError(f"{self.rows} rows need row_pitch_mm, the height of a row")
        return self

    @property
    def pitch_mm(self) -> float:
        return 1.0 if self.row_pitch_mm is None else self.row_pitch_mm

    def note(self) -> str:
        assumed = " (assumed)" if self.row_pitch_mm is None else ""
        return (
            f"{self.rows} detector row(s) of {self.pitch_mm} mm{assumed}, {self.columns} columns of "
            f"{self.pixel_mm} mm, offset {self.offset_mm[1]} mm along u"
        )


class Grid(Strict):
    """The volume that the scan's owner wants."""

    shape: Counts3
    voxel_mm: Lengths3
    centre_mm: Numbers3 = (0.0, 0.0, 0.0)

    def geometry(self) -> VolumeGeometry:
        return VolumeGeometry(self.shape, self.voxel_mm, self.centre_mm)


class VectorFile(Strict):
    """Where the vectors are."""

    file: str


class Vectors(Strict):
    """A scan stated view by view."""

    beam: Literal["cone", "fan", "parallel"]
    detector: Pixels
    vectors: VectorFile
    grid: Grid | None = None


class Stated(Strict):
    """A scan stated by distances and angles; each beam is a subclass."""

    most_turns: ClassVar[float] = 2.0
    """Turns of the gantry above which angles are taken for a unit mistake."""

    angles: Angles
    grid: Grid | None = None

    @abstractmethod
    def scan(self, angles: np.ndarray) -> ScanGeometry:
        """The scan of gantry angles (views,) in radians."""

    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """How distances and detector were understood."""


class Divergent(Stated):
    """A source at a distance."""

    source_to_object_mm: Length
    source_to_detector_mm: Length

    def distances(self) -> str:
        return f"source to axis {self.source_to_object_mm} mm, source to detector {self.source_to_detector_mm} mm"


class Cone(Divergent):
    beam: Literal["cone"]
    detector: TiltedDetector
    axis: Axis = Axis()

    def scan(self, angles: np.ndarray) -> ScanGeometry:
        roll, pitch, yaw = (math.radians(degrees) for degrees in self.detector.tilt_deg)
        return cone(
            source_to_object_mm=self.source_to_object_mm,
            source_to_detector_mm=self.source_to_detector_mm,
            detector_shape=self.detector.shape,
            pixel_mm=self.detector.pixel_mm,
            angles=angles,
            detector_offset_mm=self.detector.offset_mm,
            axis_shift_mm=self.axis.shift_mm,
            tilt=(roll, pitch, yaw),
            trust_angles=self.angles.trust,
        )

    def notes(self) -> tuple[str, ...]:
        return f"cone beam, {self.distances()}, axis shifted by {self.axis.shift_mm} mm", self.detector.note()


class Fan(Divergent):
    beam: Literal["fan"]
    detector: FanDetector
    axis: Axis = Axis()

    def scan(self, angles: np.ndarray) -> ScanGeometry:
        return fan(
            source_to_object_mm=self.source_to_object_mm,
            source_to_detector_mm=self.source_to_detector_mm,
            columns=self.detector.columns,
            pixel_mm=self.detector.pixel_mm,
            angles=angles,
            rows=self.detector.rows,
            row_pitch_mm=self.detector.pitch_mm,
            detector_offset_mm=self.detector.offset_mm[1],
            axis_shift_mm=self.axis.shift_mm,
            trust_angles=self.angles.trust,
        )

    def notes(self) -> tuple[str, ...]:
        return f"fan beam, {self.distances()}, axis shifted by {self.axis.shift_mm} mm", self.detector.note()


class Parallel(Stated):
    beam: Literal["parallel"]
    detector: Detector
    axis: Axis = Axis()

    def scan(self, angles: np.ndarray) -> ScanGeometry:
        return parallel(
            detector_shape=self.detector.shape,
            pixel_mm=self.detector.pixel_mm,
            angles=angles,
            detector_offset_mm=self.detector.offset_mm,
            axis_shift_mm=self.axis.shift_mm,
            trust_angles=self.angles.trust,
        )

    def notes(self) -> tuple[str, ...]:
        return f"parallel beam, axis shifted by {self.axis.shift_mm} mm", self.detector.note()


class Helix(Strict):
    """How far the source rises in one turn of the gantry, whichever way it turns."""

    pitch_mm: Number


class Helical(Divergent):
    most_turns: ClassVar[float] = math.inf

    beam: Literal["helical"]
    detector: Detector
    helix: Helix

    def scan(self, angles: np.ndarray) -> ScanGeometry:
        # The constructor's pitch is the rise in a counter-clockwise turn.
        sense = 1 if self.angles.direction == "counter-clockwise" else -1
        return helical(
            source_to_object_mm=self.source_to_object_mm,
            source_to_detector_mm=self.source_to_detector_mm,
            detector_shape=self.detector.shape,
            pixel_mm=self.detector.pixel_mm,
            angles=angles,
            pitch_mm=sense * self.helix.pitch_mm,
            detector_offset_mm=self.detector.offset_mm,
        )

    def notes(self) -> tuple[str, ...]:
        return f"helix rising {self.helix.pitch_mm} mm a turn, {self.distances()}", self.detector.note()
