"""The angles of a Nikon scan: `<Name>.ang` (stop and go), `_ctdata.txt` (continuous), or equal steps.

In files of real scans `_ctdata.txt` counts in the sense of AngularStep and an .ang counts the other way, as TIGRE
reads them; SophiaBeads and CCPi read an .ang backwards instead of negating it, the same but for one step. Both list
an angle or more beyond the last image, and start at about 0 whatever InitialAngle is. It is added here, so that the
volume lies as it does without an angle file, in CIL (which reads no angle files) and in the scanner's own
reconstruction; TIGRE, SophiaBeads and CCPi leave it out, which turns the volume about its axis and nothing else.
"""

from pathlib import Path

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.formats.files import reading, replacing
from volrecon.formats.nikon_settings import Settings

LARGEST_TEXT = 16 * 2**20

STEP_TOLERANCE = 0.1
"""How far the mean step of an angle file may be from AngularStep, as a fraction of it, before it is another scan's."""


def stage_angles(path: Path, settings: Settings) -> tuple[np.ndarray, str]:
    """Angles (views,) in degrees in the sense of AngularStep, and a line that says whence.

    Raises:
        DataError: the angle file beside `path` is damaged, lacks views, or is another scan's.
    """
    first, count = settings.initial_angle, settings.projections
    found = next((p for p in angle_files(path, settings.images) if p.is_file()), None)
    if found is None:
        return first + settings.angular_step * np.arange(count), "InitialAngle + i AngularStep"
    with reading(found):
        listed = _listed(found, count)
        angles = np.array([listed[number] for number in range(1, count + 1)])
        sign = -1 if found.suffix == ".ang" else 1
        _check_step(sign * angles, settings.angular_step)
    more = f", of {len(listed)} in it" if len(listed) > count else ""
    return first + sign * angles, f"InitialAngle {'-' if sign < 0 else '+'} {found.name}{more}"


def angle_files(path: Path, name: str) -> tuple[Path, ...]:
    """Where the angles of images `name` may be, beside `path`: the first that exists is taken."""
    return tuple(path.with_name(file) for file in (f"{name}.ang", f"{name}_ctdata.txt", "_ctdata.txt"))


def write_angles(path: Path, degrees: np.ndarray) -> None:
    """An .ang of angles (views,) in the sense of AngularStep, as differences from the first."""
    lines = [f"{number}:\t{value!r}" for number, value in enumerate((degrees[0] - degrees).tolist(), start=1)]
    with replacing(path) as partial:
        partial.write_text("\n".join(["Proj\tAngle(deg)", *lines, ""]), encoding="ascii", newline="\r\n")


def check_no_angles(path: Path, name: str) -> None:
    """Refuse to write a scan of equal steps beside an angle file that readers would take instead."""
    for stray in angle_files(path, name):
        if stray.exists():
            raise ConfigError(f"{stray} would be read as the angles of {path.name}; move it, or write elsewhere")


def _listed(path: Path, views: int) -> dict[int, float]:
    """The angle of every number in the file, which must go from 1 to `views` at least."""
    if (size := path.stat().st_size) > LARGEST_TEXT:
        raise DataError(f"has {size} bytes; a list of angles may have {LARGEST_TEXT}")
    lines = path.read_text(encoding="latin-1").splitlines()
    header = 1 if path.suffix == ".ang" else 3
    if len(lines) <= header or "angle(deg)" not in lines[header - 1].lower():
        raise DataError(f"its line {header} must name the column Angle(deg)")
    if header == 3 and lines[1].split()[:1] != [str(views)]:
        raise DataError(f"its line 2 is {lines[1]!r:.60}, the .xtekct has Projections={views}; they must agree")
    listed: dict[int, float] = {}
    for row, line in enumerate(lines[header:], start=header + 1):
        words = line.replace(":", " ").split()
        if not words:
            continue
        try:
            number, angle = int(words[0]), float(words[1])
        except (ValueError, IndexError):
            raise DataError(f"line {row} is {line!r:.60}; expected a number and an angle in degrees") from None
        if number in listed or not abs(angle) <= 1e6:
            raise DataError(f"line {row} is {line!r:.60}: given twice, or no angle in degrees")
        listed[number] = angle
    missing = [number for number in range(1, views + 1) if number not in listed]
    if missing:
        raise DataError(f"has no angle for projection {missing[0]} ({len(missing)} of {views} are missing)")
    return listed


def _check_step(angles: np.ndarray, step: float) -> None:
    if angles.size < 2 or step == 0:
        return
    # As listed, or with the steps back to 0 at every full turn undone.
    means = [float(turned[-1] - turned[0]) / (angles.size - 1) for turned in (angles, np.unwrap(angles, period=360.0))]
    if all(abs(mean - step) > STEP_TOLERANCE * abs(step) for mean in means):
        raise DataError(
            f"turns by {means[0]:.6g} deg a view on average, but AngularStep is {step:.6g} deg: another scan's, or in "
            f"the other sense. Correct AngularStep, or move this file away to use equal steps."
        )
