"""import, preprocess: measured data into scans and volumes of ours."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from volrecon.cli.app import app, say
from volrecon.cli.scans import Key, Out, Overwrite, QuantityOption, VoxelText, Water, counts, volume_hints
from volrecon.errors import ConfigError
from volrecon.exchange import import_scan, import_volume, preprocess_scan, states_scan
from volrecon.formats import Hints
from volrecon.noise import Noise
from volrecon.preprocess import Preparation, read_counts
from volrecon.preprocess import find_axis as search_axis
from volrecon.store import Scan, open_scan
from volrecon.store.scans import BadPixels
from volrecon.strict_toml import key_paths, validated

Flat = Annotated[Path | None, typer.Option(help="Frames without an object; they are averaged.")]
Dark = Annotated[Path | None, typer.Option(help="Frames without a beam; they are averaged.")]
White = Annotated[float | None, typer.Option(help="Count of the open beam in every pixel, instead of --flat.")]
Lowest = Annotated[
    float | None, typer.Option("--lowest-transmission", help="Darker measurements are raised to it; default 1e-4.")
]
Empty = Annotated[str | None, typer.Option(help="Columns a:b of air in every view, to divide by; or a:b,c:d.")]
Rings = Annotated[int | None, typer.Option(help="Smooth stripes over this many columns, an odd number such as 9.")]
Bin = Annotated[str | None, typer.Option(help="Average n pixels into one, one number or v,u.")]
Rows = Annotated[str | None, typer.Option(help="Keep the rows a:b, the end left out.")]
Columns = Annotated[str | None, typer.Option(help="Keep the columns a:b, the end left out.")]
AxisColumn = Annotated[float | None, typer.Option(help="The column of the file on which the rotation axis is seen.")]
FindAxis = Annotated[bool, typer.Option("--find-axis", help="Find that column.")]


def preparation(
    lowest: float | None,
    empty: str | None,
    rings: int | None,
    binned: str | None,
    rows: str | None,
    columns: str | None,
    axis_column: float | None,
    find: bool,
) -> Preparation:
    """The options as a checked preparation."""
    if find and axis_column is not None:
        raise ConfigError("give --axis-column or --find-axis, not both")
    given = {
        "lowest_transmission": lowest,
        "empty": [_interval(part, "--empty") for part in empty.split(",")] if empty else None,
        "rings": rings,
        "bin_vu": counts(binned, 2, "--bin") if binned else None,
        "rows": _interval(rows, "--rows") if rows else None,
        "columns": _interval(columns, "--columns") if columns else None,
        "axis": "find" if find else axis_column,
    }
    tables = {key: value for key, value in given.items() if value is not None}
    return validated(Path("the command line"), Preparation, tables, key_paths(Preparation))


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A file or folder of projections or of a volume.")],
    out: Out,
    geometry: Annotated[Path | None, typer.Option(help="geometry.toml: the file holds projections.")] = None,
    axes: Annotated[
        Literal["v,angle,u", "angle,v,u", "angle,u"] | None, typer.Option(help="Axis order of projections.")
    ] = None,
    key: Key = None,
    quantity: QuantityOption = None,
    file_voxel_mm: VoxelText = None,
    water_per_mm: Water = 0.02,
    photons: Annotated[
        float | None, typer.Option(help="Photons a pixel in air, if known: weights the data.", min=1)
    ] = None,
    bad_pixels: Annotated[BadPixels, typer.Option(help="What NaN and infinite pixels do.")] = "refuse",
    flat: Flat = None,
    dark: Dark = None,
    white: White = None,
    lowest_transmission: Lowest = None,
    empty: Empty = None,
    rings: Rings = None,
    bin: Bin = None,
    rows: Rows = None,
    columns: Columns = None,
    axis_column: AxisColumn = None,
    find_axis: FindAxis = False,
    overwrite: Overwrite = False,
) -> None:
    """Bring projections (with --geometry, unless their file has it) or a volume into volrecon's own format."""
    wanted = preparation(lowest_transmission, empty, rings, bin, rows, columns, axis_column, find_axis)
    open_beam = read_counts(flat, dark, white)
    hints = Hints(key=key, axes=axes)
    if geometry is not None or states_scan(source, hints):
        if quantity is not None or file_voxel_mm is not None:
            raise ConfigError("--quantity and --file-voxel-mm are for volumes; this imports projections")
        noise = Noise("poisson", photons) if photons else None
        notes = import_scan(source, geometry, out, hints, water_per_mm, noise, bad_pixels, overwrite, wanted, open_beam)
    elif wanted != Preparation() or open_beam:
        raise ConfigError(f"{source} states no geometry, and a volume cannot be preprocessed; give --geometry FILE")
    else:
        known = volume_hints(key, file_voxel_mm, quantity)
        notes = import_volume(source, out, known, water_per_mm, overwrite)
    for note in notes:
        say(note)
    say(f"wrote {out}")


@app.command()
def preprocess(
    scan: Annotated[Path, typer.Argument(help="A scan.zarr.")],
    out: Annotated[Path | None, typer.Option(help="The new scan; --find-axis alone needs none.")] = None,
    empty: Empty = None,
    rings: Rings = None,
    bin: Bin = None,
    rows: Rows = None,
    columns: Columns = None,
    axis_column: AxisColumn = None,
    find_axis: FindAxis = False,
    overwrite: Overwrite = False,
) -> None:
    """Change a scan's line integrals or its axis, or, without --out, only say where the axis is."""
    opened = open_scan(scan)
    wanted = preparation(None, empty, rings, bin, rows, columns, axis_column, find_axis)
    if out is None:
        _say_axis(opened, wanted)
        return
    if wanted == Preparation():
        raise ConfigError(
            "nothing to do; give --empty, --rings, --bin, --rows, --columns, --axis-column or --find-axis"
        )
    for line in preprocess_scan(opened, out, wanted, overwrite):
        say(line)
    say(f"wrote {out}")


def _interval(text: str, name: str) -> tuple[int, int]:
    """ "10:120" as two whole numbers."""
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and len(text) < 20):
        raise ConfigError(f"{name} is {text!r:.60}; give a:b, two whole numbers, the end left out")
    return int(start), int(stop)


def _say_axis(scan: Scan, wanted: Preparation) -> None:
    if wanted != Preparation(axis="find"):
        raise ConfigError("give --out, or --find-axis alone")
    for line in search_axis(scan.projections, scan.geometry).lines:
        say(line)
