"""info, verify, compare, export: looking at what is there."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from volrecon.cli.app import app, say
from volrecon.cli.scans import Key, QuantityOption, VoxelText, volume_hints
from volrecon.errors import DataError, IntegrityError
from volrecon.exchange import export_volume, read_any_volume, water_of
from volrecon.figures import difference_figure
from volrecon.formats import Hints, format_of, read_geometry
from volrecon.geometry import ScanGeometry, VolumeGeometry, coverage, suggest_grid
from volrecon.metrics import compare as compare_volumes
from volrecon.report import score_table
from volrecon.store import open_scan, open_volume
from volrecon.store import verify as verify_store

Partial = Annotated[bool, typer.Option("--partial", help="Also open an incomplete volume.")]


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A scan, volume, run directory, geometry.toml or outside file.")],
    partial: Partial = False,
    key: Key = None,
    quantity: QuantityOption = None,
    file_voxel_mm: VoxelText = None,
) -> None:
    """Say what a file is."""
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if (path / "volume.zarr").is_dir():
        path = path / "volume.zarr"
    if (path / "projections").is_dir():
        _scan_info(path)
    elif (path / "zarr.json").exists():
        _volume_info(path, partial)
    elif path.suffix == ".toml":
        stated = read_geometry(path)
        _print_scan(stated.scan, stated.grid)
        for note in stated.notes:
            say(note)
    else:
        _outside_info(path, volume_hints(key, file_voxel_mm, quantity))


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
    water_per_mm: Annotated[float | None, typer.Option(help="Attenuation of water; default what A states.")] = None,
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
    volume: Annotated[Path, typer.Argument(help="A volume.zarr or a run directory.")],
    out: Annotated[Path, typer.Argument(help="Outside file; its suffix names the format: .nii.gz, .npz, .npy, .tif.")],
    quantity: Annotated[Literal["hu", "per_mm"], typer.Option(help="Unit of the numbers written.")] = "per_mm",
    water_per_mm: Annotated[float | None, typer.Option(help="For HU; default what the volume knows.")] = None,
    partial: Partial = False,
) -> None:
    """Write a volume in an outside format."""
    inside = volume / "volume.zarr"
    stored = open_volume(inside if inside.is_dir() else volume, partial)
    water = water_per_mm or float(stored.attributes.get("water_per_mm", 0.02))
    export_volume(stored, out, quantity, water)
    say(f"wrote {out}, {'HU' if quantity == 'hu' else '1/mm'}, with {format_of(out).name}")


def _scan_info(path: Path) -> None:
    scan = open_scan(path)
    say(f"{path}: scan, line integrals (v, angle, u) {scan.projections.shape}")
    _print_scan(scan.geometry, scan.grid)
    row = scan.projections[scan.geometry.shape[0] // 2 : scan.geometry.shape[0] // 2 + 1]
    say(f"middle row: {np.nanmin(row):.4g} to {np.nanmax(row):.4g}, median {np.nanmedian(row):.4g}")
    say(f"truncated: in {scan.truncation():.1%} of the views of the middle row the object reaches the detector's edge")
    say(f"noise: {scan.noise.kind}{f', {scan.noise.photons:g} photons' if scan.noise.photons else ''}")
    say(f"water {scan.water_per_mm:g} /mm; sha256 {scan.digest[:16]}; {scan.provenance}")


def _print_scan(scan: ScanGeometry, grid: VolumeGeometry | None) -> None:
    angles = np.rad2deg(scan.angles)
    pixel = tuple(round(p, 6) for p in scan.pixel_vu_mm)
    say(f"{scan.beam} beam, {scan.views} views, detector {scan.detector_shape} (v, u) of {pixel} mm")
    say(f"first angle {angles[0]:.4g} deg, last {angles[-1]:.4g} deg, source counter-clockwise from -y about +z")
    if scan.beam != "parallel":
        sod, sdd = scan.source_to_object_mm[0], scan.source_to_detector_mm[0]
        say(f"source to object {sod:g} mm, to detector {sdd:g} mm, magnification {scan.magnification:.4g}")
    volume = grid or suggest_grid(scan)
    seen = coverage(volume, scan)
    voxel = tuple(round(s, 6) for s in volume.voxel_zyx_mm)
    say(f"{'stated' if grid else 'suggested'} grid {volume.shape} of {voxel} mm (z, y, x)")
    say(f"of it {seen.unseen:.1%} is seen by no view, {seen.truncated_u:.1%} falls beside the detector")


def _volume_info(path: Path, partial: bool) -> None:
    stored = open_volume(path, partial)
    grid = stored.geometry
    say(f"{path}: volume, attenuation in 1/mm (z, y, x) {grid.shape} of {grid.voxel_zyx_mm} mm")
    say(f"centre {grid.centre_xyz_mm} mm (x, y, z); {'complete' if stored.digest else 'INCOMPLETE'}")
    middle = stored.data[grid.shape[0] // 2 : grid.shape[0] // 2 + 1]
    say(f"middle slice: {np.nanmin(middle):.4g} to {np.nanmax(middle):.4g} /mm")
    if "job" in stored.attributes:
        say(f"method {stored.attributes['job']['method']}")
    say(f"sha256 {(stored.digest or '')[:16]}")


def _outside_info(path: Path, hints: Hints) -> None:
    known = format_of(path)
    if known.read_volume is None:
        raise DataError(f"{path}: {known.name} holds no volumes")
    data = known.read_volume(path, hints)
    say(f"{path}: {known.name}, volume {data.geometry.shape} of {data.geometry.voxel_zyx_mm} mm, {data.quantity}")
    for note in data.notes:
        say(note)
