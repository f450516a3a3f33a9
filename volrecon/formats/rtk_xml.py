"""The text of RTK's geometry XML: parsed without a tree, since a geometry of 64 MiB is a few million elements."""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from volrecon.errors import DataError

ROOT = "RTKThreeDCircularGeometry"
PARAMETERS = (
    "SourceToIsocenterDistance",
    "SourceToDetectorDistance",
    "GantryAngle",
    "OutOfPlaneAngle",
    "InPlaneAngle",
    "SourceOffsetX",
    "SourceOffsetY",
    "ProjectionOffsetX",
    "ProjectionOffsetY",
)
COLLIMATION = ("CollimationUInf", "CollimationUSup", "CollimationVInf", "CollimationVSup")
RADIUS = "RadiusCylindricalDetector"
VERSIONS = ("2", "3")
"""RTK reads its version 2 as version 3."""

LARGEST_FILE = 64 * 2**20
LONGEST_NUMBERS = 4096


class View(NamedTuple):
    """One Projection: values in the order of PARAMETERS, and its matrix, three rows of four."""

    parameters: tuple[float, ...]
    matrix: list[list[float]]


@dataclass
class Content:
    """What the file holds; `ignored` are the names of elements that were read past."""

    version: str = ""
    views: list[View] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)


def parsed(path: Path, most_views: int) -> Content:
    """The content of an RTK geometry file.

    Raises:
        DataError: larger than 64 MiB, with entities, another version, unknown elements, more than `most_views` views.
    """
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise DataError(f"has {size} bytes; a geometry may have {LARGEST_FILE}")
    reader = _Reader(most_views)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _plain_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    with path.open("rb") as stream:
        parser.ParseFile(stream)
    return reader.content


def xml_lines(views: list[View]) -> Iterator[str]:
    """The lines of a file, as RTK writes them: what is 0 is left out, what is the same in all views stands once."""
    yield '<?xml version="1.0"?>'
    yield "<!DOCTYPE RTKGEOMETRY>"
    yield f'<{ROOT} version="3">'
    columns = zip(PARAMETERS, zip(*(view.parameters for view in views), strict=True), strict=True)
    once = {name: values[0] for name, values in columns if name != "GantryAngle" and len(set(values)) == 1}
    for name, value in once.items():
        if value != 0:
            yield f"    <{name}>{value!r}</{name}>"
    for view in views:
        yield "  <Projection>"
        for name, value in zip(PARAMETERS, view.parameters, strict=True):
            if name not in once:
                yield f"    <{name}>{value!r}</{name}>"
        yield "    <Matrix>"
        for row in view.matrix:
            yield "      " + " ".join(f"{entry!r:>24}" for entry in row)
        yield "    </Matrix>"
        yield "  </Projection>"
    yield f"</{ROOT}>"


def _plain_doctype(name: str, system: str | None, public: str | None, has_subset: int) -> None:
    """RTK writes a bare DOCTYPE; one that declares or fetches anything is refused."""
    if system or public or has_subset:
        raise DataError(f"its DOCTYPE {name!r:.60} declares or fetches something; RTK's own is bare")


class _Reader:
    """Handlers for expat: root, then parameters of all views, then Projections with their own."""

    def __init__(self, most_views: int) -> None:
        self.content = Content()
        self.most_views = most_views
        self.path: list[str] = []
        self.characters = ""
        self.common: dict[str, float] = {}
        self.own: dict[str, float] = {}
        self.names: Set[str] = frozenset()
        self.matrix: list[list[float]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name)
        self.characters = ""
        if len(self.path) == 1:
            self.content.version = attributes.get("version", "")
            if name != ROOT or self.content.version not in VERSIONS:
                raise DataError(
                    f"is {name!r:.60} of version {self.content.version!r:.20}; expected {ROOT!r} of version 3"
                )
            return
        inside = "Projection" if self.path[1] == "Projection" else ROOT
        known = {*PARAMETERS, *COLLIMATION, "Matrix"} if inside == "Projection" else {*PARAMETERS, *COLLIMATION, RADIUS}
        expected = 3 if inside == "Projection" else 2
        if (len(self.path), name) == (2, "Projection"):
            self.own, self.matrix = {}, []
        elif len(self.path) != expected or name not in known:
            raise DataError(f"holds the unknown element {'/'.join(self.path)[:120]!r}")

    def text(self, characters: str) -> None:
        self.characters += characters
        if len(self.characters) > LONGEST_NUMBERS:
            raise DataError(f"holds a text of more than {LONGEST_NUMBERS} characters in {self.path[-1]!r:.60}")

    def end(self, name: str) -> None:
        where, text, self.characters = self.path.pop(), self.characters, ""
        if name == ROOT or name == "Projection":
            if text.strip():
                raise DataError(f"holds the text {text.strip()[:60]!r} outside of any parameter")
            if name == "Projection":
                self._add_view()
        elif name in COLLIMATION:
            self.content.ignored.add("collimation")
        elif name == RADIUS:
            if (radius := _numbers(where, text, 1)[0]) != 0:
                raise DataError(
                    f"its detector is curved with a radius of {radius:g} mm; volrecon's detectors are flat. Resample "
                    f"the projections to a flat detector"
                )
        elif name == "Matrix":
            entries = _numbers(where, text, 12)
            self.matrix = [entries[:4], entries[4:8], entries[8:]]
        else:
            self._add_value(name, _numbers(where, text, 1)[0])

    def _add_value(self, name: str, value: float) -> None:
        values = self.own if self.path[-1] == "Projection" else self.common
        if name in values:
            raise DataError(f"states {name} twice in {self.path[-1]} {len(self.content.views)}")
        if values is self.common and self.content.views:
            raise DataError(f"states {name} for all views after the first Projection")
        values[name] = value

    def _add_view(self) -> None:
        number = len(self.content.views)
        if number >= self.most_views:
            raise DataError(f"states more views than the {self.most_views} of the projections' file")
        if not self.matrix:
            raise DataError(f"view {number} has no Matrix")
        if self.content.views and self.own.keys() != self.names:
            differing = ", ".join(sorted(self.own.keys() ^ self.names))
            raise DataError(f"{differing}: stated by some views but not by view {number} or not by view 0")
        self.names = self.own.keys()
        values = {**dict.fromkeys(PARAMETERS, 0.0), **self.common, **self.own}
        self.content.views.append(View(tuple(values.values()), self.matrix))


def _numbers(name: str, text: str, count: int) -> list[float]:
    values = [float(word) for word in text.split()]
    if len(values) != count or not all(map(math.isfinite, values)):
        raise DataError(f"{name} holds {text.strip()[:60]!r}; expected {count} finite number(s)")
    return values
