"""demo: the main job from nothing, in under two minutes on two cores."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from volrecon import engine
from volrecon.cli.app import app, say, shown_progress
from volrecon.figures import report_figure
from volrecon.geometry import VolumeGeometry
from volrecon.jobs import Job
from volrecon.metrics import compare
from volrecon.noise import Noise
from volrecon.report import score_table
from volrecon.simulate import Setup, design_scan, phantom, write_simulation
from volrecon.store import ScanHeader, open_volume

GRID = VolumeGeometry((80, 112, 112), (3.0, 3.0, 3.0))
VIEWS, PHOTONS, OVERSAMPLE, SEED, WATER = 24, 1e5, 2, 1, 0.02
METHODS: dict[str, str | dict[str, Any]] = {
    "FDK": "fdk",
    "SIRT": {"recipe": "sirt", "iterations": 40},
    "TV": {"recipe": "tv", "iterations": 24},
}


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the scan, the volumes and the picture.")] = Path("demo-out"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Simulate a cone-beam scan of a phantom and reconstruct it three ways, side by side."""
    started = time.monotonic()
    _simulate(out, overwrite)
    truth = open_volume(out / "truth.zarr")
    volumes, scores = {}, {}
    for name, method in METHODS.items():
        job = Job(scan="scan.zarr", out=name.lower(), method=method, reference="truth.zarr")
        with shown_progress(name, quiet) as progress:
            engine.run(engine.check(job, out), progress, overwrite)
        volumes[name] = open_volume(out / name.lower() / "volume.zarr").data
        scores[name] = compare(truth.data, volumes[name], 2 * WATER)
    rows = score_table(scores)
    report_figure(
        out / "demo.png",
        {**volumes, "reference": truth.data},
        GRID.voxel_zyx_mm,
        reference="reference",
        water_per_mm=WATER,
        title=f"{VIEWS} noisy cone-beam views of a phantom, {' x '.join(map(str, GRID.shape))} voxels",
        table=rows,
    )
    for row in rows:
        say("  ".join(f"{cell:>20}" if k == 0 else f"{cell:>10}" for k, cell in enumerate(row)))
    say(f"wrote {out}/demo.png, and scan, truth and three runs beside it, in {time.monotonic() - started:.0f} s")


def _simulate(folder: Path, overwrite: bool) -> None:
    volumes = phantom(GRID, OVERSAMPLE, SEED, WATER)
    scan = design_scan(Setup("cone", VIEWS, 360.0, 700.0, 1100.0), volumes[1], GRID, WATER)
    source = {"simulated_from": "phantom anatomy", "oversample": OVERSAMPLE, "seed": SEED}
    header = ScanHeader(scan, GRID, Noise("poisson", PHOTONS), WATER, source)
    write_simulation(folder / "scan.zarr", folder / "truth.zarr", volumes, header, OVERSAMPLE, SEED, overwrite)
