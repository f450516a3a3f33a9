"""run, plan and check: jobs."""

import re
from pathlib import Path
from typing import Annotated

import typer

from volrecon import engine
from volrecon.cli.app import app, say, shown_progress
from volrecon.engine import Checked
from volrecon.jobs import load_job
from volrecon.plan import plan_lines
from volrecon.report import score_table, write_report

JobFile = Annotated[Path | None, typer.Argument(help="A job.toml; without it give --scan and --out.")]
ScanOption = Annotated[Path | None, typer.Option(help="A scan.zarr.")]
MethodOption = Annotated[str | None, typer.Option(help="A recipe: fdk, fbp, sirt, cgls, tv, or a .toml file.")]
OutOption = Annotated[Path | None, typer.Option(help="The run directory.")]
Reference = Annotated[Path | None, typer.Option(help="A volume.zarr on the same grid, for metrics.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="key=value, such as method.lam=3e-4; repeatable.")]
Memory = Annotated[str | None, typer.Option(help="What the process may take, such as 2GiB; default 70 % of the free.")]
Scratch = Annotated[Path | None, typer.Option(help="Folder for the state and, where memory is short, the volumes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the volume of an earlier run.")]
Restart = Annotated[bool, typer.Option("--restart", help="Drop what an unfinished run has computed.")]
MaxTime = Annotated[str | None, typer.Option(help="End with a commit before this long, such as 90s, 45min or 3h.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


@app.command()
def run(
    job: JobFile = None,
    scan: ScanOption = None,
    method: MethodOption = None,
    out: OutOption = None,
    reference: Reference = None,
    changes: Changes = None,
    memory: Memory = None,
    scratch: Scratch = None,
    max_time: MaxTime = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct a job, or a scan without a job file. The same command again goes on after an interruption."""
    checked = _checked(job, _given(scan, method, out, reference, memory, scratch), changes)
    seconds = _seconds(max_time) if max_time else None
    with shown_progress(checked.name, quiet) as progress:
        info = engine.run(checked, progress, overwrite, restart, seconds)
    scores = write_report(checked, info)
    for row in score_table(scores):
        say("  ".join(f"{cell:>18}" if k == 0 else f"{cell:>10}" for k, cell in enumerate(row)))
    say(f"wrote {checked.out}/volume.zarr and report.png")


@app.command()
def plan(
    job: JobFile = None,
    scan: ScanOption = None,
    method: MethodOption = None,
    out: OutOption = None,
    reference: Reference = None,
    changes: Changes = None,
    memory: Memory = None,
    scratch: Scratch = None,
) -> None:
    """Say what a job will need: memory, disk, time, phase by phase; refuse it where it cannot fit."""
    checked = _checked(job, _given(scan, method, out, reference, memory, scratch), changes)
    found = engine.planned(checked)
    direct = engine.beside(checked, found)
    for line in plan_lines(found, direct[1] if direct else None):
        say(line)


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
    checked = _checked(job, _given(scan, method, out, reference), changes)
    engine.warn_of_losses(checked.coverage, checked.scan)
    scan_geometry, grid = checked.scan.geometry, checked.grid
    say(f"scan: {scan_geometry.beam} beam, {scan_geometry.views} views, detector {scan_geometry.detector_shape} (v, u)")
    say(f"grid: {grid.shape} voxels of {grid.voxel_zyx_mm} mm (z, y, x), centre {grid.centre_xyz_mm} mm (x, y, z)")
    say(f"unseen by every view: {checked.coverage.unseen:.1%} of the grid")
    say(f"method: {checked.resolved['method']}")
    say(f"unit: {checked.unit_per_mm:g} /mm; noise: {checked.scan.noise.kind}; out: {checked.out}")


def _given(
    scan: Path | None,
    method: str | None,
    out: Path | None,
    reference: Path | None,
    memory: str | None = None,
    scratch: Path | None = None,
) -> dict[str, str]:
    """What was typed, by key of the job. Paths typed at the prompt are relative to where one stands."""
    given = {
        "scan": str(scan.absolute()) if scan else None,
        "method": str(Path(method).absolute()) if method and method.endswith(".toml") else method,
        "out": str(out.absolute()) if out else None,
        "reference": str(reference.absolute()) if reference else None,
        "compute.memory": memory,
        "compute.scratch": str(scratch.absolute()) if scratch else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _checked(job: Path | None, given: dict[str, str], changes: list[str] | None) -> Checked:
    loaded, base = load_job(job, changes or [], given)
    return engine.check(loaded, base)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\s*([0-9.]+)\s*(s|min|h|d)?\s*", text)
    try:
        seconds = float(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[match[2] or "s"] if match else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{text!r:.40} is no time above 0; give one such as 90s, 45min or 3h")
    return seconds
