"""FDK, SIRT, CGLS and TV on a real abdomen: the table of docs/methods.md.

    python bench/classical.py [--out bench/results/classical.json] [--volume FILE] [--views 20 60]

The volume (default: the development abdomen, $VOLRECON_DATA or ../shared/data, dev/crlm1004_abdomen_512.npz) is
resampled to 2.5 mm and scanned as a noise-free cone beam over 360 degrees, twice: on the reconstruction's own grid
and detector, and on a grid and a detector twice as fine. Every method runs its recipe from configs/methods as it
stands. PSNR and SSIM against the 2.5 mm volume, data range 0.04 /mm (2000 HU).
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from record import write_record

from volrecon import engine
from volrecon.exchange import read_any_volume
from volrecon.formats import Hints
from volrecon.jobs import Job
from volrecon.metrics import compare
from volrecon.noise import Noise
from volrecon.simulate import Setup, design_scan, prepare, write_simulation
from volrecon.store import ScanHeader, open_volume

DATA = Path(os.environ.get("VOLRECON_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
METHODS = ("fdk", "sirt", "cgls", "tv")
WATER, VOXEL = 0.02, 2.5


def simulated(folder, volume, views, oversample):
    values, grid, _ = read_any_volume(volume, Hints(), WATER)
    fine, reference, grid = prepare(values, grid, VOXEL, oversample)
    scan = design_scan(Setup("cone", views, 360.0, 700.0, 1100.0), reference, grid, WATER)
    header = ScanHeader(scan, grid, Noise(), WATER, {"simulated_from": volume.name, "oversample": oversample})
    write_simulation(folder / "scan.zarr", folder / "truth.zarr", (fine, reference), header, oversample, 0, False)


def measured(folder, method):
    job = Job(scan="scan.zarr", out=method, method=method, reference="truth.zarr")
    start = time.perf_counter()
    info = engine.run(engine.check(job, folder))
    seconds = time.perf_counter() - start
    score = compare(
        open_volume(folder / "truth.zarr").data, open_volume(folder / method / "volume.zarr").data, 2 * WATER
    )
    return {
        "psnr": score.psnr,
        "ssim": {plane: getattr(score, plane).ssim for plane in ("axial", "coronal", "sagittal")},
        "residual": info.residual,
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--volume", type=Path, default=DATA / "dev/crlm1004_abdomen_512.npz")
    parser.add_argument("--views", type=int, nargs="+", default=[20, 60])
    options = parser.parse_args()
    cells = []
    print("| views | simulated on | method | PSNR dB | SSIM axial | coronal | sagittal | s |")
    print("|---|---|---|---|---|---|---|---|")
    for views in options.views:
        for oversample in (1, 2):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                simulated(folder, options.volume, views, oversample)
                for method in METHODS:
                    cell = {"views": views, "oversample": oversample, "method": method, **measured(folder, method)}
                    cells.append(cell)
                    grid = "its own grid" if oversample == 1 else "a finer grid"
                    ssim = " | ".join(f"{value:.3f}" for value in cell["ssim"].values())
                    print(
                        f"| {views} | {grid} | {method} | {cell['psnr']:.2f} | {ssim} | {cell['seconds']:.0f} |",
                        flush=True,
                    )
    if options.out:
        write_record(options.out, "python bench/classical.py", cells=cells)


if __name__ == "__main__":
    main()
