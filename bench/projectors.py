"""Time of one projection and one backprojection, beside independent projectors.

    python bench/projectors.py [--out bench/results/projectors.json]

Problems: a cone beam of 128^3 voxels, 64 views of 128x128, and one of 256^3 voxels, 90 views of 256x256, both over
360 degrees; and a stack of fans beside ASTRA's 2D CPU projectors. itk-rtk's Joseph pair (pip install itk-rtk, in any
environment) is measured in the same run when importable; name another interpreter with --peer-python. Figures are
medians of five calls after one that is not counted; quote their ratios, not the seconds.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from record import write_record

SIZES = {"128": (128, 128, 64), "256": (256, 256, 90)}


def timed(call, repeats=5):
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def rtk_pair(voxels, pixels, views):
    """Seconds of itk-rtk's Joseph forward and back projection of the same cone beam; runs in the peer's Python."""
    import itk
    from itk import RTK as rtk

    image_type = itk.Image[itk.F, 3]
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    for k in range(views):
        geometry.AddProjection(2.0 * voxels, 3.0 * voxels, 360.0 * k / views)

    def constant(shape, spacing):
        source = rtk.ConstantImageSource[image_type].New()
        source.SetOrigin([-(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)])
        source.SetSpacing(list(spacing))
        source.SetSize(list(shape))
        source.SetConstant(1.0)
        source.Update()
        return source.GetOutput()

    def forward():
        filter_ = rtk.JosephForwardProjectionImageFilter[image_type, image_type].New()
        filter_.SetInput(0, constant((pixels, pixels, views), (1.5, 1.5, 1.0)))
        filter_.SetInput(1, constant((voxels,) * 3, (1.0,) * 3))
        filter_.SetGeometry(geometry)
        start = time.perf_counter()
        filter_.Update()
        return time.perf_counter() - start

    def back():
        filter_ = rtk.JosephBackProjectionImageFilter[image_type, image_type].New()
        filter_.SetInput(0, constant((voxels,) * 3, (1.0,) * 3))
        filter_.SetInput(1, constant((pixels, pixels, views), (1.5, 1.5, 1.0)))
        filter_.SetGeometry(geometry)
        start = time.perf_counter()
        filter_.Update()
        return time.perf_counter() - start

    return {
        name: float(np.median([call() for _ in range(6)][1:])) for name, call in (("forward", forward), ("back", back))
    }


def joseph_pair(voxels, pixels, views):
    from volrecon.geometry import VolumeGeometry, cone
    from volrecon.projectors import projector

    scan = cone(
        source_to_object_mm=2.0 * voxels,
        source_to_detector_mm=3.0 * voxels,
        detector_shape=(pixels, pixels),
        pixel_mm=1.5,
        angles=np.linspace(0, 2 * np.pi, views, endpoint=False),
    )
    return pair_of(projector(VolumeGeometry((voxels,) * 3, (1.0,) * 3), scan))


def pair_of(A):
    x = np.random.default_rng(0).random(A.domain_shape, dtype=np.float32)
    y = np.random.default_rng(1).random(A.range_shape, dtype=np.float32)
    projected, back = np.empty_like(y), np.empty_like(x)
    return {"forward": timed(lambda: A(x, out=projected)), "back": timed(lambda: A.T(y, out=back))}


def fan_stack(voxels, slices, views):
    """`joseph` and ASTRA's 2D CPU projector (one thread) on a stack of fans."""
    from volrecon.geometry import VolumeGeometry, fan
    from volrecon.projectors import projector

    grid = VolumeGeometry((slices, voxels, voxels), (1.0,) * 3)
    scan = fan(
        source_to_object_mm=2.0 * voxels,
        source_to_detector_mm=3.0 * voxels,
        rows=slices,
        columns=int(1.5 * voxels),
        pixel_mm=1.5,
        angles=np.linspace(0, 2 * np.pi, views, endpoint=False),
    )
    return {name: pair_of(projector(grid, scan, name)) for name in ("joseph", "astra")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that can import itk.RTK")
    parser.add_argument("--rtk", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rtk:
        print(json.dumps(rtk_pair(*options.rtk)))
        return
    results = {}
    for name, size in SIZES.items():
        results[f"cone {name}"] = {"joseph": joseph_pair(*size)}
        command = [options.peer_python, __file__, "--rtk", *map(str, size)]
        peer = subprocess.run(command, capture_output=True, text=True, check=False)
        if peer.returncode == 0:
            results[f"cone {name}"]["itk-rtk Joseph"] = json.loads(peer.stdout.splitlines()[-1])
        else:
            print(f"itk-rtk was not measured: {peer.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        results[f"cone {name}"]["joseph again"] = joseph_pair(*size)
    results["fan 256, 16 slices, 180 views"] = fan_stack(256, 16, 180)
    print_table(results)
    if options.out:
        write_record(options.out, "python bench/projectors.py", seconds=results)


def print_table(results):
    print("| problem | projector | forward s | back s | forward ratio | back ratio |\n|---|---|---|---|---|---|")
    for problem, rows in results.items():
        base = rows.get("itk-rtk Joseph") or rows.get("astra")
        for name, row in rows.items():
            ratios = (row[k] / base[k] if base else float("nan") for k in ("forward", "back"))
            cells = " | ".join(f"{r:.2f}" for r in ratios)
            print(f"| {problem} | {name} | {row['forward']:.3f} | {row['back']:.3f} | {cells} |")


if __name__ == "__main__":
    main()
