"""run and check: jobs."""

from pathlib import Path
from typing import Annotated

import typer

from volrecon import engine
from volrecon.cli.app import app, say, shown_progress
from volrecon.engine import Checked
from volrecon.jobs import load_job
from volrecon.report import score_table, write_report

JobFile = Annotated[Path | None, typer.Argument(help="A job.toml; without it give --scan and --out.")]
ScanOption = Annotated[Path | None, typer.Option(help="A scan.zarr.")]
MethodOption = Annotated[str | None, typer.Option(help="A recipe: fdk, fbp, sirt, cgls, tv, or a .toml file.")]
OutOption = Annotated[Path | None, typer.Option(help="The run directory.")]
Reference = Annotated[Path | None, typer.Option(help="A volume.zarr on the same grid, for metrics.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="key=value, such as method.lam=3e-4; repeatable.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the volume of an earlier run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


@app.command()
def run(
    job: JobFile = None,
    scan: ScanOption = None,
    method: MethodOption = None,
    out: OutOption = None,
    reference: Reference = None,
    changes: Changes = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct a job, or a scan without a job file."""
    checked = _checked(job, scan, method, out, reference, changes)
    with shown_progress(str(checked.resolved["method"]["algorithm"]), quiet) as progress:
        info = engine.run(checked, progress, overwrite)
    scores = write_report(checked, info)
    for row in score_table(scores):
        say("  ".join(f"{cell:>18}" if k == 0 else f"{cell:>10}" for k, cell in enumerate(row)))
    say(f"wrote {checked.out}/volume.zarr and report.png")


@app.command()
def check(
    job: JobFile = None,
    scan: ScanOption = None,
    method: MethodOption = None,
    out: OutOption = None,
    reference: Reference = None,
    changes: Changes = None,
) -> None:
    """Open everything a job names and say what it would do; computes nothing."""
    checked = _checked(job, scan, method, out, reference, changes)
    engine.warn_of_losses(checked.coverage, checked.scan)
    scan_geometry, grid = checked.scan.geometry, checked.grid
    say(f"scan: {scan_geometry.beam} beam, {scan_geometry.views} views, detector {scan_geometry.detector_shape} (v, u)")
    say(f"grid: {grid.shape} voxels of {grid.voxel_zyx_mm} mm (z, y, x), centre {grid.centre_xyz_mm} mm (x, y, z)")
    say(f"unseen by every view: {checked.coverage.unseen:.1%} of the grid")
    say(f"method: {checked.resolved['method']}")
    say(f"unit: {checked.unit_per_mm:g} /mm; noise: {checked.scan.noise.kind}; out: {checked.out}")


def _checked(
    job: Path | None,
    scan: Path | None,
    method: str | None,
    out: Path | None,
    reference: Path | None,
    changes: list[str] | None,
) -> Checked:
    # Paths typed at the prompt are relative to where one stands, those in the file to the file.
    given = {
        "scan": str(scan.absolute()) if scan else None,
        "method": str(Path(method).absolute()) if method and method.endswith(".toml") else method,
        "out": str(out.absolute()) if out else None,
        "reference": str(reference.absolute()) if reference else None,
    }
    loaded, base = load_job(job, changes or [], {key: value for key, value in given.items() if value is not None})
    return engine.check(loaded, base)
