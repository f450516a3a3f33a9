"""verify, compare, export: looking at what is there."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from volrecon.cli.app import app, finite, say
from volrecon.errors import ConfigError, DataError, IntegrityError
from volrecon.exchange import export_scan, export_volume, read_any_volume, water_of
from volrecon.figures import difference_figure
from volrecon.formats import Hints, format_of, geometry_format_of
from volrecon.metrics import compare as compare_volumes
from volrecon.report import score_table
from volrecon.store import open_scan, open_volume
from volrecon.store import verify as verify_store

Partial = Annotated[bool, typer.Option("--partial", help="Also open an incomplete volume.")]


@app.command()
def verify(paths: Annotated[list[Path], typer.Argument(help="Scans or volumes.")]) -> None:
    """Read every chunk and compare checksums; lists every fault and exits with 4 if there is one."""
    faults = [fault for path in paths for fault in verify_store(path)]
    for fault in faults:
        say(fault)
    if faults:
        raise IntegrityError(f"{len(faults)} faults in {len(paths)} stores")
    say(f"{len(paths)} checked, every chunk present and whole")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="The reference: a volume.zarr or an outside file.")],
    b: Annotated[Path, typer.Argument(help="The volume that is judged.")],
    out: Annotated[Path, typer.Option(help="PNG of both and their difference.")] = Path("difference.png"),
    data_range: Annotated[float | None, typer.Option(help="In 1/mm; default twice water, +1000 HU.", min=1e-9)] = None,
    water_per_mm: Annotated[
        float | None,
        typer.Option(help="Water in 1/mm; default what A states.", min=1e-6, max=1e3, callback=finite),
    ] = None,
) -> None:
    """PSNR and SSIM of B against A, with the data range stated, and a picture of the difference."""
    water = water_of(a, water_per_mm)
    (first, grid, _), (second, other, _) = (read_any_volume(path, Hints(), water) for path in (a, b))
    if grid.shape != other.shape or not np.allclose(grid.voxel_zyx_mm, other.voxel_zyx_mm, rtol=1e-4):
        raise DataError(
            f"{a} has {grid.shape} voxels of {grid.voxel_zyx_mm} mm, {b} {other.shape} of {other.voxel_zyx_mm} mm; "
            f"reconstruct both on one grid ([grid] of the job)"
        )
    score = compare_volumes(first, second, data_range or 2 * water)
    for row in score_table({b.name: score}):
        say("  ".join(f"{cell:>24}" if k == 0 else f"{cell:>10}" for k, cell in enumerate(row)))
    planes = {"axial": score.axial, "coronal": score.coronal, "sagittal": score.sagittal}
    say("PSNR by plane: " + ", ".join(f"{name} {plane.psnr:.2f}" for name, plane in planes.items()))
    say(f"rmse {score.rmse:.3g} /mm, largest difference {score.max_abs_error:.3g} /mm")
    names = (a.name, b.name) if a.name != b.name else (str(a.parent.name), str(b.parent.name))
    difference_figure(out, first, second, grid.voxel_zyx_mm, names=names, water_per_mm=water)
    say(f"wrote {out}")


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A volume.zarr, a run directory, or a scan.zarr.")],
    out: Annotated[
        Path,
        typer.Argument(
            help="Outside file; its suffix names the format: .nii.gz, .mha, .npz, .npy, .tif, .dcm (a folder) of a "
            "volume, or the geometry of a scan: .xml, .toml, .npy, .txt, .csv, .geom, .xtekct."
        ),
    ],
    quantity: Annotated[Literal["hu", "per_mm"], typer.Option(help="Unit of a volume's numbers.")] = "per_mm",
    water_per_mm: Annotated[
        float | None, typer.Option(help="For HU; default what the volume knows.", min=1e-6, max=1e3, callback=finite)
    ] = None,
    partial: Partial = False,
    projections: Annotated[
        Path | None, typer.Option(help="Where a scan's projections go, .mha, .tif or .npy; default beside OUT.")
    ] = None,
) -> None:
    """Write a volume, or a scan's geometry and projections, in outside formats."""
    if (source / "projections").is_dir():
        scan = open_scan(source)
        target = export_scan(scan, out, projections)
        say(f"wrote {out}, geometry, with {geometry_format_of(out).name}")
        say(f"wrote {target}, projections, with {format_of(target).name}")
        if scan.grid is not None or scan.noise.kind != "none":
            say("outside formats do not hold the scan's noise model, and most not its grid")
        return
    if projections is not None:
        raise ConfigError(f"{source} is no scan: --projections does not go with it")
    inside = source / "volume.zarr"
    stored = open_volume(inside if inside.is_dir() else source, partial)
    water = water_of(stored.data.folder.parent, water_per_mm)
    export_volume(stored, out, quantity, water)
    say(f"wrote {out}, {'HU' if quantity == 'hu' else '1/mm'}, with {format_of(out).name}")
