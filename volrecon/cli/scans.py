"""simulate, select: scans of known volumes, and parts of scans."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from volrecon.cli.app import app, finite, say
from volrecon.errors import ConfigError, DataError
from volrecon.exchange import read_any_volume, select_views, water_of
from volrecon.formats import Hints
from volrecon.geometry import VolumeGeometry, coverage
from volrecon.noise import Noise
from volrecon.simulate import Beam, Setup, design_scan, prepare, write_simulation
from volrecon.simulate import phantom as make_phantom
from volrecon.store import ScanHeader, open_scan

Out = Annotated[Path, typer.Option(help="Where the result goes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result of volrecon.")]
Water = Annotated[
    float,
    typer.Option(help="Attenuation of water in 1/mm; ties HU to 1/mm.", min=1e-6, max=1e3, callback=finite),
]
Key = Annotated[str | None, typer.Option(help='Array inside a file of several, such as "hu" or "hu[3]".')]
QuantityOption = Annotated[Literal["hu", "per_mm"] | None, typer.Option(help="What a volume's numbers are.")]
VoxelText = Annotated[str | None, typer.Option(help="Voxel size in mm, one number or z,y,x.")]


def numbers(text: str, count: int, name: str) -> tuple[float, ...]:
    """ "1.5" or "5,0.8,0.8" as numbers; a lone number stands for all."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, count) or not np.isfinite(values).all():
        raise ConfigError(f"{name} is {text!r:.60}; give one number or {count}, separated by commas")
    return values * count if len(values) == 1 else values


def counts(text: str, count: int, name: str) -> tuple[int, ...]:
    values = numbers(text, count, name)
    if any(v != int(v) or v < 1 for v in values):
        raise ConfigError(f"{name} is {text!r:.60}; give whole numbers of at least 1")
    return tuple(int(v) for v in values)


def volume_hints(key: str | None, voxel_mm: str | None, quantity: Literal["hu", "per_mm"] | None) -> Hints:
    z, y, x = numbers(voxel_mm, 3, "--file-voxel-mm") if voxel_mm else (0.0, 0.0, 0.0)
    return Hints(key=key, voxel_zyx_mm=(z, y, x) if voxel_mm else None, quantity=quantity)


@app.command()
def simulate(
    out: Out,
    volume: Annotated[Path | None, typer.Option(help="A volume.zarr, NIfTI, npz, npy or TIFF; HU or 1/mm.")] = None,
    phantom: Annotated[bool, typer.Option("--phantom", help="The built-in anatomy phantom instead.")] = False,
    shape: Annotated[str, typer.Option(help="Voxels z,y,x of the phantom.")] = "96,128,128",
    geometry: Annotated[Beam, typer.Option(help="Trajectory.")] = "cone",
    views: Annotated[int, typer.Option(help="Number of projections.", min=1)] = 60,
    arc: Annotated[
        float | None,
        typer.Option(help="Degrees the gantry turns in all; default 360, a helix past the object.", min=0.001),
    ] = None,
    source_to_object_mm: Annotated[float | None, typer.Option(min=1e-3)] = None,
    source_to_detector_mm: Annotated[float | None, typer.Option(min=1e-3)] = None,
    detector: Annotated[str | None, typer.Option(help="Pixels rows,columns; default covers the object.")] = None,
    pixel_mm: Annotated[float | None, typer.Option(help="At the detector; default one voxel, magnified.")] = None,
    pitch_mm: Annotated[float | None, typer.Option(help="Rise of a helix in one turn.")] = None,
    voxel_mm: Annotated[float | None, typer.Option(help="Resample to cubic voxels of this size first.")] = None,
    oversample: Annotated[int, typer.Option(help="Project a grid and a detector this many times finer.", min=1)] = 2,
    photons: Annotated[float | None, typer.Option(help="Photons a pixel in air; default no noise.", min=1)] = None,
    electronic_noise: Annotated[float, typer.Option(help="Readout noise in photons.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    water_per_mm: Annotated[
        float | None,
        typer.Option(help="Water in 1/mm; default what a store states.", min=1e-6, max=1e3, callback=finite),
    ] = None,
    quantity: QuantityOption = None,
    key: Key = None,
    file_voxel_mm: VoxelText = None,
    truth: Annotated[Path | None, typer.Option(help="The reference volume; default beside --out.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Project a known volume into a scan, and keep the volume as a reference."""
    if electronic_noise and not photons:
        raise ConfigError("--electronic-noise is in photons: give --photons too")
    if phantom == (volume is not None):
        raise ConfigError("give either --volume FILE or --phantom")
    water = water_of(volume or Path(), water_per_mm)
    if volume is not None:
        hints = volume_hints(key, file_voxel_mm, quantity)
        values, grid, notes = read_any_volume(volume, hints, water)
        for note in notes:
            say(note)
        fine, reference, grid = prepare(values, grid, voxel_mm, oversample)
    else:
        nz, ny, nx = counts(shape, 3, "--shape")
        size = voxel_mm or 320.0 / nx
        grid = VolumeGeometry((nz, ny, nx), (size, size, size))
        fine, reference = make_phantom(grid, oversample, seed, water)
    pixels = counts(detector, 2, "--detector") if detector else None
    setup = Setup(
        geometry,
        views,
        arc,
        source_to_object_mm,
        source_to_detector_mm,
        (pixels[0], pixels[1]) if pixels else None,
        pixel_mm,
        pitch_mm,
    )
    scan = design_scan(setup, reference, grid, water)
    seen = coverage(grid, scan)
    seen.warn()
    noise = Noise("poisson", photons, electronic_noise) if photons else Noise()
    source = {"simulated_from": volume.name if volume else "phantom anatomy", "oversample": oversample, "seed": seed}
    header = ScanHeader(scan, grid, noise, water, source)
    truth = truth or out.with_name(f"{out.name.removesuffix('.zarr')}-truth.zarr")
    write_simulation(out, truth, (fine, reference), header, oversample, seed, overwrite)
    sod, sdd = scan.source_to_object_mm[0], scan.source_to_detector_mm[0]
    say(f"{scan.beam} beam, {scan.views} views{f' over {arc:g} deg' if arc else ''}")
    say(f"detector {scan.detector_shape} (v, u) of {scan.pixel_vu_mm} mm")
    say(f"source to object {sod:g} mm, to detector {sdd:g} mm; grid {grid.shape} of {grid.voxel_zyx_mm} mm")
    say(f"truncated: {open_scan(out).truncation():.1%} of the views; unseen: {seen.unseen:.1%} of the grid")
    say(f"wrote {out} and {truth}")


@app.command()
def select(
    scan: Annotated[Path, typer.Argument(help="A scan.zarr.")],
    out: Out,
    every: Annotated[int | None, typer.Option(help="Every n-th view.", min=1)] = None,
    arc: Annotated[str | None, typer.Option(help="Views a:b in degrees from the first, the end left out.")] = None,
    views: Annotated[Path | None, typer.Option(help="File of view indices, one a line.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Keep some views of a scan; --arc is applied before --every."""
    opened = open_scan(scan)
    chosen = np.arange(opened.geometry.views)
    if views is not None:
        chosen = _indices(views, opened.geometry.views)
    if arc is not None:
        chosen = chosen[_in_arc(opened.geometry.angles, arc)[chosen]]
    if every is not None:
        chosen = chosen[::every]
    if views is None and arc is None and every is None:
        raise ConfigError("give --every N, --arc a:b or --views FILE")
    select_views(opened, chosen, out, overwrite)
    say(f"{len(chosen)} of {opened.geometry.views} views; wrote {out}")


def _indices(path: Path, count: int) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
        indices = [int(line) for line in text.replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a list of view indices: {error}") from error
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ConfigError(f"{path}: views {wrong[:5]} are not in a scan of {count} views")
    return np.array(indices, dtype=int)


def _in_arc(angles: np.ndarray, arc: str) -> np.ndarray:
    try:
        low, high = (np.deg2rad(float(part)) for part in arc.split(":"))
    except ValueError as error:
        raise ConfigError(f"--arc is {arc!r:.60}; give two angles in degrees, such as 0:90") from error
    steps = np.diff(np.unwrap(angles))
    sense = -1.0 if steps.size and np.median(steps) < 0 else 1.0
    from_first = np.mod(sense * (angles - angles[0]) - low + 1e-9, 2 * np.pi)
    return from_first < high - low
