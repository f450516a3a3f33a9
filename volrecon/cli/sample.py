"""sample: what a prior believes."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from volrecon.cli.app import app, say
from volrecon.cli.scans import Overwrite, counts
from volrecon.errors import ConfigError, DivergedError


@app.command()
def sample(
    prior: Annotated[str, typer.Argument(help='"builtin:ct" or a weights file.')],
    out: Annotated[Path, typer.Option(help="PNG of the samples.")] = Path("samples.png"),
    shape: Annotated[str, typer.Option(help="z,y,x: one slice, a group, or a volume.")] = "3,128,128",
    count: Annotated[int, typer.Option(help="How many samples.", min=1, max=64)] = 4,
    steps: Annotated[int, typer.Option(help="Noise levels.", min=2, max=10_000)] = 40,
    eta: Annotated[float, typer.Option(help="Fresh noise of each step: 0 none, 1 ancestral.", min=0, max=1)] = 0.5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    volume: Annotated[Path | None, typer.Option(help="Also keep the last sample as this volume.zarr.")] = None,
    voxel_mm: Annotated[
        float | None, typer.Option(help="Voxel size written into --volume; default the prior's smallest.", min=1e-3)
    ] = None,
    overwrite: Overwrite = False,
    quiet: Annotated[bool, typer.Option("--quiet")] = False,
) -> None:
    """Draw slices, slice groups or volumes from a prior, without any data."""
    from volrecon.figures import samples_figure
    from volrecon.geometry import VolumeGeometry
    from volrecon.priors import check_voxels, load_prior, prior_of
    from volrecon.sample import sample as draw
    from volrecon.sampling import karras
    from volrecon.store import write_volume
    from volrecon.store.output import check_free
    from volrecon.volume import RamSpace, RamVolume

    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder; make it, or choose another --out")
    if volume is not None:
        check_free(volume, overwrite)
    z, y, x = counts(shape, 3, "--shape")
    trained = load_prior(prior)
    smallest = trained.card.patch or 16
    if min(y, x) < smallest:
        raise ConfigError(f"--shape is {shape}; {prior} makes slices of at least {smallest} pixels a side")
    side = voxel_mm or trained.card.voxel_mm[0]
    grid = VolumeGeometry((z, y, x), (side, side, side))
    check_voxels(trained.card, grid)
    space = RamSpace()
    sigmas = karras(min(20.0, trained.card.noise[1]), max(0.005, trained.card.noise[0]), steps)
    drawn: list[np.ndarray] = []
    for k in range(count):
        result = draw(prior_of(trained), (z, y, x), sigmas, space, seed=seed + k, eta=eta)
        drawn.append(result.read(0, z).numpy())
        low, high = (float(v) for v in np.percentile(drawn[-1], (1, 99)))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DivergedError(f"sample {k} is not finite; the weights or the noise range are wrong")
        if not quiet:
            say(f"sample {k}: 1st to 99th percentile {low:.3f} to {high:.3f} of the linear unit")
    samples_figure(out, drawn, f"{prior}, {steps} steps, eta {eta:g}, seeds {seed} to {seed + count - 1}")
    say(f"wrote {out}")
    if volume is not None:
        attenuation = RamVolume(result.read(0, z) * trained.card.unit_per_mm)
        sampled_from = {"prior": trained.card.name, "sha256": trained.sha256, "seed": seed + count - 1}
        attributes = {"water_per_mm": trained.card.water_per_mm, "sampled_from": sampled_from}
        write_volume(volume, attenuation, grid, attributes, overwrite=overwrite)
        say(f"wrote {volume}")
