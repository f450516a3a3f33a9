"""info: what a file or folder is, in lines and as a picture.

`KINDS` lists what is recognised, in this order; a new kind is one line there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from volrecon.cli.app import app, printable, say
from volrecon.cli.described import Asked, Described, picture_title, rounded, scan_lines, value_range
from volrecon.cli.info_outside import has_format, outside
from volrecon.cli.info_training import training_file, weights
from volrecon.cli.info_unknown import is_plain_zarr, plain_zarr, unknown
from volrecon.cli.scans import Key, QuantityOption, VoxelText, volume_hints
from volrecon.cli.volumes import Partial
from volrecon.errors import ConfigError, DataError
from volrecon.figures import geometry_figure, scan_figure, volume_figure
from volrecon.formats import AxisOrder, Hints, read_geometry
from volrecon.formats.files import reading, replacing
from volrecon.geometry import suggest_grid
from volrecon.jobs import describe as method_table
from volrecon.jobs import load_job, resolve_method
from volrecon.priors.weights import SCHEME, prior_path
from volrecon.store import open_scan, open_volume
from volrecon.store.output import is_ours
from volrecon.strict_toml import load_toml


@dataclass(frozen=True)
class Kind:
    """Something that `info` knows: by what it is recognised, and what there is to say and to draw."""

    recognise: Callable[[Path], bool]
    describe: Callable[[Path, Asked], Described]


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="Any file: scan, volume, run, job, geometry, weights, outside file.")],
    picture: Annotated[Path | None, typer.Option(help="PNG of it: projections, sinogram, geometry, slices.")] = None,
    geometry: Annotated[Path | None, typer.Option(help="A geometry file that goes with outside projections.")] = None,
    partial: Partial = False,
    key: Key = None,
    quantity: QuantityOption = None,
    file_voxel_mm: VoxelText = None,
    axes: Annotated[AxisOrder | None, typer.Option(help="Axis order of projections.")] = None,
) -> None:
    """Say what a file is, and draw it."""
    known = volume_hints(key, file_voxel_mm, quantity)
    asked = Asked(Hints(known.key, known.voxel_zyx_mm, known.quantity, axes), geometry, partial)
    if picture is not None:
        _check_picture(picture)
    if str(path).startswith(SCHEME):
        path = prior_path(str(path))
    with reading(path):
        if not path.exists():
            raise DataError(f"{path} does not exist")
        kind = next(kind for kind in KINDS if kind.recognise(path))
        described = kind.describe(path, asked)
        for line in described.lines:
            say(printable(line))
        if picture is not None:
            if described.draw is None:
                raise ConfigError(f"{path}: there is no picture of this")
            with replacing(picture) as unfinished:
                described.draw(unfinished)
            say(printable(f"wrote {picture}"))


def _check_picture(picture: Path) -> None:
    """Refuse to write over anything but a picture."""
    with reading(picture):
        if picture.is_file():
            with picture.open("rb") as stream:
                if stream.read(4) == b"\x89PNG":
                    return
        if picture.exists():
            raise ConfigError(f"{picture} exists and is no PNG; it is left alone. Choose another --picture.")


def _is_run(path: Path) -> bool:
    return path.is_dir() and (is_ours(path / "volume.zarr") or (path / "job.toml").is_file())


def _run(path: Path, asked: Asked) -> Described:
    names = sorted(entry.name for entry in path.iterdir())
    first = f"{path}: run directory with {', '.join(names)}"[:400]
    if not is_ours(path / "volume.zarr"):
        return Described([first, "it has no volume yet", *_job(path / "job.toml").lines])
    volume = _volume(path / "volume.zarr", asked)
    return Described([first, *volume.lines], volume.draw)


def _is_scan(path: Path) -> bool:
    return is_ours(path) and (path / "projections").exists()


def _scan(path: Path, asked: Asked) -> Described:
    scan = open_scan(path)
    shape = scan.geometry.shape

    def lines() -> Iterator[str]:
        yield f"{path}: scan, line integrals (v, angle, u) {shape}"
        yield from scan_lines(scan.geometry, scan.grid)
        yield f"middle row: {value_range(scan.projections[shape[0] // 2 : shape[0] // 2 + 1])}"
        touching = f"{scan.truncation():.1%} of the views of the middle row"
        yield f"truncated: in {touching} the object reaches the detector's edge"
        yield f"noise: {scan.noise.kind}{f', {scan.noise.photons:g} photons' if scan.noise.photons else ''}"
        yield f"water {scan.water_per_mm:g} /mm; sha256 {scan.digest[:16]}; {scan.provenance}"

    def draw(picture: Path) -> None:
        grid = scan.grid or suggest_grid(scan.geometry)
        scan_figure(picture, scan.projections, scan.geometry, grid, title=picture_title(path, scan.geometry))

    return Described(lines(), draw)


def _volume(path: Path, asked: Asked) -> Described:
    stored = open_volume(path, asked.partial)
    grid = stored.geometry

    def lines() -> Iterator[str]:
        yield f"{path}: volume, attenuation in 1/mm (z, y, x) {grid.shape} of {rounded(grid.voxel_zyx_mm)} mm"
        yield f"centre {rounded(grid.centre_xyz_mm)} mm (x, y, z); {'complete' if stored.digest else 'INCOMPLETE'}"
        yield f"middle slice: {value_range(stored.data[grid.shape[0] // 2 : grid.shape[0] // 2 + 1])} /mm"
        if "job" in stored.attributes:
            yield f"method {stored.attributes['job']['method']}"
        yield f"sha256 {(stored.digest or '')[:16]}"

    def draw(picture: Path) -> None:
        volume_figure(picture, stored.data, grid, "per_mm", title=picture_title(path))

    return Described(lines(), draw)


def _toml(path: Path, asked: Asked) -> Described:
    """A TOML file is what its keys say."""
    tables = load_toml(path)
    describe = next((describe for key, describe in TABLES if key in tables), None)
    if describe is None:
        keys = ", ".join(tables) or "none"
        known = ", ".join(key for key, _ in TABLES)
        raise DataError(f"{path} is TOML of no known kind; it has the keys {keys:.200}, and none of {known}")
    return describe(path)


def _geometry_toml(path: Path) -> Described:
    angles = load_toml(path).get("angles")
    if isinstance(angles, dict) and angles.get("from_data") is True:
        first = f"{path}: geometry, whose angles stand in the projections' file"
        return Described([first, f"to see it: volrecon info PROJECTIONS --geometry {path}"])
    stated = read_geometry(path)
    grid = stated.grid or suggest_grid(stated.scan)
    title = picture_title(path, stated.scan)
    return Described(
        [f"{path}: geometry", *scan_lines(stated.scan, stated.grid), *stated.notes],
        lambda picture: geometry_figure(picture, stated.scan, grid, title=title),
    )


def _method(path: Path) -> Described:
    return Described([f"{path}: method, {_method_text(str(path.absolute()), Path())}"])


def _job(path: Path) -> Described:
    job, base = load_job(path, [], {})

    def lines() -> Iterator[str]:
        yield f"{path}: job, reconstructs {job.scan} into {job.out} in the {job.compute.tier} tier"
        yield f"method {_method_text(job.method, base)}"
        for name, value in (("scan", job.scan), ("reference", job.reference)):
            if value is not None:
                yield f"{name} {value} is {'there' if (base / value).exists() else 'not there'}"
        if job.grid:
            yield f"grid {job.grid.shape} of {rounded(job.grid.voxel_mm)} mm (z, y, x)"

    return Described(lines())


def _method_text(method: str | dict[str, Any], base: Path) -> str:
    table = method_table(resolve_method(method, base))
    return ", ".join(f"{key} {value}" for key, value in table.items())


TABLES: tuple[tuple[str, Callable[[Path], Described]], ...] = (
    ("beam", _geometry_toml),
    ("scan", _job),
    ("algorithm", _method),
    ("budget", training_file),
)
"""Keys by which TOML files are known."""

KINDS: tuple[Kind, ...] = (
    Kind(_is_run, _run),
    Kind(_is_scan, _scan),
    Kind(is_ours, _volume),
    Kind(lambda path: path.suffix.lower() == ".toml" and path.is_file(), _toml),
    Kind(lambda path: path.suffix == ".safetensors" and path.is_file(), lambda path, asked: weights(path)),
    Kind(is_plain_zarr, plain_zarr),
    Kind(has_format, outside),
    Kind(lambda path: True, unknown),
)
