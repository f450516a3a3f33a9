"""The [angles] table of a geometry.toml."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from volrecon.errors import ConfigError, GeometryError
from volrecon.formats.number_files import read_angles
from volrecon.strict_toml import Count, Number, Strict


class Angles(Strict):
    """Where the gantry angles come from: step and count, a list, a text file, or the projections' own file."""

    unit: Literal["deg", "rad"]
    start: Number = 0.0
    step: Number | None = None
    count: Count | None = None
    list: Annotated[tuple[Number, ...], Field(strict=False, min_length=1)] | None = None
    file: str | None = None
    from_data: bool = False
    direction: Literal["counter-clockwise", "clockwise"] = "counter-clockwise"
    trust: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.step is None) != (self.count is None):
            raise ValueError("step and count belong together; one is missing")
        given = [self.step is not None, self.list is not None, self.file is not None, self.from_data]
        if sum(given) != 1:
            raise ValueError("give exactly one of: step with count, list, file, from_data = true")
        return self

    def gantry(self, folder: Path, data_angles: np.ndarray | None, most_turns: float) -> np.ndarray:
        """Angles (views,) in radians, counter-clockwise from above; `data_angles` are radians in the file's sense."""
        if self.from_data:
            if data_angles is None:
                raise ConfigError(
                    "angles.from_data = true, but the projections' file states no angles; state them here"
                )
            stated = np.rad2deg(data_angles) if self.unit == "deg" else data_angles
        elif self.file is not None:
            stated = read_angles(folder / self.file)
        elif self.list is not None:
            stated = np.array(self.list)
        else:
            stated = np.arange(self.count or 0) * (self.step or 0.0)
        self._check_unit(stated, most_turns)
        turned = self.start + stated
        angles = np.deg2rad(turned) if self.unit == "deg" else turned
        return angles if self.direction == "counter-clockwise" else -angles

    def _check_unit(self, stated: np.ndarray, most_turns: float) -> None:
        if self.trust:
            return
        extent = float(np.ptp(stated))
        if self.unit == "deg" and stated.size > 30 and extent < 7:
            raise GeometryError(
                f"angles.unit is 'deg', but {stated.size} angles run over only {extent:.4g} degrees: they look like "
                f"radians ({math.degrees(extent):.4g} degrees). Set angles.unit = 'rad', or angles.trust = true."
            )
        turns = extent / (360 if self.unit == "deg" else 2 * math.pi)
        if turns > most_turns + 1e-6:
            guess = "they look like degrees, set angles.unit = 'deg'" if self.unit == "rad" else "check start and step"
            raise GeometryError(
                f"the angles run over {extent:.6g} {self.unit}, {turns:.1f} turns: {guess}, or set "
                f"angles.trust = true if the gantry really turns that far"
            )

    def note(self, angles: np.ndarray) -> str:
        """One line about the angles as they were understood."""
        source = "the projections' file" if self.from_data else self.file or "this file"
        first, last = np.degrees(angles[[0, -1]])
        return (
            f"{angles.size} angles in {self.unit} from {source}, {self.direction} seen from +z: the gantry goes from "
            f"{first:.6g} to {last:.6g} deg counter-clockwise, with the source at -y at 0"
        )
