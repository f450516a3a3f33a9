"""RTK beside volrecon on the same files: a scan exported as RTK's XML and MHA, reconstructed and projected by both.

    python bench/rtk_fdk.py [--peer-python peer/bin/python] [--out bench/results/rtk_fdk.json]

FDK: an anatomy phantom of 64x80x80 voxels of 3 mm, projected on a grid and a detector twice as fine, 180 cone-beam
views; RTK's FDKConeBeamReconstructionFilter and our fdk, both with the plain ramp, compared inside the largest
cylinder of the grid. Once with everything centred, once with the detector and the rotation axis off-centre.
Projection: the phantom through both Joseph projectors, with the detector tilted, and parallel. Needs itk-rtk (pip
install itk-rtk, in any environment); name its interpreter with --peer-python.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WATER = 0.02
FAR = {"source_to_object_mm": 600.0, "source_to_detector_mm": 900.0}
PANEL = {"detector_shape": (128, 128), "pixel_mm": 3.2}
VIEWS = 180


def rtk_part(folder):
    """Runs in the peer's Python: reconstruct scan.mha, or project volume.npy, with the geometry of scan.xml."""
    import itk
    from itk import RTK as rtk

    image_type = itk.Image[itk.F, 3]
    reader = rtk.ThreeDCircularProjectionGeometryXMLFileReader.New()
    reader.SetFilename(str(folder / "scan.xml"))
    reader.GenerateOutputInformation()
    projections = itk.imread(str(folder / "scan.mha"), itk.F)
    volume = itk.image_from_array(np.load(folder / "volume.npy"))
    grid = json.loads((folder / "grid.json").read_text())
    volume.SetSpacing(grid["spacing"])
    volume.SetOrigin(grid["origin"])
    if (folder / "fdk").exists():
        filter_ = rtk.FDKConeBeamReconstructionFilter[image_type].New()
        filter_.GetRampFilter().SetHannCutFrequency(0.0)
        first, second = volume, projections
    else:
        filter_ = rtk.JosephForwardProjectionImageFilter[image_type, image_type].New()
        projections.FillBuffer(0.0)
        first, second = projections, volume
    filter_.SetInput(0, first)
    filter_.SetInput(1, second)
    filter_.SetGeometry(reader.GetOutputObject())
    filter_.Update()
    np.save(folder / "rtk.npy", itk.array_from_image(filter_.GetOutput()))
    print(importlib.metadata.version("itk-rtk"))


def through_rtk(folder, peer, grid, volume, task):
    """What RTK makes of the exported files, its axes; and its version."""
    (folder / "fdk").unlink(missing_ok=True)
    if task == "fdk":
        (folder / "fdk").touch()
    # RTK's rotation axis is y, and its z is our -y.
    np.save(folder / "volume.npy", np.ascontiguousarray(volume[:, ::-1].transpose(1, 0, 2)))
    (dz, dy, dx), (nz, ny, nx) = grid.voxel_zyx_mm, grid.shape
    sizes, counts = np.array([dx, dz, dy]), np.array([nx, nz, ny])
    stated = {"spacing": sizes.tolist(), "origin": (-(counts - 1) / 2 * sizes).tolist()}
    (folder / "grid.json").write_text(json.dumps(stated))
    command = [peer, __file__, "--rtk", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"RTK failed: {done.stderr.strip()}")
    return np.load(folder / "rtk.npy"), done.stdout.split()[-1]


def compare_fdk(folder, peer, grid, phantom, scan):
    from volrecon.engine import reconstruct
    from volrecon.exchange import export_scan
    from volrecon.noise import Noise
    from volrecon.simulate import write_simulation
    from volrecon.store import ScanHeader, open_scan

    header = ScanHeader(scan, grid, Noise(), WATER)
    write_simulation(folder / "scan.zarr", folder / "truth.zarr", phantom, header, 2, 0, True)
    stored = open_scan(folder / "scan.zarr")
    export_scan(stored, folder / "scan.xml")
    ours = reconstruct(stored, {"algorithm": "fdk", "filter": "ram-lak"}, grid)
    theirs, version = through_rtk(folder, peer, grid, np.zeros(grid.shape, np.float32), "fdk")
    theirs = theirs.transpose(1, 0, 2)[:, ::-1]
    y, x = (np.arange(n) - (n - 1) / 2 for n in grid.shape[1:])
    inside = np.hypot(y[:, None], x) <= min(grid.shape[1:]) / 2 - 1
    return figures(ours[:, inside], theirs[:, inside]) | {
        name: float(np.sqrt(np.mean((volume - phantom[1])[:, inside] ** 2)) / WATER)
        for name, volume in (("our rmse to the phantom / water", ours), ("rtk's rmse to the phantom / water", theirs))
    }, version


def compare_projections(folder, peer, grid, phantom, scan):
    from volrecon.exchange import export_scan
    from volrecon.projectors import projector
    from volrecon.store import ScanHeader, open_scan, write_scan

    ours = projector(grid, scan, "joseph")(phantom[1])
    write_scan(folder / "scan.zarr", ScanHeader(scan, grid), [ours], overwrite=True)
    export_scan(open_scan(folder / "scan.zarr"), folder / "scan.xml")
    theirs, version = through_rtk(folder, peer, grid, phantom[1], "project")
    return figures(ours, theirs.transpose(1, 0, 2)), version


def figures(ours, theirs):
    """How far two arrays differ; the PSNR's data range is the peer's largest value."""
    difference = ours.astype(np.float64) - theirs
    rmse = float(np.sqrt(np.mean(difference**2)))
    return {
        "relative rmse": rmse / float(np.sqrt(np.mean(theirs.astype(np.float64) ** 2))),
        "psnr": float(20 * np.log10(theirs.max() / rmse)),
        "largest difference / largest value": float(np.abs(difference).max() / theirs.max()),
    }


def cases():
    from volrecon.geometry import cone, parallel

    angles = 0.1 + 2 * np.pi * np.arange(VIEWS) / VIEWS
    shifted = {"detector_offset_mm": (9.0, 6.0), "axis_shift_mm": -2.5}
    yield "fdk, centred", compare_fdk, cone(**FAR, **PANEL, angles=angles)
    yield "fdk, detector and axis off-centre", compare_fdk, cone(**FAR, **PANEL, angles=angles, **shifted)
    tilted = cone(**FAR, **PANEL, angles=angles[::6], **shifted, tilt=(0.1, -0.2, 0.15))
    yield "projection, tilted and off-centre", compare_projections, tilted
    inclined = parallel(**{**PANEL, "pixel_mm": 2.2}, angles=angles[::6], **shifted, elevation=0.3)
    yield "projection, parallel and inclined", compare_projections, inclined


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that can import itk.RTK")
    parser.add_argument("--rtk", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rtk:
        rtk_part(options.rtk)
        return
    from record import write_record

    from volrecon.geometry import VolumeGeometry
    from volrecon.simulate import phantom

    grid = VolumeGeometry((64, 80, 80), (3.0, 3.0, 3.0))
    volumes = phantom(grid, 2, 0, WATER)
    results, version = {}, ""
    print("| case | relative RMSE | PSNR dB | largest difference |\n|---|---|---|---|")
    for name, compared, scan in cases():
        with tempfile.TemporaryDirectory() as folder:
            results[name], version = compared(Path(folder), options.peer_python, grid, volumes, scan)
        cells = (results[name][key] for key in ("relative rmse", "psnr", "largest difference / largest value"))
        print(f"| {name} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |", flush=True)
    if options.out:
        command = "python bench/rtk_fdk.py --peer-python peer/bin/python"
        write_record(options.out, command, peer=f"itk-rtk {version}", results=results)


if __name__ == "__main__":
    main()
